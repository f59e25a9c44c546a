"""Each safeguard taken out in turn, under the fault it is there for: the independent count must find the breach.

    python -m tests.faults.safeguards [--seeds 5] [--only fencing] [--guarded]

Real workers on real Kafka and Triton; what is taken out is a class of the worker (`tests.faults.unguarded`), never
a setting. With `--guarded` nothing is taken out of the same scenarios, and the count must find nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from tests.faults.count import count
from tests.faults.feed import Feed, record
from tests.faults.fleet import Fleet
from tests.faults.pipeline import Pipeline
from tests.faults.unguarded import AFTER_COMMIT, BEFORE_COMMIT, HOLD_OPENING, WITHOUT, asking
from tests.kafka.reading import produce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent.parent
PARTITIONS = 4
RATE = 400.0
BURST_RECORDS = 8_000
REST_WITHIN_S = 60.0
WITHIN_S = 60.0


def until(what: str, is_so: Callable[[], bool]) -> None:
    """Returns when it is so; AssertionError with `what` where that takes too long."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        # The coordinator of a group may be loading still, and a busy machine answers late.
        with contextlib.suppress(KafkaException, TimeoutError):
            if is_so():
                return
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Scene:
    """One scenario's servers, workers and input, and what its fault needs to know of them."""

    stack: Stack
    pipeline: Pipeline
    fleet: Fleet
    feed: Feed
    rng: random.Random
    admin: AdminClient

    def add(self, name: str, lane: str = "classify") -> None:
        self.fleet.add(name, lane, "tests.faults.unguarded")

    def ask(self, worker: str, step: str) -> Path:
        path = asking(self.fleet.folder, worker, step)
        path.touch()
        return path

    def stop_at(self, worker: str, step: str) -> None:
        """Returns when the worker has stopped itself at that step of a transaction."""
        self.ask(worker, step)
        until(f"{worker} stops {step}", lambda: self.fleet.workers[worker].frozen)

    def members(self, number: int, lane: str = "classify") -> None:
        """Returns when the group is stable with so many members, who own every partition between them."""
        group = f"{self.pipeline.name}-{lane}"

        def joined() -> bool:
            told = self.admin.describe_consumer_groups([group])[group].result(10)
            owned = [len(member.assignment.topic_partitions) for member in told.members if member.assignment]
            stable = told.state is ConsumerGroupState.STABLE
            return stable and len(told.members) == number and sum(owned) == self.pipeline.partitions

        until(f"{number} members in {group}", joined)

    def committed(self, lane: str = "classify") -> dict[int, int]:
        """The group's offsets, by partition."""
        group = f"{self.pipeline.name}-{lane}"
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        return {place.partition: place.offset for place in asked[group].result(10).topic_partitions}

    def progress(self, lane: str = "classify") -> None:
        """Returns when every partition's committed offset has moved on."""
        before = self.committed(lane)

        def moved() -> bool:
            now = self.committed(lane)
            return len(now) == self.pipeline.partitions and all(now[at] > before.get(at, 0) for at in now)

        until("commits", moved)

    def ready(self, *workers: str, lane: str = "classify") -> None:
        """Starts workers and input; returns when all of them are members and work is committed."""
        for worker in workers:
            self.add(worker, lane)
        self.members(len(workers), lane)
        self.feed.start()
        self.progress(lane)
        self.pause(0.2, 1.0)

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.rng.uniform(least_s, most_s))


# The faults


def refused_produces(scene: Scene) -> None:
    """The decisions topic takes small batches only, until large ones have met that."""
    scene.ready("classify-1", "classify-2")
    _limit_decisions(scene, 20_000)
    time.sleep(1.0)  # the broker takes a moment to obey
    before = scene.committed()
    values = [
        record(f"b-{number}", f"good {number}", number).replace(b'"pad": ""', b'"pad": "%s"' % _noise(scene.rng))
        for number in range(BURST_RECORDS)
    ]
    produce(scene.pipeline.bootstrap_servers, scene.pipeline.topic("input"), values, partitions=PARTITIONS)
    half = BURST_RECORDS // PARTITIONS // 2

    def met() -> bool:
        """A worker has ended for it, or has gone on as if nothing were."""
        return bool(scene.fleet.exits) or all(at > before[number] + half for number, at in scene.committed().items())

    until("large batches", met)
    scene.pause(0.5, 2.0)
    _limit_decisions(scene, 1_048_588)


def _noise(rng: random.Random) -> bytes:
    """Nothing that compresses away."""
    return rng.randbytes(150).hex().encode()


