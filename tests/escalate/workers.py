"""Workers as a user starts them, `shunt run ROLE` in processes of their own: started, asked to leave, killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from stream_app.escalate.start import group_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from tests.beside import Every
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.kafka.reading import committed_and_end, produce
from tests.settings_file import write_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from stream_app.settings import Settings

PARTITIONS = 6
IN_FLIGHT = 120
"""Calls a worker may have under way."""
WITHIN_S = 90.0


class Worker:
    """One process, its log, and what its own metrics say."""

    def __init__(self, folder: Path, name: str, role: str) -> None:
        self.name, self.role = name, role
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_app.cli", "run", role],
                cwd=folder,
                env={**os.environ, "SHUNT_LOG_FORMAT": "text"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by its labels' values; empty while the worker does not answer."""
        found = re.search(r"web server on (http://\S+)", self.said)
        if found is None:
            return {}
        try:
            with urlopen(f"{found[1]}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        families = text_string_to_metric_families(text)
        return {
            tuple(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    def owned(self) -> set[int]:
        """The partitions it works on."""
        return {int(partition) for _, partition in self.samples("shunt_committed_offset")}

    def leave(self) -> None:
        """Asks it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(WITHIN_S)


def until(true: Callable[[], object], what: Callable[[], str], within_s: float = WITHIN_S) -> None:
    """Waits until it is true; `what` it was is said where it never was."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"not within {within_s:.0f} s: {what()}"
        time.sleep(0.1)


class Pipeline:
    """Topics of its own, workers on them, and what the stand-in LLM was asked."""

    def __init__(
        self,
        folder: Path,
        stack: Any,
        llm: Any,
        name: str,
        *,
        drain_s: float = 30.0,
        lane: Mapping[str, Any] | None = None,
        endpoint: Mapping[str, Any] | None = None,
    ) -> None:
        """`lane` and `endpoint` are settings of the LLM lane and of its endpoint, instead of those below."""
        self.folder, self.llm = folder, llm
        self.settings: Settings = write_settings(
            folder,
            name,
            bootstrap_servers=stack.bootstrap_servers,
            triton=stack.triton_grpc,
            llm_base_url=llm.base_url,
            kafka={"session_timeout_ms": 6_000, "transaction_timeout_ms": 10_000, "drain_timeout_s": drain_s},
            llm={
                "usd_per_hour": 1_000.0,
                "usd_per_day": 10_000.0,
                "max_in_flight": IN_FLIGHT,
                "timeout_s": 300.0,
                "deadline_s": 300.0,
                **(lane or {}),
            },
            endpoint={"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000, **(endpoint or {})},
            web={"port": 0},
        )
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
        until(lambda: self.llm.in_flight() >= calls, lambda: f"{calls} calls in flight")

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

    @contextmanager
    def fed(self, role: str) -> Generator[None]:
        """New records for the lane's partitions all the time, while the block runs."""

        def feed() -> None:
            if role == "escalate":
                self.produce(2 * PARTITIONS)
                return
            numbers = range(self.produced, self.produced + 2 * PARTITIONS)
            values = [json.dumps({"id": f"r-{number}", "text": f"good {number}"}).encode() for number in numbers]
            produce(self.servers, self.settings.kafka.input_topic, list(values), partitions=PARTITIONS)
            self.produced += len(values)

        with Every(0.25, feed):
            yield

    @contextmanager
    def decisions(self) -> Generator[Iterator[tuple[int, float, float]]]:
        """Decisions as they arrive: partition, when the record was written (wall clock), when it came (monotonic)."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        topic = self.settings.kafka.names.decisions
        consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in range(PARTITIONS)])

        def arriving() -> Iterator[tuple[int, float, float]]:
            deadline_s = time.monotonic() + WITHIN_S
            while True:
                for message in consumer.consume(500, 0.1):
                    at_s, source = time.monotonic(), json.loads(message.value() or b"")["source"]
                    yield source["partition"], datetime.fromisoformat(source["timestamp"]).timestamp(), at_s
                assert time.monotonic() < deadline_s, [worker.said for worker in self.workers]

        try:
            yield arriving()
        finally:
            consumer.close()
