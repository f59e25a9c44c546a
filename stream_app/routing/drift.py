"""Is the stream like the calibration sample, as the small models see both? Tests that may be looked at for ever.

Pure. Shares of events are compared: with each label as the small answer (prevalence), with a confidence in each fifth
of the sample's, escalated, and outside the calibrated domain. A share has drifted where it is not within `tolerance`
of what the sample's can have been. No label and no LLM is needed, so this sees at once what audits see late; and it
says nothing of whether answers are right.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from stream_app.routing.certification import error_bound
from stream_app.routing.policy import TaskPolicy

DRIFT_DELTA = 0.05
"""How likely a task of one worker ever drifts in all that is tested, while the stream is as the sample was."""
RECENT = 0.3
"""What the newest window counts in what is expected of the next."""
WEALTH_MAX = 1e100
WINDOW_EVENTS = 500
"""Fewer are too few to say what share comes next; more would only be later."""

Kind = Literal["prevalence", "confidence", "escalated", "domain"]
SHIFTS: frozenset[Kind] = frozenset({"prevalence", "confidence"})
"""What the certificate rests on: where these moved, it is not about this stream any more."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a task's routers made of `events` in a row. `labels` and `confidence` count them by place."""

    events: int
    labels: tuple[int, ...]
    confidence: tuple[int, ...]
    escalated: int
    out_of_domain: int

    def __add__(self, other: "Window") -> "Window":
        """Both, one after the other."""
        return Window(
            self.events + other.events,
            tuple(a + b for a, b in zip(self.labels, other.labels, strict=True)),
            tuple(a + b for a, b in zip(self.confidence, other.confidence, strict=True)),
            self.escalated + other.escalated,
            self.out_of_domain + other.out_of_domain,
        )


@dataclass(slots=True)
class AboveWatch:
    """Watches whether the share of events that count is at most `bound`, window by window.

    While each event counts with probability at most that, given all before it, P(ever an alarm) <= alpha. With each
    window of n events, k of which count, wealth is multiplied by the likelihood ratio (q/bound)^k *
    ((1-q)/(1-bound))^(n-k), where q > bound is guessed from earlier windows (an e-value: its mean is at most 1 for
    every share up to the bound). A bettor begins with every window, the j-th with 1 / (j * (j + 1)) of the stake, so
    that a late change is found nearly as soon as an early one (Shin, Ramdas and Rinaldo 2022, arXiv 2203.03532);
    Ville's inequality.
    """

    bound: float
    alpha: float
    alarm: bool = False
    _recent: float = 0.0
    _wealth: float = 0.0
    _windows: int = 0

    @property
    def wealth(self) -> float:
        """What all bettors have, of 1 at first."""
        return self._wealth + 1 / (self._windows + 1)

    def observe(self, counted: int, events: int) -> bool:
        """One more window. True if there is an alarm now, or was before."""
        self._windows += 1
        self._wealth += 1 / (self._windows * (self._windows + 1))
        guess = (self.bound + self._recent) / 2  # half way: a share that falls back does not ruin who bet on it
        if self._recent > self.bound:
            gain = counted * math.log(guess / self.bound)
            gain += (events - counted) * math.log((1 - guess) / (1 - self.bound))
            self._wealth = min(WEALTH_MAX, self._wealth * math.exp(min(gain, 200.0)))
        share = counted / events
        self._recent = share if self._windows == 1 else self._recent + RECENT * (share - self._recent)
        self.alarm |= self.wealth >= 1 / self.alpha
        return self.alarm


@dataclass(slots=True)
class ShareWatch:
    """One share, on both sides of what the sample's can have been, `low` and `high`."""

    kind: Kind
    name: str
    low: float
    high: float
    alpha: float
    above: AboveWatch | None = field(init=False)
    below: AboveWatch | None = field(init=False)
    counted: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        """A side that no share can pass is not watched."""
        self.above = AboveWatch(self.high, self.alpha) if self.high < 1 else None
        self.below = AboveWatch(1 - self.low, self.alpha) if self.low > 0 else None

    def observe(self, counted: int, events: int) -> bool:
        """One more window. True if the share has drifted."""
        self.counted, self.events = counted, events
        above = self.above is not None and self.above.observe(counted, events)
        below = self.below is not None and self.below.observe(events - counted, events)
        return above or below

    @property
    def wealth(self) -> float:
        """The evidence of the side that has more; a drift at 1 / alpha."""
        return max((side.wealth for side in (self.above, self.below) if side is not None), default=0.0)

    @property
    def told(self) -> str:
        """The newest window, for a person."""
        share = self.counted / max(1, self.events)
        return (
            f"{self.kind} {self.name}: {share:.1%} of events lately, {self.low:.1%} to {self.high:.1%} in calibration"
        )


class DriftWatch:
    """All shares of one task under one policy. `drifted` names what has: kind -> told."""

    def __init__(self, task: TaskPolicy, tolerance: float) -> None:
        """Raises ValueError for a policy that does not know what its sample was like."""
        if task.traffic is None:
            raise ValueError("the policy does not say what its sample was like")
        self.edges = task.traffic.confidence_edges
        self.drifted: dict[Kind, str] = {}
        self._labels, self._traffic = task.labels, task.traffic
        known = [*self._shares()]
        # Half of delta for what the sample can have been, half for the tests, each over all shares and both sides.
        alpha = DRIFT_DELTA / 2 / (2 * len(known))
        self.shares = [
            ShareWatch(kind, name, *_between(counted, task.traffic.rows, alpha, tolerance), alpha)
            for kind, name, counted in known
        ]
        self._waiting: Window | None = None

    def observe(self, window: Window) -> list[Kind]:
        """Some more events, as few as one likes; the kinds that have drifted with them, and had not before."""
        waiting = self._waiting = window if self._waiting is None else self._waiting + window
        if waiting.events < WINDOW_EVENTS:
            return []
        self._waiting = None
        held = self._traffic.escalated is None
        counts = [*waiting.labels, *waiting.confidence, *([] if held else [waiting.escalated]), waiting.out_of_domain]
        news: list[Kind] = []
        for share, counted in zip(self.shares, counts, strict=True):
            if share.observe(counted, waiting.events) and share.kind not in self.drifted:
                self.drifted[share.kind] = share.told
                news.append(share.kind)
        return news

    def evidence(self) -> dict[Kind, float]:
        """Kind -> the most evidence of its shares, as a part of what a drift takes."""
        found: dict[Kind, float] = {}
        for share in self.shares:
            found[share.kind] = max(found.get(share.kind, 0.0), share.wealth * share.alpha)
        return found

    def _shares(self) -> Iterator[tuple[Kind, str, int]]:
        """Every share, with what the sample counted. A share that is held does not drift."""
        traffic = self._traffic
        for label in self._labels:
            yield "prevalence", label, traffic.labels.get(label, 0)
        low = 0.0
        for high, counted in zip((*traffic.confidence_edges, 1.0), traffic.confidence, strict=True):
            yield "confidence", f"{low:.3f} to {high:.3f}", counted
            low = high
        if traffic.escalated is not None:
            yield "escalated", "", traffic.escalated
        yield "domain", "outside", traffic.out_of_domain


def _between(counted: int, rows: int, alpha: float, tolerance: float) -> tuple[float, float]:
    """What the share can be, by Clopper and Pearson, and as much more as is no matter."""
    high = error_bound(counted, rows, alpha)
    low = 1 - error_bound(rows - counted, rows, alpha)
    return max(0.0, low - tolerance), min(1.0, high + tolerance)
