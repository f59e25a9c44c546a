"""The LLM lane beside the OpenAI cookbook's idea, against strict providers: utilisation, 429s, added latency.

    python -m benchmarks.cookbook [--minutes 10] [--kinds ...] [--bounds ...]

For each kind of limit (token bucket, fixed window, sliding log), bound by requests or by tokens, two clients with the
same stream on real Kafka and a provider each, all side by side: one worker of the LLM lane as a user starts it, and
`benchmarks/cookbook_client.py`. In the first half of the time the stream asks for 0.8 of the limit, in the second for
1.5. From each provider's own log:

* utilisation: what was admitted in the second half, of what the limit allows in it (a token bucket saved up in the
  first half allows more than 1 for a while);
* 429s, in the whole time;
* added latency: from the writing of an event of the first half to the admission of the call that answered it;
* unanswered: events of the first half that never were;
* twice: answers to an event that had one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Producer

from benchmarks.strict_providers import KINDS, PARTITIONS, Case, Scene, empty_scene
from stream_app.codec import encode_escalation
from stream_app.escalate.prompters import prompter_of
from stream_app.events import Event
from stream_app.local.llm.asked import tokens
from stream_app.local.llm.limits import LimitKind
from stream_app.local.stack import Stack
from tests.escalate import escalated
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.settings import Settings

CLIENTS = ("lane", "cookbook")
CALM, FULL = 0.8, 1.5
TICK_S = 0.05
READY_WITHIN_S = 120.0
"""In which every client must have answered one event of each partition; the stream begins then."""


class CookbookProcess:
    """The baseline's process."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "cookbook.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.cookbook_client", str(folder / "shunt.toml")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def check(self) -> None:
        """Raises SystemExit where it has ended by itself, with the end of its log."""
        if (status := self.process.poll()) is not None:
            raise SystemExit(f"the cookbook's client ended with status {status}:\n{self._log.read_text()[-2_000:]}")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class Run:
    """A client, its provider, and the stream it is fed."""

    client: str
    scene: Scene
    settings: Settings
    calls_per_s: float
    """How many of these calls the limit allows."""
    written_s: list[float] = field(default_factory=list)
    owed: float = 0.0
    halves: list[int] = field(default_factory=list)
    """The first event of each half."""

    def start(self) -> CookbookProcess | None:
        if self.client == "cookbook":
            return CookbookProcess(self.scene.folder)
        self.scene.start_worker()
        return None

    def is_ready(self) -> bool:
        """Whether everything written so far is answered."""
        calls = StandIn(self.scene.llm.base_url).calls()
        return len({call["event_id"] for call in calls if call["status"] == 200}) == len(self.written_s)

    def write(self, producer: Producer, calls: float) -> None:
        """So many more events; what is less than one is kept for the next time."""
        self.owed += calls
        while self.owed >= 1:
            self.owed -= 1
            number = len(self.written_s)
            partition = number % PARTITIONS
            value = {"id": f"r-{number}", "text": escalated.texts(1, number)[0], "n": number}
            headers = list(encode_escalation(escalated.escalation(number, partition=partition), ()))
            self.written_s.append(time.time())
            producer.produce(
                self.settings.kafka.names.escalations, json.dumps(value), partition=partition, headers=headers
            )

    def figures(self, full_s: float, ended_s: float) -> dict[str, Any]:
        """What the provider's log says."""
        case, calls = self.scene.case, StandIn(self.scene.llm.base_url).calls()
        admitted = [call for call in calls if call["admitted_s"] is not None and call["admitted_s"] <= ended_s]
        taken = sum(call[f"charged_{case.bound}"] for call in admitted if call["admitted_s"] >= full_s)
        answered_s: dict[str, float] = {}
        for call in admitted:
            answered_s.setdefault(call["event_id"], call["admitted_s"])
        calm = range(*self.halves)
        waits_s = [answered_s[f"r-{one}"] - self.written_s[one] for one in calm if f"r-{one}" in answered_s]
        p50_s, p99_s = np.percentile(waits_s, (50, 99)) if waits_s else (None, None)
        return {
            "provider": f"{case.kind} {case.bound}",
            "client": self.client,
            "utilisation": round(taken / (case.limits[case.bound] / 60) / (ended_s - full_s), 3),
            "refused": sum(call["status"] == 429 for call in calls),
            "added_p50_s": None if p50_s is None else round(float(p50_s), 3),
            "added_p99_s": None if p99_s is None else round(float(p99_s), 3),
            "unanswered": len(calm) - len(waits_s),
            "twice": len(admitted) - len(answered_s),
            "calls": len(calls),
        }


async def opened(client: str, kind: LimitKind, bound: str, stack: Stack, folder: Path) -> Run:
    """A provider and a topic; how many calls the limit allows is counted on one of them, at its longest."""
    case = Case(kind, bound, 1)
    scene, settings = await empty_scene(case, stack, folder / f"{case.name}-{client}")
    escalation = escalated.escalation(0)
    text = escalated.texts(1)[0]
    request = prompter_of(settings).render(escalation, Event("r-0", text, b"", escalation.source, None))
    length = tokens(sum(len(message["content"]) for message in request.messages)) + request.output_tokens_max
    per_minute = min(case.limits["requests"], case.limits["tokens"] / length)
    return Run(client, scene, settings, per_minute / 60)


def feed(runs: Sequence[Run], others: Sequence[CookbookProcess], bootstrap_servers: str, half_s: float) -> float:
    """The stream, calm and then full, when all are ready; when the second half began, on the wall clock."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5})
    for run in runs:
        run.write(producer, PARTITIONS)
    producer.flush(10)
    deadline_s, full_s = time.monotonic() + READY_WITHIN_S, 0.0
    while not all(run.is_ready() for run in runs):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not ready within {READY_WITHIN_S:.0f} s")
        time.sleep(0.5)
    for load in (CALM, FULL):
        full_s = time.time()
        began_s = fed_s = time.monotonic()
        for run in runs:
            run.halves.append(len(run.written_s))
        while (now_s := time.monotonic()) < began_s + half_s:
            for run in runs:
                run.write(producer, load * run.calls_per_s * (now_s - fed_s))
                run.scene.check()
            for other in others:
                other.check()
            fed_s = now_s
            producer.poll(0)
            time.sleep(TICK_S)
    producer.flush(10)
    return full_s


async def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All of it, side by side."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Stack.start(folder / "stack", triton=False, llm=False) as stack:
            runs = [
                await opened(client, kind, bound, stack, folder)
                for kind, bound, client in itertools.product(given.kinds, given.bounds, CLIENTS)
            ]
            others = [other for run in runs if (other := run.start()) is not None]
            try:
                full_s = await asyncio.to_thread(feed, runs, others, stack.bootstrap_servers, given.minutes * 30)
                ended_s = time.time()
                return [run.figures(full_s, ended_s) for run in runs]
            finally:
                for other in others:
                    other.end()
                for run in runs:
                    for worker in run.scene.fleet:
                        worker.process.kill()
                    await run.scene.llm.process.stop()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For a person."""
    names = ("provider", "client", "utilisation", "refused", "added_p50_s", "added_p99_s", "unanswered", "twice")
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kinds", nargs="+", type=LimitKind, default=KINDS, choices=KINDS)
    parser.add_argument("--bounds", nargs="+", default=("requests", "tokens"), choices=("requests", "tokens"))
    given = parser.parse_args()
    rows = asyncio.run(measure(given))
    print(table(rows), file=sys.stderr)
    print(json.dumps({"minutes": given.minutes, "rows": rows, "load_1m": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