def _limit_decisions(scene: Scene, message_bytes_max: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(message_bytes_max), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, scene.pipeline.topic("decisions"), incremental_configs=[entry])
    for done in scene.admin.incremental_alter_configs([topic]).values():
        done.result(10)


def kills_behind_the_commit(scene: Scene) -> None:
    """kill -9 at any moment, and kill -9 right behind a transaction's commit."""
    scene.ready("classify-1", "classify-2")
    victims = ["classify-1", "classify-2"]
    scene.rng.shuffle(victims)
    scene.fleet.kill(victims[0])
    scene.pause(0.0, 1.0)
    scene.stop_at(victims[1], AFTER_COMMIT)
    scene.fleet.kill(victims[1])
    scene.members(2)


def zombie(scene: Scene) -> None:
    """An owner stalls with its transaction open, for longer than its session, and wakes up behind the next owner."""
    scene.ready("classify-1", "classify-2")
    victim = scene.rng.choice(["classify-1", "classify-2"])
    scene.stop_at(victim, BEFORE_COMMIT)
    scene.members(1)
    scene.progress()
    scene.pause(0.0, 0.5)
    scene.fleet.thaw(victim)
    scene.members(2)


def zombie_while_opening(scene: Scene) -> None:
    """A stalled owner wakes up, and commits, while the next owner has read where to begin and is still opening."""
    names = ["classify-1", "classify-2"]
    scene.ready(*names)
    scene.rng.shuffle(names)
    victim, heir = names
    held = scene.ask(heir, HOLD_OPENING)
    scene.stop_at(victim, BEFORE_COMMIT)
    scene.members(1)
    scene.pause(0.3, 0.8)
    scene.fleet.thaw(victim)
    scene.pause(0.2, 0.4)
    held.unlink()
    scene.members(2)


def slow_scores(scene: Scene) -> None:
    """A worker dies while batches are being scored, for longer than a hand-over waits; the other keeps its half."""
    names = ["classify-1", "classify-2"]
    scene.ready(*names)
    triton = psutil.Process(scene.stack.triton.process.pid)
    triton.suspend()
    try:
        scene.pause(0.2, 0.5)
        scene.fleet.kill(scene.rng.choice(names))
        scene.members(1)
        scene.pause(0.5, 1.5)
    finally:
        triton.resume()
    scene.members(2)


def kills_amid_calls(scene: Scene) -> None:
    """kill -9 of each slow lane in turn with calls in flight, which end in any order."""
    scene.add("classify-1")
    names = ["escalate-1", "escalate-2"]
    scene.ready(*names, lane="escalate")
    scene.rng.shuffle(names)
    for name in names:
        scene.progress("escalate")
        scene.pause(0.5, 1.5)
        scene.fleet.kill(name)
        scene.members(2, "escalate")


@dataclass(frozen=True)
class Safeguard:
    """What is taken out, the fault it is there for, and the breach that must be found without it."""

    name: str
    says: str
    breach: str
    fault: Callable[[Scene], None]
    rate: float = RATE
    unsure_share: float = 0.02


SAFEGUARDS = (
    Safeguard("sends", "check of sends", "lost", refused_produces),
    Safeguard("offsets", "offsets in the transaction", "duplicated", kills_behind_the_commit),
    Safeguard("fencing", "fencing", "duplicated", zombie),
    Safeguard("gate", "READY gate", "duplicated", zombie_while_opening),
    Safeguard("epoch", "epoch check", "duplicated", slow_scores),
    Safeguard("finished", "map of what is finished", "duplicated", kills_amid_calls, rate=150.0, unsure_share=1.0),
)


@dataclass(frozen=True)
class Outcome:
    """What the count found. `stuck` says where the scenario did not come to its end."""

    safeguard: Safeguard
    seed: int
    guarded: bool
    records: int
    breaches: dict[str, int]
    exits: int
    stuck: str
    took_s: float

    @property
    def as_it_must_be(self) -> bool:
        """Nothing found where all guards stand; else the breach that the one taken out prevents.

        What is merely not done yet is not lost, but what came twice did so wherever the scenario went.
        """
        if self.guarded:
            return not self.breaches and not self.stuck
        return self.safeguard.breach in self.breaches and not (self.stuck and self.safeguard.breach == "lost")

    def line(self) -> str:
        taken = "nothing" if self.guarded else self.safeguard.says
        verdict = ("sound" if self.guarded else "caught") if self.as_it_must_be else "NOT AS IT MUST BE"
        found = ", ".join(f"{number} {kind}" for kind, number in self.breaches.items()) or "no breach"
        return (
            f"{self.safeguard.name:9} {taken:27} seed {self.seed:<4d} {self.records:6d} records  "
            f"{found:32} {self.took_s:5.1f} s  {verdict}{'; ' * bool(self.stuck)}{self.stuck}"
        )


