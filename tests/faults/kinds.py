"""The kinds of faults. Each is done once when called, noted under its own name, and over when the call returns.

A kind that finds nothing under way (no call in flight, no transaction open) raises `Idle` and does nothing.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.pipeline import SESSION_S
from tests.faults.stopping import BEFORE_COMMIT, OPENING
from tests.kafka.coordinators import group_coordinator, leader_of, transaction_coordinator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.world import World

STALL_S = SESSION_S + 3.0
DRAIN_WITHIN_S = 30.0
GARBAGE = ("malformed_json", "truncated", "off_schema_label", "empty")


class Idle(Exception):  # noqa: N818 - named for what it found
    """Nothing is under way: a fault now would prove nothing."""


def found(work: tuple[int, int]) -> tuple[int, int]:
    """The work that is under way; raises Idle where there is none."""
    if not any(work):
        raise Idle
    return work


@dataclass
class WorkerFaults:
    """Faults of one lane's workers: `<lane>-1` and `-2` as a user starts them, `<lane>-3` can stop itself."""

    world: World
    lane: str
    rng: random.Random

    def _victim(self) -> str:
        return f"{self.lane}-{self.rng.choice((1, 2))}"

    def kill(self) -> None:
        """SIGKILL, and a new process in its place."""
        victim = self._victim()
        work = found(self.world.freeze_at_work(victim, self.rng))
        self.world.fleet.kill(victim)
        self.world.inject(f"kill -9 {self.lane}", victim, work)
        time.sleep(self.rng.uniform(1.0, 4.0))

    def stall(self) -> None:
        """SIGSTOP for longer than the session, then SIGCONT: a zombie."""
        victim = self._victim()
        work = found(self.world.freeze_at_work(victim, self.rng))
        self.world.inject(f"stall {self.lane}", victim, work)
        time.sleep(STALL_S + self.rng.uniform(0.0, 3.0))
        self.world.fleet.thaw(victim)

    def drain(self) -> None:
        """SIGTERM: drained within its time with status 0, then a new process."""
        victim = self._victim()
        work = found(self.world.at_work())
        self.world.inject(f"SIGTERM {self.lane}", victim, work)
        status, took_s = self.world.fleet.leave(victim, DRAIN_WITHIN_S + 10)
        self.world.drains_s.append(took_s)
        # A worker that has just been started has no handler for the signal yet.
        if status not in {0, -15} or took_s > DRAIN_WITHIN_S:
            self.world.failures.append(f"{victim}: SIGTERM ended with status {status} after {took_s:.1f} s")
        time.sleep(self.rng.uniform(0.0, 2.0))
        self.world.fleet.start(victim)

    def join_and_leave(self) -> None:
        """One more worker for some seconds: two rebalances."""
        name = f"{self.lane}-guest"
        work = found(self.world.at_work())
        if name in self.world.fleet.workers:
            self.world.fleet.start(name)
        else:
            self.world.fleet.add(name, self.lane)
        self.world.inject(f"join and leave {self.lane}", name, work)
        time.sleep(self.rng.uniform(5.0, 9.0))
        status, took_s = self.world.fleet.leave(name, DRAIN_WITHIN_S + 10)
        self.world.drains_s.append(took_s)
        if status not in {0, -15} or took_s > DRAIN_WITHIN_S:
            self.world.failures.append(f"{name}: left with status {status} after {took_s:.1f} s")

    def stall_before_commit(self) -> None:
        """Stopped between send-offsets and commit for longer than the session and than the transaction's time."""
        self._stop_itself(BEFORE_COMMIT, "stall before commit", restart=False)

    def stall_opening(self) -> None:
        """Stopped while it opens a partition: it has fenced the owner, and has not read the committed offset."""
        self._stop_itself(OPENING, "stall while opening", restart=True)

    def _stop_itself(self, step: str, kind: str, *, restart: bool) -> None:
        name, fleet = f"{self.lane}-3", self.world.fleet
        (fleet.folder / f"{name}.{step}").touch()
        if restart:
            fleet.kill(name)
        deadline = time.monotonic() + 30
        while not fleet.workers[name].frozen:
            if time.monotonic() > deadline or self.world.over.is_set():
                (fleet.folder / f"{name}.{step}").unlink(missing_ok=True)
                raise Idle  # it owns nothing just now
            time.sleep(0.01)
        work = self.world.llm.in_flight(), len(self.world.open_transactions())
        if any(work):
            self.world.inject(f"{kind} {self.lane}", name, work)
            time.sleep(STALL_S + self.rng.uniform(0.0, 3.0))
        fleet.thaw(name)
        found(work)

    def kinds(self) -> list[Callable[[], None]]:
        return [
            self.kill, self.stall, self.drain, self.join_and_leave, self.stall_before_commit, self.stall_opening,
        ]  # fmt: skip


