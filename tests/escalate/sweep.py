"""Limits of a third, drawn at large: rule, what binds, how much is asked, how long calls take, how many workers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.escalate.token_bucket import Limits
from tests.escalate.demand import arrive
from tests.escalate.paces import Setting, utilisation

if TYPE_CHECKING:
    from tests.escalate.providers import Fleet, Kind

TOKENS_MEAN = 850
"""What a call counts on average: 550 in, 300 the longest output."""
SETTLES_S, WATCHED_S = 60.0, 600.0
LOOKS_S = 900.0
"""So long it may take until a token bucket, from which a little more is asked than it gets, is empty."""
KINDS: tuple[Kind, ...] = ("bucket", "fixed", "sliding")


@dataclass(frozen=True)
class Drawn:
    """One run: a provider that allows a third, after a quiet time of `quiet_s` with little to ask."""

    kind: Kind
    bound: str
    per_minute: float
    workers: int
    demand: float
    quiet_s: float
    call_s: float
    headers: bool
    seed: int

    @property
    def configured(self) -> Limits:
        if self.bound == "requests":
            return Limits(self.per_minute, self.per_minute * TOKENS_MEAN * 4)
        return Limits(self.per_minute * 4, self.per_minute * TOKENS_MEAN)

    @property
    def real(self) -> Limits:
        """A third of the limit that binds; the other one has room for twice that."""
        return Limits(self.configured.requests_per_minute / 3, self.configured.tokens_per_minute / 3)

    def fleet(self) -> Fleet:
        fleet = Setting(
            self.kind, "max", self.real, self.configured, self.workers, self.seed, self.headers
        ).fleet_that_waits()
        fleet.latency_s = lambda draw: self.call_s * draw.uniform(0.5, 1.5)
        full = self.demand * self.per_minute
        arrive(fleet, lambda now_s: full if now_s >= self.quiet_s else 0.01 * self.per_minute)
        return fleet


@dataclass(frozen=True)
class Seen:
    """How much of the limit was used from a minute after the first 429 on, and how often it was passed since."""

    used: float
    refused: int


def drawn(seed: int, *, workers: int | None = None, headers: bool = False) -> Drawn:
    """A run by chance."""
    draw = random.Random(seed)
    return Drawn(
        kind=draw.choice(KINDS),
        bound=draw.choice(("requests", "tokens")),
        per_minute=draw.choice((200, 500, 1_500)),
        workers=workers or draw.choice((1, 2, 3)),
        demand=draw.choice((0.4, 0.5, 0.7, 1.0, 3.0)),
        quiet_s=draw.choice((0.0, 90.0)),
        call_s=draw.choice((0.05, 0.4, 2.0, 8.0, 20.0)),
        headers=headers,
        seed=seed,
    )


def seen(one: Drawn) -> Seen:
    """Plays it until ten minutes after it should have settled."""
    fleet = one.fleet()
    refusals = fleet.provider.refusals
    while not refusals and fleet.now_s < one.quiet_s + LOOKS_S:
        fleet.run(fleet.now_s + 1)
    began_s = (refusals[0] if refusals else one.quiet_s) + SETTLES_S
    fleet.run(began_s + WATCHED_S)
    refused = sum(began_s < at_s <= began_s + WATCHED_S for at_s in refusals)
    return Seen(utilisation(fleet, one.real, began_s, began_s + WATCHED_S), refused)
