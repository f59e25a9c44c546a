"""The LLM lane against strict providers: how much of a limit is used, and whether it is ever passed.

    python -m benchmarks.strict_providers [--minutes 10] [--admission max_tokens] [--json]
    python -m benchmarks.strict_providers --real-share 0.3333 --headers none --workers 1

For each kind of limit (token bucket, fixed window, sliding log), bound by requests and bound by tokens, with one
worker and with three (one leaves at a third of the time and comes back at two thirds), all side by side: workers as
a user starts them, on real Kafka, each fleet against a stand-in LLM of its own that refuses whatever passes its
limit. Tokens are counted as OpenAI does, or as `--admission` says; the workers are told how. There is always more to
ask. From each provider's own log:

* utilisation: what was admitted, of what the limit allows, over the whole time from the first call on, and steady:
  without the first minute and, for three workers, the half minute after each rebalance;
* 429s;
* the most that any window of T seconds took beyond rate x T, in seconds of the rate, less one call a partition.

With `--real-share` the providers allow only that part of what the workers are told, which these learn from headers
or, with `--headers none`, from 429s alone. Steady then begins a minute after the first 429.

Exits 1 where a bar is missed: steady utilisation 0.96, whole 0.93 with rebalances, no 429, one second of rate; of a
limit that is learnt 0.95 steady, and then at most five 429s.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.worker import WorkerProcess
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.llm.headers import HeaderStyle
from stream_app.local.llm.limits import LimitKind
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm.provider import TokenAdmission
from stream_app.local.llm_server import LlmServer
from stream_app.local.stack import Stack
from tests.escalate import escalated
from tests.settings_file import write_settings
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.settings import Settings

KINDS = tuple(LimitKind)
REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE = 600, 240_000
UNBOUND = {"requests": 1_000_000, "tokens": 1_000_000_000}
PARTITIONS = 6
CALLS_PER_MINUTE_MAX = 1_000
"""More escalations than a minute's limit can take, whichever it is."""
COUNTED = {
    TokenAdmission.MAX_TOKENS: "max_tokens",
    TokenAdmission.SETTLED: "settled",
    TokenAdmission.USE: "used",
}
"""What `tokens_counted` is for each way of the stand-in's."""
STEADY_AFTER_S, REBALANCE_S = 60.0, 30.0
STEADY_MIN, WHOLE_MIN = 0.96, 0.93
LEARNT_MIN, LEARNT_429S_MAX = 0.95, 5
BURST_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A provider and a fleet."""

    kind: LimitKind
    bound: str
    workers: int
    real_share: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.bound}-{self.workers}".replace("_", "-")

    @property
    def told(self) -> dict[str, int]:
        """What the workers believe the limits to be."""
        bound = {"requests": REQUESTS_PER_MINUTE, "tokens": TOKENS_PER_MINUTE}
        return {what: bound[what] if what == self.bound else UNBOUND[what] for what in bound}

    @property
    def limits(self) -> dict[str, int]:
        """The provider's."""
        return {what: round(limit * self.real_share) for what, limit in self.told.items()}


@dataclass
class Scene:
    """A case at work."""

    case: Case
    folder: Path
    llm: LlmServer
    fleet: list[WorkerProcess] = field(default_factory=list)
    disturbed_s: list[float] = field(default_factory=list)
    """When a worker left or came, on the wall clock."""

    def start_worker(self) -> None:
        number = len(self.disturbed_s) + len(self.fleet)
        self.fleet.append(WorkerProcess(self.folder, "escalate", f"escalate-{number}"))

    def leave(self) -> None:
        if self.case.workers > 1:
            self.disturbed_s.append(time.time())
            self.fleet.pop().end()

    def come(self) -> None:
        if self.case.workers > 1:
            self.start_worker()
            self.disturbed_s.append(time.time())

    def check(self) -> None:
        for worker in self.fleet:
            worker.check()

    def end(self) -> dict[str, Any]:
        """What the provider's log says; ends the workers."""
        ended_s = time.time()
        calls = StandIn(self.llm.base_url).calls()
        for worker in self.fleet:
            worker.end()
        return {"case": self.case.name, **figures(self.case, calls, self.disturbed_s, ended_s)}


