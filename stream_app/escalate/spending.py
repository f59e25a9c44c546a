"""What a budget that does not reach for everyone is spent on: the events whose answer the LLM is likeliest to change.

Pure: time and chance are arguments. An event is worth its price while the money left reaches for the share of
recent events that are as likely to change as it is: an order statistic over the last `RECENT`, as in online
selection with a budget. Where the money reaches for all, all are worth it. Nothing has to wait for a better one:
who is not worth it now takes the way of `on_budget` at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.events import Escalation

RECENT = 500
"""Events that an event is compared with."""
RECENT_MIN = 30
"""Fewer say nothing about the demand: until then everyone is worth it."""


def chance_of_change(escalation: Escalation) -> float:
    """How likely the small models are wrong in at least one asked task, by their own calibrated probabilities."""
    return 1.0 - math.prod(ask.small.probabilities.get(ask.small.label, 0.0) for ask in escalation.asks)


@dataclass(frozen=True, slots=True)
class Left:
    """What may still be spent, in nano-dollars, and for how many seconds it has to do."""

    nusd: int
    s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    cost_nusd: int
    change: float


@dataclass(slots=True)
class Spending:
    """Remembers recent demand, and says for each event whether the budget should be spent on it."""

    _recent: deque[_Seen] = field(default_factory=lambda: deque[_Seen](maxlen=RECENT))
    _changes: list[float] = field(default_factory=list[float])
    """Of `_recent`, in rising order."""

    def worth(self, change: float, cost_nusd: int, funds: Sequence[Left], *, now_s: float, draw: float) -> bool:
        """True where an event with this chance of `change` should be paid for now.

        `funds` is what is left of each budget (the hour's, the day's): the scarcest decides. `draw` is a random
        number in [0, 1), which decides between equals. For the same past and draw, an event with a higher chance
        is worth it whenever one with a lower chance is.
        """
        self._note(_Seen(now_s, cost_nusd, change))
        reach = min((self._reach(left, now_s) for left in funds), default=1.0)
        if reach >= 1.0:
            return True
        count = len(self._changes)
        above = (count - bisect_right(self._changes, change)) / count
        equal = (bisect_right(self._changes, change) - bisect_left(self._changes, change)) / count
        return above + draw * equal < reach

    def _reach(self, left: Left, now_s: float) -> float:
        """The share of the events to come, as dear and as frequent as the recent ones, that can be paid."""
        passed_s = now_s - self._recent[0].at_s
        if len(self._recent) < RECENT_MIN or passed_s <= 0:
            return 1.0
        # The first of them opened the time that has passed; the others came in it.
        asked_nusd = sum(seen.cost_nusd for seen in self._recent) - self._recent[0].cost_nusd
        to_come_nusd = asked_nusd / passed_s * left.s
        return left.nusd / to_come_nusd if to_come_nusd > 0 else 1.0

    def _note(self, seen: _Seen) -> None:
        if len(self._recent) == RECENT:
            del self._changes[bisect_left(self._changes, self._recent[0].change)]
        self._recent.append(seen)
        insort(self._changes, seen.change)