@contextmanager
def servers(folder: Path) -> Iterator[Stack]:
    """One broker, Triton with the scripted model, and the stand-in."""
    models = ROOT / "tests" / "models"
    options = StandInOptions(latency_median_ms=300, latency_sigma=1.0)
    stack = Stack(folder, model_repository=[models], load_models=["scripted"], llm_options=options)
    try:
        asyncio.run(stack.open())
        yield stack
    finally:
        asyncio.run(stack.close())


def run(stack: Stack, safeguard: Safeguard, seed: int, folder: Path, *, guarded: bool = False) -> Outcome:
    """One scenario with one seed, from new topics to the count."""
    began_s, rng = time.monotonic(), random.Random(f"{safeguard.name} {seed}")
    folder.mkdir(parents=True)
    name = f"{safeguard.name}-{seed}-{'guarded' if guarded else 'bare'}-{os.urandom(3).hex()}"
    pipeline = Pipeline(stack.bootstrap_servers, stack.triton_grpc, stack.llm_base_url, name, PARTITIONS)
    pipeline.create_topics()
    pipeline.write_settings(folder)
    environment = {
        "PYTHONPATH": str(ROOT),
        WITHOUT: "" if guarded else safeguard.name,
        # As it is by itself: a zombie must wake up before its transaction times out, which alone would stop it.
        "SHUNT_KAFKA__TRANSACTION_TIMEOUT_MS": "15000",
    }
    fleet = Fleet(folder, environment)
    feed = Feed(pipeline, rng, rate=safeguard.rate, records_max=10**9, unsure_share=safeguard.unsure_share)
    scene = Scene(stack, pipeline, fleet, feed, rng, AdminClient({"bootstrap.servers": pipeline.bootstrap_servers}))
    stuck = ""
    try:
        fleet.watch()
        safeguard.fault(scene)
        scene.pause(0.5, 1.5)
        feed.stop()
        if not any(worker.role == "escalate" for worker in fleet.workers.values()):
            scene.add("escalate-1", "escalate")
        pipeline.wait_for_rest(REST_WITHIN_S)
    except AssertionError as failure:
        stuck = str(failure).splitlines()[0]
        if feed._thread.is_alive():
            feed.stop()
    finally:
        fleet.abandon()
    found = count(stack.bootstrap_servers, *(pipeline.topic(use) for use in ("input", "decisions", "dlq")))
    took_s = time.monotonic() - began_s
    return Outcome(safeguard, seed, guarded, found.records, found.breaches, len(fleet.exits), stuck, took_s)


def run_all(
    seeds: int,
    *,
    guarded: bool = False,
    only: frozenset[str] = frozenset(),
    first_seed: int = 1,
    folder: Path | None = None,
) -> list[Outcome]:
    """Every safeguard with every seed, printed as they end. `only`: names of safeguards, all where it is empty."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch, servers((folder or Path(scratch)) / "servers") as stack:
        for safeguard in SAFEGUARDS:
            if only and safeguard.name not in only:
                continue
            for seed in range(first_seed, first_seed + seeds):
                where = (folder or Path(scratch)) / f"{safeguard.name}-{seed}-{'guarded' if guarded else 'bare'}"
                outcomes.append(run(stack, safeguard, seed, where, guarded=guarded))
                print(outcomes[-1].line(), flush=True)
    return outcomes


def show(outcomes: list[Outcome]) -> None:
    """A line for each safeguard: on how many seeds it came out as it must."""
    for safeguard in SAFEGUARDS:
        mine = [outcome for outcome in outcomes if outcome.safeguard is safeguard]
        if mine:
            right = sum(outcome.as_it_must_be for outcome in mine)
            print(f"{safeguard.says:27} {right} of {len(mine)} {'sound' if mine[0].guarded else 'caught'}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.safeguards", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many runs of each scenario")
    parser.add_argument("--first-seed", type=int, default=1, help="they count up from here")
    parser.add_argument("--only", nargs="*", default=[], choices=[safeguard.name for safeguard in SAFEGUARDS])
    parser.add_argument("--guarded", action="store_true", help="take nothing out: nothing may be found")
    parser.add_argument("--folder", type=Path, help="keeps servers' and workers' logs there")
    given = parser.parse_args()
    outcomes = run_all(
        given.seeds,
        guarded=given.guarded,
        only=frozenset(given.only),
        first_seed=given.first_seed,
        folder=given.folder,
    )
    show(outcomes)
    return 0 if all(outcome.as_it_must_be for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
