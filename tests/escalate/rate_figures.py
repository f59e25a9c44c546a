"""Prints what the limiter does against each provider: `python -m tests.escalate.rate_figures {hold,learn}`."""

from __future__ import annotations

import sys
from itertools import product

from stream_app.escalate.token_bucket import Limits
from tests.escalate.paces import REQUESTS_BOUND, TOKENS_BOUND, Setting, two_rebalances, utilisation

SEEDS = 8
THIRD = 1 / 3


def hold() -> None:
    """Ten minutes at the real limit: the least utilisation of two minutes and of ten, the 429s of each run."""
    for (name, limits), workers, kind, counts in product(
        (("requests", REQUESTS_BOUND), ("tokens", TOKENS_BOUND)),
        (1, 3),
        ("bucket", "fixed", "sliding"),
        ("max", "settled", "use", "end"),
    ):
        if name == "requests" and counts != "max":
            continue
        steady, whole, refusals = [], [], []
        for seed in range(SEEDS):
            setting = Setting(kind, counts, limits, limits, workers, seed, False, 60.0, seed % 2)
            fleet = setting.fleet()
            if workers == 3:
                two_rebalances(fleet)
            fleet.run(600)
            steady.append(utilisation(fleet, limits, 60, 195))
            whole.append(utilisation(fleet, limits, 0, 600))
            refusals.append(len(fleet.provider.refusals))
        print(f"{name:8} {workers} {kind:7} {counts:3} {min(steady):.3f} {min(whole):.3f} {refusals}")


def learn() -> None:
    """A third of the configured limit is real: utilisation of it from 60 s after the first 429, and the 429s."""
    for headers, (name, real, limits), workers, (kind, burst_s) in product(
        (True, False),
        (
            ("requests", Limits(500 * THIRD, 1e6), REQUESTS_BOUND),
            ("tokens", Limits(2_000, 200_000 * THIRD), TOKENS_BOUND),
        ),
        (1, 3),
        (("bucket", 60.0), ("bucket", 10.0), ("bucket", 3.0), ("fixed", 60.0), ("sliding", 60.0)),
    ):
        shown = []
        for seed in range(SEEDS):
            setting = Setting(kind, "max", real, limits, workers, seed, headers, burst_s, seed % 2)
            fleet = setting.fleet()
            fleet.run(800)
            refusals = fleet.provider.refusals
            began_s = refusals[0] + 60 if refusals else 60.0
            later = sum(1 for at_s in refusals if began_s < at_s <= began_s + 600)
            first = sum(1 for at_s in refusals if at_s <= began_s)
            shown.append(f"{utilisation(fleet, real, began_s, began_s + 600):.3f}/{first}+{later}")
        print(f"{'headers' if headers else '429s'} {name:8} {workers} {kind:7} {burst_s:2.0f}", *shown)


if __name__ == "__main__":
    {"hold": hold, "learn": learn}[sys.argv[1]]()
