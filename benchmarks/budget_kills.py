"""Dollars through kills: three workers, ten kills and restarts, and the provider's own account of the bill.

    python -m benchmarks.budget_kills [--kills 10] [--seed N]

Workers as a user starts them, on real Kafka, spend a budget that lasts for about as long as the kills take. A worker
is killed (SIGKILL) with calls in the air and another started, again and again; then the rest is spent. Prints
one line of JSON; exits 1 where what was spent and reserved was at any moment more than the budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stream_app.local.stack import Stack
from tests.escalate.budget_kills import Account, budget_usd, killed, pipeline
from tests.settings_file import NO_LLM
from tests.stand_in import StandIn


@dataclass(frozen=True, slots=True)
class Servers:
    """What a pipeline of the LLM lane alone needs to know. Nobody listens where Triton would be."""

    bootstrap_servers: str
    triton_grpc: str = NO_LLM.removeprefix("http://").removesuffix("/v1")


async def measure(kills: int, seed: int) -> Account:
    """The run, with servers of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Stack.start(folder / "stack", triton=False) as stack:
            servers, llm = Servers(stack.bootstrap_servers), StandIn(stack.llm_base_url)
            made = await asyncio.to_thread(pipeline, folder, servers, llm, "reviews", budget_usd(kills))
            try:
                return await asyncio.to_thread(killed, made, kills, seed)
            finally:
                for worker in made.workers:
                    worker.kill()


def main() -> int:
    """Runs it; the exit status says whether the budget held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    account = asyncio.run(measure(given.kills, given.seed))
    print(json.dumps({**account.as_json(), "load_1m": round(os.getloadavg()[0], 1)}))
    return 0 if account.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
