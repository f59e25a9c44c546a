"""A limit of so many units a minute, and the token bucket that paces calls under it. Pure: time is an argument.

A bucket starts empty, holds at most one second of its refill, and is refilled at 60/61 of the limit. Over every
window of T seconds

    spent <= rate * T + burst + one call        with rate = limit / 60 * 60/61, burst = rate * 1 s

so that over 60 s rate * 60 + burst is the limit itself. The "one call" is debt: a call larger than the bucket
may go once the bucket is full, takes the level below zero, and nothing follows before that is repaid.
"""

from __future__ import annotations

from dataclasses import dataclass

REFILL_SHARE = 60 / 61
"""With at most 1 s of burst, 60/61 of the limit is the largest rate that cannot overfill a 60 s window."""
BURST_S = 1.0
ROUNDING = 1e-9
"""Levels are floats: a bucket this close to full, in parts of its size, is full."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An endpoint's limits, for the whole fleet."""

    requests_per_minute: float
    tokens_per_minute: float

    def share(self, partitions: int) -> Limits:
        """One partition's part of them."""
        return Limits(self.requests_per_minute / partitions, self.tokens_per_minute / partitions)


@dataclass(slots=True)
class Bucket:
    """A token bucket that starts empty. `level` below zero is debt."""

    rate_per_s: float
    at_s: float
    level: float = 0.0

    @property
    def size(self) -> float:
        """The most it holds: one second of refill."""
        return self.rate_per_s * BURST_S

    def refill(self, now_s: float) -> None:
        """Brings the level up to `now_s`; a clock that ran back adds nothing."""
        if now_s > self.at_s:
            self.level = min(self.size, self.level + self.rate_per_s * (now_s - self.at_s))
            self.at_s = now_s

    def wait_s(self, amount: float) -> float:
        """How long until `amount` may be taken (as of the last refill): 0 if now."""
        needed = min(amount, self.size) * (1 - ROUNDING)
        return max(0.0, (needed - self.level) / self.rate_per_s)

    def take(self, amount: float) -> None:
        """Takes `amount`, into debt if it is more than there is."""
        self.level -= amount

    def give_back(self, amount: float) -> None:
        """Returns what was reserved and not used."""
        self.level = min(self.size, self.level + amount)
