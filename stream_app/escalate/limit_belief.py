"""One limit as 429s have taught it: what was admitted under it, and what it is believed to be. Pure.

A belief climbs: through its doubt, up to `upper`, in `DOUBT_S`, and beyond that slowly at first, because every
refusal costs calls, then twice as fast every minute: from any depth it is all the way up within 13 minutes.

Servers in trouble answer 429 as well. So weak evidence lowers a belief little, and is left within minutes: few calls,
a lane that asked for less than it might, an estimate far below what was believed or below one that was obeyed. And
what a refusal seems to tell is refuted by what minutes took before.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

from stream_app.escalate.last_minute import MINUTE_S, LastMinute

MARGIN = 0.005
"""How far below an estimate to begin: half a per cent is one call of 200, the estimate's own rounding."""
SHARE_MIN = 0.002
"""The least that is ever believed: a worker that asks for nothing learns nothing."""
DOUBT_S = 20.0
"""How long the climb from an estimate to its upper end takes."""
CLIMB, CLIMB_WEAK = 0.0015, 0.3
"""The exponent of the climb after that, which every minute without a refusal doubles:
`exp(climb * (2 ** minutes - 1))`. With 2.1 % of slack (60/61 and the margin) a right estimate is refused again every
four minutes. From `SHARE_MIN` it is all the way up after 12.4 minutes, and after 4.8 if the evidence was weak."""
CLIMB_MINUTES_MAX = 30.0
"""All the way up long before, and long before a float overflows."""
CUT_MAX = 0.25
"""An estimate below a quarter of what a limit may be is weak evidence: a limit is seldom configured so wrongly."""
CUT_WEAK, UPPER_WEAK = 0.6, 0.8
"""Weak evidence lowers what is believed to so much (a quarter if calls pressed), and what it may be."""
MINUTES_KEPT, MINUTES_STEADY = 30, 5
"""For how long is remembered what minutes took, and how many in a row are no burst."""
PEAK_MAX, STEADY_MAX = 2.2, 1.3
"""A token bucket that was full admits two minutes' worth in the first one, and 6/5 a minute over five: no rule admits
more. So an estimate further below the best minute, or the best five, is refuted."""
AGREE_WITHIN = 0.1
"""What is refuted, and comes out the same twice, is true by now: the limit was lowered, or others use it too."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a refusal tells of a limit: an estimate, and the most that it may be.

    `believed` is what was believed when it came. `measured`: enough calls told it. `prompt`: the refusal was over so
    soon that calls went on all the time. `pressed`: calls went about as fast as the belief let them.
    """

    estimate: float
    upper: float
    measured: bool
    prompt: bool
    pressed: bool
    believed: float

    @property
    def strong(self) -> bool:
        """True where enough calls told it, as fast as they might go."""
        return self.measured and self.pressed


@dataclass(slots=True)
class Minute:
    """What 60 s took."""

    began_s: float
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Belief:
    """A limit's share as it is believed from `base_at_s` on. An infinite estimate: nothing was ever refused."""

    estimate: float = math.inf
    base: float = 1.0
    upper: float = 1.0
    base_at_s: float = 0.0
    climb: float = CLIMB
    doubted: float = math.inf

    def share(self, now_s: float) -> float:
        """What is believed at `now_s`, at most 1."""
        if self.estimate == math.inf:
            return 1.0
        age_s = now_s - self.base_at_s
        doubt = math.log(self.upper / self.base) * min(1.0, age_s / DOUBT_S)
        minutes = min(CLIMB_MINUTES_MAX, max(0.0, age_s - DOUBT_S) / MINUTE_S)
        return math.exp(min(0.0, math.log(self.base) + doubt + self.climb * (2**minutes - 1)))


@dataclass(slots=True)
class Account:
    """What one limit has admitted, and what is believed of it. Shares of the configured limit."""

    belief: Belief = field(default_factory=Belief)
    since: float = 0.0
    log: LastMinute = field(default_factory=LastMinute)
    _minutes: deque[Minute] = field(default_factory=lambda: deque[Minute](maxlen=MINUTES_KEPT))

    def share(self, now_s: float) -> float:
        """What is believed at `now_s`, at most 1."""
        return self.belief.share(now_s)

    def believe(self, told: Judgement, now_s: float) -> None:
        """A refusal has told this. What is refuted is left in `DOUBT_S`, unless it was measured or comes twice."""
        estimate, upper, before = told.estimate, told.upper, self.belief
        climb = CLIMB
        if self._is_weak(told):
            climb, upper = CLIMB_WEAK, before.upper * (UPPER_WEAK if told.measured else 1.0)
        doubted = before.doubted
        if not (told.measured and told.prompt) and self.refutes(estimate):
            if told.measured and abs(estimate - doubted) <= AGREE_WITHIN * estimate:
                self._minutes.clear()
            else:
                upper, doubted = max(upper, self.best), estimate
        least = told.believed * (CUT_MAX if told.strong else CUT_WEAK)
        base = min(1.0, max(SHARE_MIN, least, estimate * (1 - MARGIN)))
        self.belief = Belief(estimate, base, max(base, min(1.0, upper)), now_s, climb, doubted)

    def _is_weak(self, told: Judgement) -> bool:
        """True for few calls or little demand, and where it goes against what was believed and obeyed until now."""
        before = self.belief
        if not told.strong or told.estimate < CUT_MAX * before.upper:
            return True
        obeyed = told.believed <= (1 + AGREE_WITHIN) * before.estimate < math.inf
        return told.prompt and obeyed and told.estimate < (1 - AGREE_WITHIN) * before.estimate

    def keep(self, now_s: float) -> None:
        """A refusal has told nothing of the limit: on from where the belief stands."""
        if self.belief.estimate != math.inf:
            base = max(SHARE_MIN, self.share(now_s))
            self.belief = replace(self.belief, base=base, upper=max(base, self.belief.upper), base_at_s=now_s)

    @property
    def best(self) -> float:
        """The most that a minute took lately."""
        return max((minute.amount for minute in self._minutes), default=0.0)

    def refutes(self, estimate: float) -> bool:
        """True where recent minutes took more than any provider with this limit would have admitted."""
        minutes = list(self._minutes)
        runs = [minutes[first : first + MINUTES_STEADY] for first in range(len(minutes) - MINUTES_STEADY + 1)]
        steady = max((sum(one.amount for one in run) / MINUTES_STEADY for run in runs if _unbroken(run)), default=0.0)
        return self.best > PEAK_MAX * estimate or steady > STEADY_MAX * estimate

    def sent(self, amount: float, now_s: float) -> None:
        """Counts a call, of which a refusal takes it out again (`take_out`)."""
        self.since += amount
        if not self._minutes or now_s - self._minutes[-1].began_s >= MINUTE_S:
            self._minutes.append(Minute(now_s))
        self._minutes[-1].amount += amount

    def take_out(self, amount: float, *, since: bool) -> None:
        """A call that was counted was refused, or took less; `since` the last refusal if so."""
        if self._minutes:
            self._minutes[-1].amount = max(0.0, self._minutes[-1].amount - amount)
        if since:
            self.since -= amount


def _unbroken(run: list[Minute]) -> bool:
    """True where each minute follows the one before."""
    return run[-1].began_s - run[0].began_s <= (len(run) - 1) * 1.1 * MINUTE_S