def figures(
    case: Case, calls: Sequence[dict[str, Any]], disturbed_s: Sequence[float], ended_s: float
) -> dict[str, Any]:
    """The bars' figures, of a provider's log of calls."""
    charged = f"charged_{case.bound}"
    taken = [(call["admitted_s"], call[charged]) for call in calls if call["admitted_s"] is not None]
    taken = sorted((at_s, amount) for at_s, amount in taken if at_s <= ended_s)
    began_s = taken[0][0]
    refused_s = sorted(call["at_s"] for call in calls if call["status"] == 429 and call["at_s"] <= ended_s)
    learns = case.real_share < 1 and refused_s
    settled_s = (refused_s[0] if learns else began_s) + STEADY_AFTER_S
    quiet = [(began_s, settled_s), *((at_s, at_s + REBALANCE_S) for at_s in disturbed_s)]
    per_s = case.limits[case.bound] / 60
    steady = [(at_s, amount) for at_s, amount in taken if not any(since <= at_s < until for since, until in quiet)]
    steady_s = ended_s - began_s - covered_s(quiet, ended_s)
    largest = max(amount for _, amount in taken)
    return {
        "calls": len(calls),
        "utilisation": round(sum(amount for _, amount in taken) / per_s / (ended_s - began_s), 4),
        "utilisation_steady": round(sum(amount for _, amount in steady) / per_s / steady_s, 4),
        "refused": len(refused_s),
        "refused_steady": sum(at_s > settled_s for at_s in refused_s),
        "burst_s": round((beyond(taken, per_s) - PARTITIONS * largest) / per_s, 2),
    }


def covered_s(spans: Sequence[tuple[float, float]], ended_s: float) -> float:
    """How long at least one of the spans lasts, up to the end."""
    total_s, reached_s = 0.0, -math.inf
    for since_s, until_s in sorted(spans):
        clipped_s = min(until_s, ended_s)
        total_s += max(0.0, clipped_s - max(since_s, reached_s))
        reached_s = max(reached_s, clipped_s)
    return total_s


def beyond(taken: Sequence[tuple[float, float]], per_s: float) -> float:
    """The most that any window took beyond `per_s` times its length."""
    most, lowest, total = -math.inf, math.inf, 0.0
    for at_s, amount in taken:
        lowest = min(lowest, total - per_s * at_s)  # a window that begins with this call
        total += amount
        most = max(most, total - per_s * at_s - lowest)
    return most


def misses(found: dict[str, Any], case: Case) -> list[str]:
    """The bars that were missed."""
    if case.real_share < 1:
        learnt = {
            f"steady utilisation {found['utilisation_steady']} < {LEARNT_MIN}": found["utilisation_steady"]
            >= LEARNT_MIN,
            f"{found['refused_steady']} refused after a minute": found["refused_steady"] <= LEARNT_429S_MAX,
        }
        return [f"{found['case']}: {text}" for text, holds in learnt.items() if not holds]
    held = {
        f"utilisation {found['utilisation']} < {WHOLE_MIN}": case.workers == 1 or found["utilisation"] >= WHOLE_MIN,
        f"steady utilisation {found['utilisation_steady']} < {STEADY_MIN}": found["utilisation_steady"] >= STEADY_MIN,
        f"{found['refused']} refused": not found["refused"],
        f"a burst of {found['burst_s']} s": found["burst_s"] <= BURST_MAX_S,
    }
    return [f"{found['case']}: {text}" for text, holds in held.items() if not holds]


async def scene(case: Case, stack: Stack, folder: Path, given: argparse.Namespace) -> Scene:
    """Provider, topics and escalations of a case; no worker yet."""
    opened, settings = await empty_scene(case, stack, folder, given.admission, given.headers)
    texts = escalated.texts(int(CALLS_PER_MINUTE_MAX * (given.minutes + 1)))
    await asyncio.to_thread(
        escalated.produce, stack.bootstrap_servers, settings.kafka.names.escalations, texts, partitions=PARTITIONS
    )
    return opened


