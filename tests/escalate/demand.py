"""What happens to a simulated fleet: calls that come at a rate of their own, and a provider in trouble."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.escalate.paces import Corrected
from tests.escalate.providers import used

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.escalate.providers import Call, Fleet

LOOKS_S = 1.0
"""How often is looked again while nothing comes."""


def arrive(fleet: Fleet, per_minute: Callable[[float], float]) -> None:
    """From now on calls come by chance, so many a minute at each time, to any worker; what cannot go waits."""
    fleet.saturated = False

    def comes(real: bool) -> None:
        if real:
            worker = fleet.draw.choice(fleet.workers)
            worker.waiting.insert(0, fleet.next_call(fleet.draw))  # behind those that wait
            fleet.pump(worker)
        rate_per_s = per_minute(fleet.now_s) / 60
        wait_s = fleet.draw.expovariate(rate_per_s) if rate_per_s else LOOKS_S
        fleet.at(fleet.now_s + min(wait_s, LOOKS_S), lambda: comes(rate_per_s > 0 and wait_s <= LOOKS_S))

    comes(real=False)


def trouble(fleet: Fleet, refuses: Callable[[float], float], seed: int = 0) -> None:
    """The provider answers 429 for no reason, with such a probability at each time."""
    draw, admits = random.Random(seed), fleet.provider.admits

    def troubled(now_s: float, call: Call) -> bool:
        if draw.random() < refuses(now_s):
            fleet.provider.refusals.append(now_s)
            return False
        return admits(now_s, call)

    fleet.provider.admits = troubled


def least_share(fleet: Fleet) -> float:
    """What the worker that believes least believes its limits to be, of the configured ones."""
    paces = [worker.pace for worker in fleet.workers if isinstance(worker.pace, Corrected)]
    factors = [pace.rate.factors(fleet.now_s) for pace in paces]
    return min(min(one.requests, one.tokens) for one in factors)


def shares(fleet: Fleet, until_s: float) -> list[float]:
    """Plays up to then; what was believed at the end of every second."""
    found: list[float] = []
    while fleet.now_s + 1 <= until_s:
        fleet.run(fleet.now_s + 1)
        found.append(least_share(fleet))
    return found


def minutes_used(fleet: Fleet, per_minute: float, from_s: float, to_s: float) -> float:
    """How many minutes' worth of requests the provider admitted in [from, to)."""
    return used(fleet.provider.log, from_s, to_s)[0] / per_minute
