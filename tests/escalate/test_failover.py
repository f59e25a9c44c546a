"""Workers as processes that join, leave and die: what it costs in calls, and how soon the next owner delivers."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.escalate.start import group_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.settings import load_settings
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.escalate.workers import CONFIG, Worker, until
from tests.kafka.reading import committed_and_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_app.settings import Settings

PARTITIONS = 6
IN_FLIGHT = 120
"""Calls a worker may have under way."""
LINGER_S = 0.2
SUMS = "calls?since=1000000000"
"""The stand-in's sums, without its list of calls."""


class Pipeline:
    """Topics of its own, workers on them, and what the stand-in LLM was asked."""

    def __init__(self, folder: Path, stack: Any, llm: Any, name: str, drain_s: float = 30.0) -> None:
        self.folder, self.llm = folder, llm
        (folder / "shunt.toml").write_text(
            CONFIG.format(
                kafka=stack.bootstrap_servers,
                triton=stack.triton_grpc,
                llm=llm.base_url,
                name=name,
                in_flight=IN_FLIGHT,
                drain_s=drain_s,
            )
        )
        self.settings: Settings = load_settings(folder / "shunt.toml")
        self.servers = self.settings.kafka.bootstrap_servers
        run_apart(create(Connection(self.settings.kafka), plan(self.settings.kafka, None, partitions=PARTITIONS)))
        self.workers: list[Worker] = []
        self.produced = 0

    def start(self, role: str = "escalate") -> Worker:
        """One more worker, which owns partitions when this returns."""
        worker = Worker(self.folder, f"{role}-{len(self.workers)}", role)
        self.workers.append(worker)
        until(worker.owned, lambda: f"{worker.name} owns partitions:\n{worker.said}")
        return worker

    def produce(self, count: int) -> None:
        """So many more escalations."""
        texts = escalated.texts(count, self.produced)
        topic = self.settings.kafka.names.escalations
        escalated.produce(self.servers, topic, texts, first_offset=self.produced, partitions=PARTITIONS)
        self.produced += count

    def busy(self, calls: int) -> None:
        """Waits until that many calls are in flight."""
        until(lambda: self.llm.admin(SUMS, method="GET")["in_flight"] >= calls, lambda: f"{calls} calls in flight")

    def at_rest(self) -> None:
        """Waits until the slow lane's lag is zero."""
        topic, group = self.settings.kafka.names.escalations, group_of(self.settings)

        def done() -> bool:
            found = committed_and_end(self.servers, topic, group)
            return all(committed == end for committed, end in found.values())

        until(done, lambda: "lag is zero")

    def calls(self) -> dict[str, list[dict[str, Any]]]:
        """Every call, by the event it was for."""
        by_event: dict[str, list[dict[str, Any]]] = {}
        for call in self.llm.calls():
            by_event.setdefault(call["event_id"], []).append(call)
        return by_event

    def check_finals(self) -> None:
        """One final for every event."""
        decisions = escalated.finals(self.servers, self.settings.kafka.names.decisions)
        assert escalated.finals_per_source(decisions) == Counter(range(self.produced))


@pytest.fixture
def open_pipeline(
    stack: Any, llm: Any, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Callable[..., Pipeline]]:
    """Makes a pipeline; its workers are ended at the end of the test."""
    made: list[Pipeline] = []

    def make(**options: Any) -> Pipeline:
        made.append(Pipeline(tmp_path, stack, llm, unique_name("reviews"), **options))
        return made[-1]

    yield make
    for worker in (worker for pipeline in made for worker in pipeline.workers):
        if worker.process.poll() is None:
            worker.kill()


@pytest.mark.timeout(300)
def test_joins_leaves_and_a_rolling_restart_ask_nothing_twice(open_pipeline: Callable[..., Pipeline]) -> None:
    """Two workers become three, then two, then each is restarted, always with hundreds of calls under way.

    Calls of about 1.5 s finish within `handover_s`: every event is asked exactly once, by the LLM's own log.
    """
    pipeline = open_pipeline()
    pipeline.llm.admin("latency", {"median_ms": 1_500, "sigma": 0.15})
    running = [pipeline.start(), pipeline.start()]

    def under_load(step: Callable[[], None]) -> None:
        pipeline.produce(900)
        pipeline.busy(200)
        step()

    def leave(worker: Worker) -> None:
        worker.leave()
        assert worker.ended() == 0, worker.said
        running.remove(worker)

    under_load(lambda: running.append(pipeline.start()))
    under_load(lambda: leave(running[0]))
    for worker in list(running):  # a rolling restart: the next one joins while the last one leaves
        under_load(worker.leave)
        under_load(lambda: running.append(pipeline.start()))
        leave(worker)
    pipeline.at_rest()
    asked = Counter({event_id: len(calls) for event_id, calls in pipeline.calls().items()})
    twice = {event_id: calls for event_id, calls in pipeline.calls().items() if len(calls) > 1}
    print(f"{pipeline.produced} events, {asked.total()} calls, {len(twice)} events asked more than once")
    assert not twice, list(twice.items())[:5]
    assert len(asked) == pipeline.produced
    pipeline.check_finals()


@pytest.mark.timeout(300)
def test_kill_9_repeats_only_what_was_in_the_air(open_pipeline: Callable[..., Pipeline]) -> None:
    """Killed with a hundred calls under way: only those, and the last uncommitted answers, are asked again, once."""
    pipeline = open_pipeline()
    pipeline.llm.admin("latency", {"median_ms": 800, "sigma": 0.3})
    victim, _ = pipeline.start(), pipeline.start()
    pipeline.produce(2_500)
    pipeline.busy(200)
    time.sleep(3)
    killed_at_s = time.time()
    victim.kill()
    pipeline.at_rest()
    again = [calls for calls in pipeline.calls().values() if len(calls) > 1]
    cut = [calls[0] for calls in again if calls[0]["status"] == -1]
    uncommitted = [calls[0] for calls in again if calls[0]["status"] == 200]
    ages_s = [killed_at_s - call["at_s"] - call["duration_s"] for call in uncommitted]
    print(
        f"asked twice: {len(cut)} in flight, {len(uncommitted)} answered and not committed, "
        f"the oldest {max(ages_s, default=0):.2f} s before the kill"
    )
    assert all(len(calls) == 2 for calls in again)
    assert len(again) == len(cut) + len(uncommitted)
    assert 1 <= len(cut) <= IN_FLIGHT
    # A linger, and a transaction of a machine that has other things to do.
    assert all(age_s <= LINGER_S + 2 for age_s in ages_s)
    pipeline.check_finals()