@dataclass
class KafkaFaults:
    """A broker killed (SIGKILL) and started again after a while: any, or the one that plays a part."""

    world: World
    rng: random.Random

    def _bounce(self, kind: str, who: Callable[[], int]) -> None:
        stack = self.world.stack
        try:
            node = who()
        except TimeoutError:  # no broker could tell just now
            raise Idle from None
        work = found(self.world.at_work())
        self.world.now(stack.kill_broker(node))
        self.world.inject(kind, f"broker {node}", work)
        time.sleep(self.rng.uniform(0.5, 4.0))
        self.world.now(stack.start_broker(node))

    def any_broker(self) -> None:
        self._bounce("kill -9 a broker", lambda: self.rng.randint(1, self.world.brokers))

    def partition_leader(self) -> None:
        use = self.rng.choice(("input", "decisions", "escalations"))
        where = self.world.pipeline
        topic, number = where.topic(use), self.rng.randrange(where.partitions)
        self._bounce("kill -9 a partition's leader", lambda: leader_of(where.bootstrap_servers, topic, number))

    def _transactional_coordinator(self) -> int:
        where = self.world.pipeline
        lane, use = self.rng.choice((("classify", "input"), ("escalate", "escalations")))
        name = f"{where.name}-{lane}:{where.topic(use)}:{self.rng.randrange(where.partitions)}"
        return transaction_coordinator(where.bootstrap_servers, name)

    def transaction_coordinator(self) -> None:
        self._bounce("kill -9 a transaction coordinator", self._transactional_coordinator)

    def group_coordinator(self) -> None:
        where = self.world.pipeline
        lane = self.rng.choice(("classify", "escalate"))
        self._bounce(
            "kill -9 a group coordinator", lambda: group_coordinator(where.bootstrap_servers, f"{where.name}-{lane}")
        )

    def stalled_broker(self) -> None:
        """SIGSTOP for longer than the workers' session, then SIGCONT."""
        node = self.rng.randint(1, self.world.brokers)
        work = found(self.world.at_work())
        self.world.stack.pause_broker(node)
        try:
            self.world.inject("stall a broker", f"broker {node}", work)
            time.sleep(STALL_S + self.rng.uniform(0.0, 3.0))
        finally:
            self.world.stack.continue_broker(node)
        self.world.now(self.world.stack.broker_in_sync(node))

    def kinds(self) -> list[Callable[[], None]]:
        if self.world.brokers == 1:
            return [self.any_broker, self.stalled_broker]
        return [self.partition_leader, self.transaction_coordinator, self.group_coordinator, self.stalled_broker]


@dataclass
class TritonFaults:
    """Triton killed, restarted, slow, and failing one batch."""

    world: World
    rng: random.Random

    def kill(self) -> None:
        work = found(self.world.at_work())
        self.world.now(self.world.stack.kill_triton())
        self.world.inject("kill -9 Triton", "Triton", work)
        time.sleep(self.rng.uniform(0.5, 3.0))
        self.world.now(self.world.stack.start_triton())

    def restart(self) -> None:
        work = found(self.world.at_work())
        self.world.inject("restart Triton", "Triton", work)
        self.world.now(self.world.stack.restart_triton())

    def slow(self) -> None:
        """Its processes get one twentieth of the time for some seconds."""
        work = found(self.world.at_work())
        self.world.inject("slow Triton", "Triton", work)
        deadline = time.monotonic() + self.rng.uniform(4.0, 6.0)
        while time.monotonic() < deadline:
            self.world.pause_triton()
            time.sleep(0.95)
            self.world.continue_triton()
            time.sleep(0.05)

    def fail_one_batch(self) -> None:
        work = found(self.world.at_work())
        self.world.feed.put_stumbling(self.rng.randint(1, 3))
        self.world.inject("Triton fails a batch", "Triton", work)
        time.sleep(self.rng.uniform(0.5, 2.0))

    def kinds(self) -> list[Callable[[], None]]:
        return [self.kill, self.restart, self.slow, self.fail_one_batch]