async def empty_scene(
    case: Case,
    stack: Stack,
    folder: Path,
    admission: TokenAdmission = TokenAdmission.MAX_TOKENS,
    headers: HeaderStyle = HeaderStyle.OPENAI,
) -> tuple[Scene, Settings]:
    """Provider and topics of a case, named as the folder; nothing to ask yet, and no worker."""
    folder.mkdir()
    llm = LlmServer(
        folder / "llm.log",
        StandInOptions(
            latency_median_ms=400,
            limit_kind=case.kind,
            requests_per_minute=case.limits["requests"],
            tokens_per_minute=case.limits["tokens"],
            token_admission=admission,
            headers=headers,
            retry_after=headers is not HeaderStyle.NONE,
        ),
    )
    await llm.start()
    settings = write_settings(
        folder,
        folder.name,
        bootstrap_servers=stack.bootstrap_servers,
        triton="127.0.0.1:1",
        llm_base_url=llm.base_url,
        llm={"usd_per_hour": 100_000.0, "usd_per_day": 1_000_000.0, "deadline_s": 7_200.0, "output_tokens_max": 64},
        endpoint={
            "requests_per_minute": case.told["requests"],
            "tokens_per_minute": case.told["tokens"],
            "tokens_counted": COUNTED[admission],
        },
    )
    await create(Connection(settings.kafka), plan(settings.kafka, None, partitions=PARTITIONS))
    return Scene(case, folder, llm), settings


def chosen(given: argparse.Namespace) -> list[Case]:
    """The cases of a run."""
    return [Case(*each, given.real_share) for each in itertools.product(given.kinds, given.bounds, given.workers)]


def watch(scenes: Sequence[Scene], until_s: float) -> None:
    while time.monotonic() < until_s:
        time.sleep(min(5.0, max(0.0, until_s - time.monotonic())))
        for each in scenes:
            each.check()


async def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases side by side."""
    cases = chosen(given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Stack.start(folder / "stack", triton=False, llm=False) as stack:
            scenes = [await scene(case, stack, folder / case.name, given) for case in cases]
            try:
                for each in scenes:
                    for _ in range(each.case.workers):
                        each.start_worker()
                began_s, third_s = time.monotonic(), given.minutes * 20
                await asyncio.to_thread(watch, scenes, began_s + third_s)
                for each in scenes:
                    each.leave()
                await asyncio.to_thread(watch, scenes, began_s + 2 * third_s)
                for each in scenes:
                    each.come()
                await asyncio.to_thread(watch, scenes, began_s + 3 * third_s)
                return [each.end() for each in scenes]
            finally:
                for each in scenes:
                    for worker in each.fleet:
                        worker.process.kill()
                    await each.llm.process.stop()


def main() -> int:
    """Runs it; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kinds", nargs="+", type=LimitKind, default=KINDS, choices=KINDS)
    parser.add_argument("--bounds", nargs="+", default=("requests", "tokens"), choices=("requests", "tokens"))
    parser.add_argument("--workers", nargs="+", type=int, default=(1, 3))
    parser.add_argument(
        "--admission", type=TokenAdmission, default=TokenAdmission.MAX_TOKENS, choices=tuple(TokenAdmission)
    )
    parser.add_argument("--real-share", type=float, default=1.0, help="of what the workers are told")
    parser.add_argument("--headers", type=HeaderStyle, default=HeaderStyle.OPENAI, choices=tuple(HeaderStyle))
    parser.add_argument("--json", action="store_true", help="one line")
    given = parser.parse_args()
    rows = asyncio.run(measure(given))
    cases = chosen(given)
    missed = [miss for row, case in zip(rows, cases, strict=True) for miss in misses(row, case)]
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
    found = {"minutes": given.minutes, "rows": rows, "misses": missed, "load_1m": round(os.getloadavg()[0], 1)}
    print(json.dumps(found, indent=None if given.json else 2))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
