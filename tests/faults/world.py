"""Everything a fault may touch, and what is going on in it at this moment."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import psutil
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.faults.pipeline import QUIET

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine

    from stream_app.local.stack import Stack
    from tests.faults.feed import Feed
    from tests.faults.fleet import Fleet
    from tests.faults.pipeline import Pipeline
    from tests.faults.stand_in import StandInAdmin

WORK_WITHIN_S = 20.0
BACKLOG_RECORDS_MAX = 100_000
BACKLOG_ESCALATIONS_MAX = 10_000


@dataclass(frozen=True)
class Injected:
    """One fault as it happened. `calls` in flight and `transactions` open at that very moment."""

    at_s: float
    kind: str
    target: str
    calls: int
    transactions: int
    note: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class World:
    """The servers, the workers and the input of one run."""

    stack: Stack
    pipeline: Pipeline
    fleet: Fleet
    feed: Feed
    llm: StandInAdmin
    brokers: int
    injected: list[Injected] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    drains_s: list[float] = field(default_factory=list)

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.began_s:7.1f} s  {line}", flush=True)

    def now(self, work: Coroutine[None, None, object]) -> None:
        """Runs something of the stack, which is bound to no event loop."""
        asyncio.run(work)

    def open_transactions(self) -> set[tuple[str, int, int]]:
        """Output partitions whose last stable offset is behind their end: topic, partition and that offset."""
        names = [
            TopicPartition(self.pipeline.topic(use), number)
            for use, count in (
                ("decisions", self.pipeline.decisions_partitions or self.pipeline.partitions),
                ("escalations", self.pipeline.partitions),
            )
            for number in range(count)
        ]
        # A client of its own for each look: one that has seen a broker killed may fail ever after.
        admin = AdminClient({"bootstrap.servers": self.pipeline.bootstrap_servers, **QUIET})

        def ends_at(level: IsolationLevel) -> dict[tuple[str, int], int]:
            latest = {name: OffsetSpec.latest() for name in names}
            asked = admin.list_offsets(latest, isolation_level=level, request_timeout=3)
            return {(name.topic, name.partition): told.result().offset for name, told in asked.items()}

        try:
            ends = ends_at(IsolationLevel.READ_UNCOMMITTED)  # first: what is open then is open now
            stable = ends_at(IsolationLevel.READ_COMMITTED)
        except KafkaException:
            return set()
        return {(*place, stable[place]) for place in ends if place in stable and stable[place] < ends[place]}

    def at_work(self) -> tuple[int, int]:
        """Calls in flight and open transactions, once there is one of either; waits for it."""
        deadline = time.monotonic() + WORK_WITHIN_S
        while time.monotonic() < deadline and not self.over.is_set():
            calls, transactions = self.llm.in_flight(), len(self.open_transactions())
            if calls or transactions:
                return calls, transactions
            time.sleep(0.02)
        return 0, 0

    def freeze_at_work(self, worker: str, rng: random.Random) -> tuple[int, int]:
        """Stops a worker at a moment when it has a transaction open, or, an escalate worker, calls are in flight.

        What stays open while the worker is stopped is its own. Where no such moment came in half of the time, any
        work under way will do; (0, 0), and not stopped, where there was none.
        """
        deadline = time.monotonic() + WORK_WITHIN_S
        any_work_s = deadline - WORK_WITHIN_S / 2
        while time.monotonic() < deadline and not self.over.is_set():
            self.fleet.freeze(worker)
            held = before = self.open_transactions()
            if before:
                time.sleep(0.1)
                held = before & self.open_transactions()
            calls = self.llm.in_flight()
            enough = held or (calls and (worker.startswith("escalate") or time.monotonic() > any_work_s))
            if enough and self.fleet.workers[worker].frozen:
                return calls, len(held)
            self.fleet.thaw(worker)
            time.sleep(rng.uniform(0.005, 0.1))
        return 0, 0

    def _triton(self) -> psutil.Process:
        return psutil.Process(self.stack.triton.process.pid)

    def pause_triton(self) -> None:
        self._triton().suspend()

    def continue_triton(self) -> None:
        self._triton().resume()

    def inject(self, kind: str, target: str, work: tuple[int, int], note: str = "") -> None:
        """Notes a fault, done at this moment."""
        calls, transactions = work
        at_s = round(time.monotonic() - self.began_s, 2)
        self.injected.append(Injected(at_s, kind, target, calls, transactions, note))
        self.say(f"{kind:34} {target:14} {calls:4d} calls in flight, {transactions} open transactions {note}")

    def attend(self) -> None:
        """Every two seconds: holds the input back while the pipeline is far behind, reads the stand-in's log.

        Either may fail at any time, in any way: what it asks is being killed.
        """
        while not self.over.wait(2.0):
            with contextlib.suppress(Exception):
                lags = self.pipeline.lags()
                behind = {lane: sum(of_lane.values()) for lane, of_lane in lags.items()}
                far = behind["classify"] > BACKLOG_RECORDS_MAX or behind["escalate"] > BACKLOG_ESCALATIONS_MAX
                (self.feed.hold.set if far else self.feed.hold.clear)()
            with contextlib.suppress(Exception):
                self.llm.collect()
