"""The stand-in's rate limits: token bucket, fixed window, sliding log. Pure: time is an argument.

Each counts units (requests, or tokens) against so many a minute, and is strict in its own sense:

    token bucket    over every window of T seconds: taken - given back <= rate * T + what `burst_s` seconds bring,
                    or one call where that is more; it is full at first
    fixed window    over every minute of the clock: taken <= the limit
    sliding log     over every window of 60 s, wherever it begins: taken <= the limit

A call that takes more than a minute's limit never passes. In a bucket, one that takes more than the bucket holds
passes when it is full, and takes the level below zero. Times are in seconds on a clock that does not go back.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

WINDOW_S = 60.0
ROUNDING = 1e-9
"""Levels of a bucket are floats: what lacks less than this part of its size lacks nothing."""


class LimitKind(StrEnum):
    """How a limit counts."""

    TOKEN_BUCKET = "token_bucket"  # noqa: S105 - a name
    FIXED_WINDOW = "fixed_window"
    SLIDING_LOG = "sliding_log"


@dataclass(slots=True, eq=False)
class Charge:
    """What one call holds of one limit, since `at_s`."""

    at_s: float
    units: int


class Limit(Protocol):
    """So many units a minute."""

    per_minute: int

    def wait_s(self, units: int, now_s: float) -> float:
        """0 where `units` may be taken now, else how long until they may, if nobody else takes any; inf for never."""
        ...

    def take(self, units: int, now_s: float) -> Charge:
        """Count `units`, whether there is room or not."""
        ...

    def settle(self, charge: Charge, units: int, now_s: float) -> None:
        """The call took `units` in the end: the difference is given back, or taken on top."""
        ...

    def remaining(self, now_s: float) -> int:
        """How much may be taken at once."""
        ...

    def reset_s(self, now_s: float) -> float:
        """How long until it is as if nothing had ever been taken, if nothing more is."""
        ...

    def retune(self, per_minute: int, burst_s: float, now_s: float) -> None:
        """Another limit from now on; what was taken stays taken."""
        ...


@dataclass(slots=True)
class TokenBucket:
    """Refilled steadily; holds at most what `burst_s` seconds bring, and never less than one unit."""

    per_minute: int
    burst_s: float = WINDOW_S
    _level: float = 0.0
    _filled_at_s: float | None = None

    @property
    def capacity(self) -> float:
        """The most it holds."""
        return max(1.0, self.per_minute * self.burst_s / WINDOW_S)

    def wait_s(self, units: int, now_s: float) -> float:
        if units > self.per_minute:
            return math.inf
        self._fill(now_s)
        lacking = min(units, self.capacity) - self._level
        return lacking * WINDOW_S / self.per_minute if lacking > ROUNDING * self.capacity else 0.0

    def take(self, units: int, now_s: float) -> Charge:
        self._fill(now_s)
        self._level -= units
        return Charge(now_s, units)

    def settle(self, charge: Charge, units: int, now_s: float) -> None:
        self._fill(now_s)
        self._level = min(self.capacity, self._level + charge.units - units)
        charge.units = units

    def remaining(self, now_s: float) -> int:
        self._fill(now_s)
        return max(0, int(self._level + ROUNDING * self.capacity))

    def reset_s(self, now_s: float) -> float:
        self._fill(now_s)
        return (self.capacity - self._level) * WINDOW_S / self.per_minute

    def retune(self, per_minute: int, burst_s: float, now_s: float) -> None:
        self._fill(now_s)
        self.per_minute, self.burst_s = per_minute, burst_s
        self._level = min(self._level, self.capacity)

    def _fill(self, now_s: float) -> None:
        if self._filled_at_s is None:
            self._level = self.capacity
        else:
            gained = (now_s - self._filled_at_s) * self.per_minute / WINDOW_S
            self._level = min(self.capacity, self._level + gained)
        self._filled_at_s = now_s


@dataclass(slots=True)
class FixedWindow:
    """Counts anew with every minute of the clock. What is given back counts only within its own minute."""

    per_minute: int
    _window: int = 0
    _used: int = 0

    def wait_s(self, units: int, now_s: float) -> float:
        if units > self.per_minute:
            return math.inf
        self._turn(now_s)
        return 0.0 if self._used + units <= self.per_minute else (self._window + 1) * WINDOW_S - now_s

    def take(self, units: int, now_s: float) -> Charge:
        self._turn(now_s)
        self._used += units
        return Charge(now_s, units)

    def settle(self, charge: Charge, units: int, now_s: float) -> None:
        self._turn(now_s)
        if charge.at_s // WINDOW_S == self._window:
            self._used += units - charge.units
        charge.units = units

    def remaining(self, now_s: float) -> int:
        self._turn(now_s)
        return max(0, self.per_minute - self._used)

    def reset_s(self, now_s: float) -> float:
        self._turn(now_s)
        return (self._window + 1) * WINDOW_S - now_s if self._used else 0.0

    def retune(self, per_minute: int, burst_s: float, now_s: float) -> None:
        del burst_s, now_s  # a window has no burst
        self.per_minute = per_minute

    def _turn(self, now_s: float) -> None:
        window = int(now_s // WINDOW_S)
        if window != self._window:
            self._window, self._used = window, 0


@dataclass(slots=True)
class SlidingLog:
    """Remembers every charge for 60 s. A charge at t counts until just before t + 60."""

    per_minute: int
    _held: deque[Charge] = field(default_factory=deque[Charge])
    _used: int = 0

    def wait_s(self, units: int, now_s: float) -> float:
        if units > self.per_minute:
            return math.inf
        self._expire(now_s)
        over = self._used + units - self.per_minute
        if over <= 0:
            return 0.0
        for charge in self._held:
            over -= charge.units
            if over <= 0:
                return charge.at_s + WINDOW_S - now_s
        raise AssertionError("with nothing held there is room for a minute's limit")

    def take(self, units: int, now_s: float) -> Charge:
        self._expire(now_s)
        charge = Charge(now_s, units)
        self._held.append(charge)
        self._used += units
        return charge

    def settle(self, charge: Charge, units: int, now_s: float) -> None:
        self._expire(now_s)
        if charge.at_s + WINDOW_S > now_s:
            self._used += units - charge.units
        charge.units = units

    def remaining(self, now_s: float) -> int:
        self._expire(now_s)
        return max(0, self.per_minute - self._used)

    def reset_s(self, now_s: float) -> float:
        self._expire(now_s)
        return self._held[-1].at_s + WINDOW_S - now_s if self._held else 0.0

    def retune(self, per_minute: int, burst_s: float, now_s: float) -> None:
        del burst_s, now_s  # a log has no burst
        self.per_minute = per_minute

    def _expire(self, now_s: float) -> None:
        while self._held and self._held[0].at_s + WINDOW_S <= now_s:
            self._used -= self._held.popleft().units


def new_limit(kind: LimitKind, per_minute: int, burst_s: float) -> Limit | None:
    """A limit of which nothing is taken yet; None for 0, which is no limit."""
    if not per_minute:
        return None
    match kind:
        case LimitKind.TOKEN_BUCKET:
            return TokenBucket(per_minute, burst_s)
        case LimitKind.FIXED_WINDOW:
            return FixedWindow(per_minute)
        case LimitKind.SLIDING_LOG:
            return SlidingLog(per_minute)
