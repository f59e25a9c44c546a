"""Requests and tokens a minute, shared by all workers without another server. Pure: time is an argument.

A bucket belongs to a *partition* of the escalation topic and holds its share of the endpoint's limits. A worker
spends from the buckets of the partitions it owns, so the workers together never pass the limit, and nobody has
to ask anybody. A partition that is gained starts empty: its last owner may just have spent everything.

The bound, per partition and for each of the two limits: over every window of T seconds,

    spent <= rate * T + burst + one call        with rate = limit / 60 * 60/61, burst = rate * 1 s

so that over 60 s rate * 60 + burst is the limit itself. The "one call" is debt: a call larger than the bucket
may go once the bucket is full, takes the level below zero, and nothing follows before that is repaid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(slots=True)
class PartitionBuckets:
    """One partition's two buckets. `settle` corrects an estimate; what was unknown stays spent."""

    requests: Bucket
    tokens: Bucket

    @classmethod
    def empty(cls, share: Limits, now_s: float) -> PartitionBuckets:
        """Both buckets of a partition that was just gained."""
        per_s = REFILL_SHARE / 60
        return cls(Bucket(share.requests_per_minute * per_s, now_s), Bucket(share.tokens_per_minute * per_s, now_s))

    def wait_s(self, tokens: int, now_s: float) -> float:
        """How long until a call of `tokens` may start: 0 if now."""
        self.requests.refill(now_s)
        self.tokens.refill(now_s)
        return max(self.requests.wait_s(1), self.tokens.wait_s(tokens))

    def reserve(self, tokens: int) -> None:
        """Takes one request and `tokens`. Call it only when `wait_s` is 0."""
        self.requests.take(1)
        self.tokens.take(tokens)

    def settle(self, reserved_tokens: int, used_tokens: int, now_s: float) -> None:
        """Replaces the reservation by what the call used, more or less."""
        self.tokens.refill(now_s)
        self.tokens.give_back(reserved_tokens - used_tokens)


@dataclass(slots=True)
class RateLimiter:
    """The buckets of the owned partitions of one endpoint, and the hold that a 429 puts on all of them."""

    share: Limits
    held_until_s: float = 0.0
    _buckets: dict[int, PartitionBuckets] = field(default_factory=dict[int, PartitionBuckets])

    def gain(self, partition: int, now_s: float) -> None:
        """A partition is owned from now on; its buckets start empty."""
        self._buckets[partition] = PartitionBuckets.empty(self.share, now_s)

    def lose(self, partition: int) -> None:
        """A partition is owned no more; what was reserved from it stays spent."""
        self._buckets.pop(partition, None)

    def hold(self, until_s: float) -> None:
        """No call of this endpoint before `until_s` (Retry-After speaks to all callers of a key)."""
        self.held_until_s = max(self.held_until_s, until_s)

    def wait_s(self, partition: int, tokens: int, now_s: float) -> float:
        """How long until `partition` may start a call of `tokens`: 0 if now, infinite if it is not owned."""
        buckets = self._buckets.get(partition)
        if buckets is None:
            return float("inf")
        return max(self.held_until_s - now_s, buckets.wait_s(tokens, now_s), 0.0)

    def reserve(self, partition: int, tokens: int) -> PartitionBuckets:
        """Takes one request and `tokens` from an owned partition whose `wait_s` is 0; says where to settle."""
        buckets = self._buckets[partition]
        buckets.reserve(tokens)
        return buckets
