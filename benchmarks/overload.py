"""Bounded under overload: what a worker holds while the LLM hangs and the input never ends, and what comes of it.

    python -m benchmarks.overload [--seconds 300] [--split] [--json]

Real Kafka, real Triton (the model `scripted` of the tests), the stand-in LLM, workers as a user starts them. The
input topic always has more than the worker can take; one record in fifty must go to the LLM, which takes
every call and answers none. In one run:

1. the hot path's rate with the slow lane stalled and full, against its rate alone, in turns (`--rounds`);
2. memory for `--seconds` with 1,000 calls in flight; a second worker joins at a third of the time and leaves at
   two thirds, and the partitions must be paused again after each;
3. the LLM comes back: everything drains, and confluent-kafka counts the outcomes of every input record.

Without `--split` both lanes are one process, with it one each. Exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import LoadProcess
from benchmarks.worker import Offsets, WorkerProcess, peak
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from tests.kafka.reading import each_message
from tests.settings_file import write_settings
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from stream_app.settings import Settings

ROOT = Path(__file__).parent.parent
NAME = "overload"
IN_FLIGHT = 1_000
RSS_MAX_MB = 250
SLOWER_MAX = 0.10
AHEAD = 100_000
SETTLE_S = 5.0


def say(text: str) -> None:
    """For a person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Run:
    """One run against one stack."""

    def __init__(self, stack: Stack, folder: Path, given: argparse.Namespace) -> None:
        self.stack, self.folder, self.given = stack, folder, given
        self.llm = StandIn(stack.llm_base_url)
        self.settings: Settings = write_settings(
            folder,
            NAME,
            bootstrap_servers=stack.bootstrap_servers,
            triton=stack.triton_grpc,
            llm_base_url=stack.llm_base_url,
            kafka={"drain_timeout_s": 10.0},
            llm={
                "max_in_flight": IN_FLIGHT,
                "timeout_s": 7200.0,
                "deadline_s": 7200.0,
                "usd_per_hour": 100_000.0,
                "usd_per_day": 1_000_000.0,
            },
            endpoint={"requests_per_minute": 10_000_000, "tokens_per_minute": 10_000_000_000},
        )
        self.workers: list[WorkerProcess] = []
        self.found: dict[str, Any] = {"lanes": "one process each" if given.split else "one process", "misses": []}

    # Workers

    def start(self, *roles: str, suffix: str = "") -> list[WorkerProcess]:
        started = [WorkerProcess(self.folder, role, f"{role or 'both'}{suffix}") for role in roles]
        self.workers += started
        return started

    def end(self, workers: list[WorkerProcess]) -> None:
        for worker in workers:
            status = worker.end()
            if status != 0:
                self.miss(f"the worker {worker.name} ended with status {status}")
            self.workers.remove(worker)

    def both(self) -> tuple[str, ...]:
        return ("classify", "escalate") if self.given.split else ("",)

    def check(self) -> None:
        for worker in self.workers:
            worker.check()

    def miss(self, text: str) -> None:
        say(f"MISSED: {text}")
        self.found["misses"].append(text)

    def until(self, what: str, holds: Any, within_s: float) -> bool:
        """Waits; a miss where it does not come to hold."""
        ends_s = time.monotonic() + within_s
        while not holds():
            self.check()
            if time.monotonic() > ends_s:
                self.miss(f"{what}: not within {within_s:.0f} s")
                return False
            time.sleep(0.5)
        return True

    # 1. The hot path's speed

    def speed(self, offsets: Offsets) -> None:
        """Alone, stalled, alone, stalled, ..., alone: each stalled phase against the mean of its neighbours."""
        phases = [self.phase(offsets, stalled=bool(number % 2)) for number in range(2 * self.given.rounds + 1)]
        rates, cpus = [rate for rate, _ in phases], [cpu for _, cpu in phases]
        turns = range(1, len(phases), 2)
        ratios = [2 * rates[turn] / (rates[turn - 1] + rates[turn + 1]) for turn in turns]
        cpu_ratios = [2 * cpus[turn] / (cpus[turn - 1] + cpus[turn + 1]) for turn in turns]
        ratio = statistics.median(ratios)
        self.found["hot_path"] = {
            "records_per_s_alone": [round(rate) for rate in rates[::2]],
            "records_per_s_stalled": [round(rate) for rate in rates[1::2]],
            "cpu_us_a_record_alone": [round(cpu, 2) for cpu in cpus[::2]],
            "cpu_us_a_record_stalled": [round(cpu, 2) for cpu in cpus[1::2]],
            "rate_ratio": round(ratio, 3),
            "rate_ratios": [round(each, 3) for each in ratios],
            "cpu_ratio": round(statistics.median(cpu_ratios), 3),
            "rate_ratio_bar": 1 - SLOWER_MAX,
        }
        if ratio < 1 - SLOWER_MAX:
            self.miss(f"the hot path with the slow lane stalled has {ratio:.2f} of its rate alone")

    def phase(self, offsets: Offsets, *, stalled: bool) -> tuple[float, float]:
        """Records/s, and the hot path's process's CPU a record in µs."""
        roles = self.both() if stalled else ("classify",)
        before = offsets.committed()
        workers = self.start(*roles)
        self.until("the hot path begins", lambda: offsets.committed() > before, 60)
        if stalled:
            self.until("1,000 calls are in flight", lambda: self.llm.in_flight() >= IN_FLIGHT, 60)
        time.sleep(SETTLE_S)
        began_s, began, cpu_s = time.monotonic(), offsets.committed(), workers[0].cpu_s()
        time.sleep(self.given.phase_s)
        took_s, done = time.monotonic() - began_s, offsets.committed() - began
        used_s = workers[0].cpu_s() - cpu_s
        self.check()
        self.end(workers)
        rate, cpu_us = done / took_s, used_s / max(1, done) * 1e6
        say(f"hot path {'with a stalled slow lane' if stalled else 'alone'}: {rate:.0f} records/s, {cpu_us:.2f} µs")
        return rate, cpu_us

    # 2. Memory

    def memory(self, offsets: Offsets) -> list[WorkerProcess]:
        """Samples for the whole time; gives the workers, which go on."""
        workers = self.start(*self.both(), suffix="-measured")
        slow = workers[-1]
        before = offsets.committed()
        self.until("1,000 calls are in flight", lambda: self.llm.in_flight() >= IN_FLIGHT, 90)
        self.until(
            "every partition of the slow lane is paused", lambda: self.paused(slow) >= self.given.partitions, 60
        )
        say(f"{self.llm.in_flight()} calls in flight, {self.paused(slow):.0f} partitions paused")
        began_s, third_s = time.monotonic(), self.given.seconds / 3
        calls = [self.hold(third_s)]
        second = self.start(*self.both(), suffix="-second")
        self.until("the second worker owns partitions", lambda: self.owned(second[-1]) > 0, 60)
        calls.append(self.hold(third_s))
        shared = self.paused(slow), self.owned(slow)
        self.end(second)
        whole = self.all_paused(slow)
        calls.append(self.hold(third_s))
        took_s = time.monotonic() - began_s
        self.found["memory"] = {
            "seconds": round(took_s),
            "records_per_s": round((offsets.committed() - before) / took_s),
            "calls_in_flight_min": min(calls),
            "paused_and_owned_while_shared": shared,
            "paused_again_after_the_rebalance": whole,
            "records_held_slow_lane": round(slow.metric("shunt_records_in_flight", lane="escalate")),
            "rss_bar_mb": RSS_MAX_MB,
            "workers": {worker.name: peak(worker.samples) for worker in workers},
        }
        for worker in workers:
            if (found := peak(worker.samples))["rss_max_mb"] > RSS_MAX_MB:
                self.miss(f"{worker.name} took {found['rss_max_mb']} MB")
        if min(calls) < IN_FLIGHT:
            self.miss(f"only {min(calls)} calls were in flight")
        if shared[0] < shared[1] or not shared[1]:
            self.miss(f"{shared[0]:.0f} of {shared[1]:.0f} partitions were paused while two workers shared them")
        return workers

    def hold(self, seconds: float) -> int:
        """The fewest calls in flight meanwhile."""
        ends_s, fewest = time.monotonic() + seconds, 1_000_000
        while (left_s := ends_s - time.monotonic()) > 0:
            self.check()
            time.sleep(min(5.0, left_s))
            fewest = min(fewest, self.llm.in_flight())
            newest = [f"{worker.name} {worker.samples[-1].rss / 1e6:.0f} MB" for worker in self.workers]
            say(f"{left_s:.0f} s to go: {fewest} calls, {', '.join(newest)}")
        return fewest

    def all_paused(self, worker: WorkerProcess) -> bool:
        wanted = self.given.partitions
        return self.until("every partition of the slow lane is paused", lambda: self.paused(worker) >= wanted, 60)

    def paused(self, worker: WorkerProcess) -> float:
        return worker.metric("shunt_partitions_paused", lane="escalate")

    def owned(self, worker: WorkerProcess) -> float:
        return worker.metric("shunt_partitions_owned", lane="escalate")

    # 3. The LLM comes back

    def drain(self, offsets: Offsets, workers: list[WorkerProcess]) -> None:
        names = self.settings.kafka.names
        slow = Offsets(self.stack.bootstrap_servers, names.escalations, f"{NAME}-escalate")
        began_s, backlog = time.monotonic(), slow.lag()
        asyncio.run(self._restart_llm())
        say(f"the LLM is back; {offsets.lag()} records and {backlog} escalations wait")
        shown_s = 0.0

        def drained() -> bool:
            nonlocal shown_s
            lags = offsets.lag(), slow.lag()
            if time.monotonic() > shown_s + 10:
                shown_s = time.monotonic()
                say(f"to drain: {lags[0]} records, {lags[1]} escalations")
            return lags == (0, 0)

        self.until("everything drains", drained, self.given.drain_s)
        slow.close()
        self.found["drain"] = {"escalations": backlog, "seconds": round(time.monotonic() - began_s, 1)}
        self.found["drain"]["workers"] = {worker.name: peak(worker.samples) for worker in workers}
        self.end(workers)

    async def _restart_llm(self) -> None:
        await self.stack.stop_llm()
        await self.stack.start_llm()

    def count(self, sent: int) -> None:
        """Every input record, as confluent-kafka reads it, against the outcomes that name it."""
        names = self.settings.kafka.names
        outcomes: dict[int, bytearray] = {}
        records = 0
        for message in each_message(self.stack.bootstrap_servers, names.input):
            times = outcomes.setdefault(message.partition(), bytearray())
            times.extend(b"\0" * (message.offset() + 1 - len(times)))
            records += 1
        foreign = by_llm = 0
        for topic in (names.decisions, names.dlq):
            for message in each_message(self.stack.bootstrap_servers, topic):
                headers = dict(message.headers() or ())
                if topic == names.decisions and headers.get("kind") != b"final":
                    continue
                _, partition, offset = headers["shunt-source"].decode().rsplit("/", 2)
                try:
                    outcomes[int(partition)][int(offset)] += 1
                except (KeyError, IndexError):
                    foreign += 1
                by_llm += message.value() is not None and b'"decided_by":"llm","policy"' in message.value()
        lost = sum(times.count(0) for times in outcomes.values())
        more = sum(len(times) - times.count(0) - times.count(1) for times in outcomes.values())
        self.found["count"] = {"records": records, "lost": lost, "duplicated": more, "foreign": foreign}
        self.found["count"]["by_llm"] = by_llm
        if records != sent or lost or more or foreign:
            self.miss(f"{sent} were sent; {self.found['count']}")

    # All

    def all(self) -> dict[str, Any]:
        given, bootstrap = self.given, self.stack.bootstrap_servers
        asyncio.run(
            create(Connection(self.settings.kafka), plan(self.settings.kafka, None, partitions=given.partitions))
        )
        self.llm.fault(kind="hang")
        arguments = ["--bootstrap", bootstrap, "--topic", NAME, "--partitions", given.partitions, "--ahead", AHEAD]
        arguments += ["--group", f"{NAME}-classify", "--escalated", given.escalated]
        offsets = Offsets(bootstrap, NAME, f"{NAME}-classify")
        try:
            with LoadProcess(*arguments) as load:
                if given.rounds:
                    self.speed(offsets)
                workers = self.memory(offsets)
                sent = load.stop()
            self.drain(offsets, workers)
            self.count(sent)
        finally:
            for worker in self.workers:
                worker.process.kill()
        return self.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="of the memory part")
    parser.add_argument("--split", action="store_true", help="a process for each lane")
    parser.add_argument("--rounds", type=int, default=6, help="of the speed part; 0 leaves it out")
    parser.add_argument("--phase-s", type=float, default=10, help="of one measurement of the speed part")
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--escalated", type=float, default=0.02)
    parser.add_argument("--drain-s", type=float, default=1_800, help="the longest the drain may take")
    parser.add_argument("--json", action="store_true", help="one line")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = Stack(
            folder / "stack",
            model_repository=ROOT / "tests" / "models",
            load_models=["scripted"],
            llm_options=StandInOptions(latency_median_ms=20),
        )
        asyncio.run(stack.open())
        try:
            found = Run(stack, folder, given).all()
        finally:
            asyncio.run(stack.close())
    found["load_1m"] = round(os.getloadavg()[0], 1)
    print(json.dumps(found, indent=None if given.json else 2))
    raise SystemExit(1 if found["misses"] else 0)


if __name__ == "__main__":
    main()
