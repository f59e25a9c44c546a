"""What a budget that does not reach for everyone is spent on: the events whose answer the LLM is likeliest to change.

Pure: time and chance are arguments. An event is worth its price while the money left reaches for the share of
recent events that are as likely to change as it is: an order statistic over the last `RECENT`, as in online
selection with a budget. How many are still to come is told by what came in the last `RATE_OVER_S` (exponentially
weighted). Where the money reaches for all, all are worth it. Nothing has to wait for a better one:
who is not worth it now takes the way of `on_budget` at once.

An event that was decided without the LLM and is asked after all (`spares`) gets only what the others will leave.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.events import Answer, Escalation

RECENT = 500
"""Events that an event is compared with."""
RATE_OVER_S = 600.0
"""Time constant of the demand's average: a burst of a second must not pass for the demand of the whole hour."""
RATE_SINCE_MIN_S = 60.0
"""Nor must the first moments."""
RECENT_MIN = 30
"""Fewer say nothing about the demand: until then everyone is worth it."""
PAID_CALLS = 50.0
"""How many calls it is averaged over what of its bound a call costs."""
KEPT_SHARE = 0.5
"""Of what is evenly left: kept for who comes, however few came lately, from who can wait."""


def chance_of_change(escalation: Escalation) -> float:
    """How likely the small models are wrong in at least one asked task, by their own calibrated probabilities."""
    return 1.0 - math.prod(_chance_right(ask.small) for ask in escalation.asks)


def _chance_right(small: Answer) -> float:
    """Of the label; of several as if they were independent."""
    if isinstance(small.label, str):
        return small.probabilities.get(small.label, 0.0)
    return math.prod(p if label in small.label else 1.0 - p for label, p in small.probabilities.items())


@dataclass(frozen=True, slots=True)
class Left:
    """What may still be spent, in nano-dollars, and for how many seconds it has to do.

    `even_nusd` is what the budget would give to that time if it were spent evenly.
    """

    nusd: int
    s: float
    even_nusd: float = 0.0


@dataclass(slots=True)
class Spending:
    """Remembers recent demand, and says for each event whether the budget should be spent on it."""

    _recent: deque[float] = field(default_factory=lambda: deque[float](maxlen=RECENT))
    _changes: list[float] = field(default_factory=list[float])
    """Those of `_recent` in rising order."""
    _demand_nusd: list[float] = field(default_factory=list[float])
    """By endpoint, the bounds of what everyone would have cost there, those of `RATE_OVER_S` ago weighing 1/e."""
    _since_s: float = math.nan
    _last_s: float = math.nan
    _paid_share: float = 1.0
    """What calls cost, of the bound that was reserved for them; of the first ones the mean."""
    _paid_calls: float = 0.0

    def worth(
        self,
        change: float,
        costs_nusd: Sequence[int],
        funds: Sequence[Left],
        *,
        at: int = 0,
        now_s: float,
        draw: float,
    ) -> bool:
        """True where an event with this chance of `change` should be paid for now.

        `costs_nusd` are the bounds of its call at each endpoint, and `at` is the one in use. `funds` is what is left
        of each budget (the hour's, the day's): the scarcest decides. `draw` is a random number in [0, 1), which
        decides between equals. For the same past and draw, an event with a higher chance is worth it whenever one
        with a lower chance is. What costs nothing is always worth it.
        """
        self._note(change, costs_nusd, now_s)
        reach = min((self._reach(left, at, now_s) for left in funds), default=1.0)
        if reach >= 1.0 or not costs_nusd[at]:
            return True
        count = len(self._changes)
        above = (count - bisect_right(self._changes, change)) / count
        equal = (bisect_right(self._changes, change) - bisect_left(self._changes, change)) / count
        return above + draw * equal < reach

    def spares(self, cost_nusd: int, funds: Sequence[Left], *, at: int = 0, now_s: float) -> bool:
        """True where the money left reaches for this call and everyone to come, as dear and frequent as lately.

        However few came lately, `KEPT_SHARE` of what is evenly left stays for those to come.
        """
        return not cost_nusd or all(
            left.nusd - cost_nusd >= max(self._to_come_nusd(left.s, at, now_s), KEPT_SHARE * left.even_nusd)
            for left in funds
        )

    def paid(self, bound_nusd: int, nusd: int) -> None:
        """A call for which the bound was reserved cost so much; one that cost nothing tells nothing."""
        if bound_nusd > 0 < nusd:
            self._paid_calls = min(PAID_CALLS, self._paid_calls + 1)
            self._paid_share += (nusd / bound_nusd - self._paid_share) / self._paid_calls

    def _reach(self, left: Left, at: int, now_s: float) -> float:
        """The share of the events to come, as dear and as frequent as the recent ones, that can be paid."""
        to_come_nusd = self._to_come_nusd(left.s, at, now_s)
        return left.nusd / to_come_nusd if to_come_nusd > 0 else 1.0

    def _to_come_nusd(self, within_s: float, at: int, now_s: float) -> float:
        """What everyone who comes in that time would cost there, judged by what of their bounds calls cost lately.

        0 where too few came to tell.
        """
        if len(self._recent) < RECENT_MIN:
            return 0.0
        since_s = max(now_s - self._since_s, RATE_SINCE_MIN_S)
        over_s = RATE_OVER_S * -math.expm1(-since_s / RATE_OVER_S)
        faded = math.exp((self._last_s - now_s) / RATE_OVER_S)
        return self._demand_nusd[at] * self._paid_share * faded / over_s * within_s

    def _note(self, change: float, costs_nusd: Sequence[int], now_s: float) -> None:
        if not self._recent:
            self._since_s = self._last_s = now_s
            self._demand_nusd = [0.0] * len(costs_nusd)
        if len(self._recent) == RECENT:
            del self._changes[bisect_left(self._changes, self._recent[0])]
        self._recent.append(change)
        insort(self._changes, change)
        faded = math.exp((self._last_s - now_s) / RATE_OVER_S)
        self._demand_nusd = [was * faded + cost for was, cost in zip(self._demand_nusd, costs_nusd, strict=True)]
        self._last_s = now_s
