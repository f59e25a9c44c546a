"""One run: servers, workers and input started, faults injected side by side, everything drained and counted."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from tests.faults.count import Count, count
from tests.faults.feed import Feed
from tests.faults.fleet import Fleet
from tests.faults.kinds import Idle, all_faults
from tests.faults.pipeline import Pipeline
from tests.faults.stand_in import StandInAdmin
from tests.faults.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
LATENCY_MS = 300.0
REST_WITHIN_S = 120.0
STARTED_S = 12.0
LANES = ("classify", "escalate")


@dataclass(frozen=True)
class Plan:
    """What a run is to be. `each`: how often every kind of fault is injected."""

    seed: int
    brokers: int = 1
    each: int = 8
    records: int = 500_000
    rate: float = 2_500.0
    unsure_share: float = 0.11
    partitions: int = 6
    decisions_partitions: int | None = None
    provisional: bool = False
    only: frozenset[str] = frozenset()
    """The strands of faults to inject; all where it is empty."""


@dataclass
class Report:
    """What came out. `sound` decides the exit status."""

    plan: Plan
    count: Count
    faults: list[dict[str, object]]
    exits: list[tuple[str, int, str]]
    failures: list[str]
    statuses: dict[str, int]
    drains_s: list[float]
    rest_s: float
    took_s: float
    events_asked: int
    calls_answered: int
    calls_in_vain: int
    asked_max: int
    calls: dict[str, int]

    @property
    def sound(self) -> bool:
        return not self.count.breaches and not self.failures

    def table(self) -> list[dict[str, Any]]:
        """Faults by kind: how many, and what was under way."""
        by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for fault in self.faults:
            by_kind[str(fault["kind"])].append(fault)
        return [
            {
                "kind": kind,
                "faults": len(of_kind),
                "at_work": sum(bool(fault["calls"] or fault["transactions"]) for fault in of_kind),
                "calls_median": int(median(fault["calls"] for fault in of_kind)),
                "transactions_median": int(median(fault["transactions"] for fault in of_kind)),
            }
            for kind, of_kind in sorted(by_kind.items())
        ]

    def as_json(self) -> dict[str, object]:
        return {
            "seed": self.plan.seed,
            "brokers": self.plan.brokers,
            "sound": self.sound,
            "faults": len(self.faults),
            "kinds": len(self.table()),
            "took_s": round(self.took_s, 1),
            "count": self.count.summary(),
            "failures": self.failures,
            "lag_zero_after_s": round(self.rest_s, 1),
            "drain_s_max": round(max(self.drains_s, default=0.0), 1),
            "exits": Counter(f"{name.split('-')[0]} {status}" for name, status, _ in self.exits),
            "statuses": Counter(self.statuses.values()),
            "events_asked": self.events_asked,
            "calls_answered": self.calls_answered,
            "calls_in_vain": self.calls_in_vain,
            "asked_max": self.asked_max,
            "calls": self.calls,
            "table": self.table(),
        }


def run(plan: Plan, folder: Path | None = None) -> Report:
    """Starts everything and ends everything. A folder that is not given goes away, if the run was sound."""
    place = folder or Path(tempfile.mkdtemp(prefix="shunt-faults-"))
    place.mkdir(parents=True, exist_ok=True)
    print(f"logs and Kafka's data: {place}", flush=True)
    stack = Stack(
        place / "stack",
        brokers=plan.brokers,
        model_repository=[ROOT / "tests" / "models"],
        load_models=["scripted"],
        llm_options=StandInOptions(latency_median_ms=LATENCY_MS, seed=plan.seed),
    )
    asyncio.run(stack.open())
    try:
        report = run_on(plan, stack, place)
    finally:
        asyncio.run(stack.close())
    if folder is None and report.sound:
        shutil.rmtree(place, ignore_errors=True)
    return report


def run_on(plan: Plan, stack: Stack, folder: Path, name: str = "reviews") -> Report:
    """A run on servers that are there already; workers' settings and logs go to `folder`."""
    began_s = time.monotonic()
    pipeline = Pipeline(
        stack.bootstrap_servers,
        stack.triton_grpc,
        stack.llm_base_url,
        name,
        partitions=plan.partitions,
        decisions_partitions=plan.decisions_partitions,
        replicas=min(3, plan.brokers),
        provisional=plan.provisional,
    )
    pipeline.write_settings(folder)
    pipeline.create_topics()
    feed = Feed(
        pipeline,
        random.Random(f"{plan.seed}/feed"),
        rate=plan.rate,
        records_max=plan.records,
        unsure_share=plan.unsure_share,
    )
    fleet = Fleet(folder, {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"})
    world = World(stack, pipeline, fleet, feed, StandInAdmin(stack.llm_base_url), plan.brokers)
    try:
        _faults(plan, world)
        rest_s = pipeline.wait_for_rest(REST_WITHIN_S)
        world.say(f"at rest: lag 0 in both lanes {rest_s:.1f} s after the last fault")
        world.llm.collect()
        statuses = fleet.end()
    finally:
        world.over.set()
        fleet.abandon()
    found = count(
        stack.bootstrap_servers, pipeline.topic("input"), pipeline.topic("decisions"), pipeline.topic("dlq")
    )
    return _report(plan, world, found, statuses, rest_s, time.monotonic() - began_s)


def _faults(plan: Plan, world: World) -> None:
    """Starts workers and input, injects all faults, and returns when the input is complete."""
    for lane in LANES:
        for number, module in ((1, None), (2, None), (3, "tests.faults.stopping")):
            world.fleet.add(f"{lane}-{number}", lane, *([module] if module else []))
    world.feed.start()
    time.sleep(STARTED_S)
    world.fleet.watch()
    attending = threading.Thread(target=world.attend, daemon=True)
    attending.start()
    strands = [
        threading.Thread(target=_strand, args=(world, f"{plan.seed}/{name}", kinds, plan.each), daemon=True)
        for name, kinds in all_faults(world, plan.seed).items()
        if not plan.only or name in plan.only
    ]
    for strand in strands:
        strand.start()
    for strand in strands:
        strand.join()
    world.say(f"{len(world.injected)} faults done; {world.feed.sent} records so far")
    while world.feed.sent < plan.records:
        time.sleep(0.5)
    world.over.set()
    attending.join()
    world.feed.stop()
    if world.feed.failed:
        world.failures.append(f"{world.feed.failed} input records were refused")


def _strand(world: World, seed: str, kinds: list[Callable[[], None]], each: int) -> None:
    """Injects its kinds `each` times, in an order drawn from the seed, with pauses; one that met no work, again."""
    rng = random.Random(seed)
    order = [kind for kind in kinds for _ in range(each)]
    rng.shuffle(order)
    tries_left = 3 * len(order)
    while order and tries_left:
        tries_left -= 1
        kind = order.pop(0)
        try:
            kind()
        except Idle:
            order.insert(rng.randrange(len(order) + 1), kind)
        except Exception:  # the harness itself failed: the run is void, and must say so
            world.failures.append(f"{kind.__name__}: {traceback.format_exc()}")
            world.say(traceback.format_exc())
        time.sleep(rng.uniform(0.2, 2.0))
    if order:
        world.failures.append(f"{len(order)} faults met no work: {[kind.__name__ for kind in order]}")


def _report(plan: Plan, world: World, found: Count, statuses: dict[str, int], rest_s: float, took_s: float) -> Report:
    answered = world.llm.answered
    # One that was started a moment before the end has no signal handler yet.
    bad = {name: status for name, status in statuses.items() if status not in {0, -15, -9}}
    if bad:
        world.failures.append(f"workers ended with {bad}")
    if found.by_llm + found.degraded < 0.1 * found.records * (plan.unsure_share >= 0.1):
        world.failures.append("less than 10 % was escalated")
    return Report(
        plan=plan,
        count=found,
        faults=[fault.as_json() for fault in world.injected],
        exits=[(end.worker, end.status, end.last_line) for end in world.fleet.exits],
        failures=world.failures,
        statuses=statuses,
        drains_s=world.drains_s,
        rest_s=rest_s,
        took_s=took_s,
        events_asked=len(answered),
        calls_answered=answered.total(),
        calls_in_vain=answered.total() - len(answered),
        asked_max=max(answered.values(), default=0),
        calls=dict(world.llm.statuses),
    )


def draw_seed() -> int:
    """The seed of this run: `SHUNT_FAULT_SEED`, or drawn anew."""
    return int(os.environ.get("SHUNT_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
