"""An outage of the LLM with `on_outage = "degrade"`: when finals leave, and that each is corrected, once.

    python -m benchmarks.outage [--minutes 2] [--per-s 40] [--kill] [--json]

Two workers as a user starts them, on real Kafka, events all the time; the stand-in LLM hangs for half of the outage
and fails at once for the other. A reader that shares no code with the project counts, by the clock of its own. With
--kill one worker is killed while it corrects. Exits 1 where an event did not have what it was promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path

from benchmarks.budget_kills import Servers
from stream_app.local.stack import Stack
from tests.escalate.outage import DEADLINE_S, GRACE_S, Account, outage, pipeline
from tests.stand_in import StandIn


async def measure(minutes: float, per_s: float, *, kill: bool) -> Account:
    """The run, with servers of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Stack.start(folder / "stack", triton=False) as stack:
            servers, llm = Servers(stack.bootstrap_servers), StandIn(stack.llm_base_url)
            made = await asyncio.to_thread(pipeline, folder, servers, llm, "reviews")
            try:
                return await asyncio.to_thread(outage, made, minutes * 60, per_s, kill=kill)
            finally:
                for worker in made.workers:
                    worker.kill()


def readable(found: Account) -> list[str]:
    """What a person wants to know."""
    calm, correcting = found.calm_ms, found.correcting_ms
    return [
        f"{found.events:,} events, {found.degraded:,} of them decided without the LLM, {found.corrected:,} corrected",
        f"latest of those finals after {found.latest_final_s} s (deadline {DEADLINE_S:g} s + {GRACE_S:g} s)",
        f"last correction {found.all_corrected_s} s after the LLM was back",
        f"answers p50 / p99: {calm[0]:g} / {calm[1]:g} ms before, {correcting[0]:g} / {correcting[1]:g} ms meanwhile",
        f"breaches: {found.breaches or 'none'}",
    ]


def main() -> int:
    """Runs it; the exit status says whether the promises held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--per-s", type=float, default=40.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(measure(given.minutes, given.per_s, kill=given.kill))
    if given.json:
        print(json.dumps({**found.as_json(), "load_1m": round(os.getloadavg()[0], 1)}))
    else:
        print("\n".join(readable(found)))
    return 0 if found.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