@dataclass
class LlmFaults:
    """The LLM on its bad days."""

    world: World
    rng: random.Random
    latency_ms: float = 300.0

    def away(self) -> None:
        work = found(self.world.at_work())
        self.world.llm.collect(closing=True)
        self.world.now(self.world.stack.stop_llm())
        self.world.inject("LLM away", "LLM", work)
        time.sleep(self.rng.uniform(2.0, 6.0))
        self.world.now(self.world.stack.start_llm())
        self.world.llm.latency(self.latency_ms)

    def slow(self) -> None:
        work = found(self.world.at_work())
        self.world.llm.latency(4_000)
        self.world.inject("LLM slow", "LLM", work)
        time.sleep(self.rng.uniform(3.0, 6.0))
        self.world.llm.latency(self.latency_ms)

    def _answering(self, name: str, **fault: object) -> None:
        work = found(self.world.at_work())
        self.world.llm.fault(**fault)
        self.world.inject(name, "LLM", work)
        time.sleep(self.rng.uniform(3.0, 6.0))
        self.world.llm.well()

    def hanging(self) -> None:
        self._answering("LLM hangs", kind="hang", probability=0.5)

    def closing(self) -> None:
        self._answering("LLM closes connections", kind=self.rng.choice(("close", "close_midway")), probability=0.7)

    def limited(self) -> None:
        self._answering("LLM answers 429", kind="rate_limited", probability=0.7, retry_after_s=1.0)

    def failing(self) -> None:
        self._answering("LLM answers 500", kind="server_error", probability=0.7)

    def garbage(self) -> None:
        self._answering("LLM answers garbage", kind=self.rng.choice(GARBAGE), probability=0.5)

    def kinds(self) -> list[Callable[[], None]]:
        return [self.away, self.slow, self.hanging, self.closing, self.limited, self.failing, self.garbage]


@dataclass
class InputFaults:
    """What the input topic brings beside good records."""

    world: World
    rng: random.Random

    def bad_records(self) -> None:
        work = found(self.world.at_work())
        names = self.world.feed.put_bad_ones()
        self.world.inject("poison and oversized", "input", work, note=f"{len(names)} kinds")
        time.sleep(self.rng.uniform(1.0, 3.0))

    def aborted(self) -> None:
        work = found(self.world.at_work())
        records = self.rng.randint(50, 500)
        self.world.inject("a producer aborts", "input", work, note=f"{records} records")
        self.world.feed.abort_some(records, f"{self.world.pipeline.name}-upstream-{self.rng.randrange(4)}")
        time.sleep(self.rng.uniform(1.0, 3.0))

    def kinds(self) -> list[Callable[[], None]]:
        return [self.bad_records, self.aborted]


def all_faults(world: World, seed: int) -> dict[str, list[Callable[[], None]]]:
    """The kinds by strand; strands run side by side, each with its own randomness."""
    draws = iter(range(100))

    def rng() -> random.Random:
        return random.Random(f"{seed}/{next(draws)}")

    return {
        "classify": WorkerFaults(world, "classify", rng()).kinds(),
        "escalate": WorkerFaults(world, "escalate", rng()).kinds(),
        "kafka": KafkaFaults(world, rng()).kinds(),
        "triton": TritonFaults(world, rng()).kinds(),
        "llm": LlmFaults(world, rng()).kinds(),
        "input": InputFaults(world, rng()).kinds(),
    }
