"""The rate of one worker: the shares of the partitions it owns, in one pair of buckets. Pure: time is an argument.

Each partition of the escalation topic carries its share of the endpoint's limits, so the workers together never pass
them, and nobody has to ask anybody. A gained partition brings no level with it: its last owner may just have spent
everything. The shares of one worker are one pool, which a call takes from as a whole:

* A call that is larger than a partition's second of tokens needs no debt where the worker owns several.
* What is given back after a call finds room: one partition's bucket is full after a second, the pool seldom is.
* A debt stays with the worker when partitions leave; their new owner starts at 0 and not below.

The bound, per worker and for each limit, over every window of T seconds in which it owns the same partitions:

    charged <= rate * T + burst + max(0, one call - burst)     rate = limit / 60 * 60/61, burst = rate * 1 s

A provider does not see what we charge but what it counts, and it sees calls when they arrive. So there is a second
guard: what was sent in the last 60 s, by the best knowledge of now, must fit into the minute's limit, less what
the estimates of the calls in flight may be wrong by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.escalate.last_minute import MINUTE_S, LastMinute
from stream_app.escalate.token_bucket import REFILL_SHARE, Bucket

if TYPE_CHECKING:
    from stream_app.escalate.last_minute import Slot
    from stream_app.escalate.token_bucket import Limits

FULL = 0.999
MISS_CALLS = 50.0
"""How many calls the spread of the estimates' errors is averaged over."""
MISSES = 3.5
"""How many standard deviations of the errors in flight the guard keeps free: with 3, one run of ten minutes in ten
saw a 429 from a sliding log; with 3.5, one in a hundred (tests/escalate/providers.py, errors of +-30 %)."""
MISSES_LEARNT = 0.5
"""Where the limit itself was learnt from 429s it is known to a call or two, and a 429 now and then is part of it."""
ENDING_S = 0.3
"""For so long calls may have ended at the provider without this worker knowing of it."""
GUARD_MIN = 0.9
"""The guard never keeps more free than a tenth."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What of the configured limits is real, as far as is known: each in (0, 1]."""

    requests: float = 1.0
    tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call took, when in the life of the pool, and where it stands in the last minute."""

    tokens: int
    held: int
    losses: int
    shares: int
    slot: Slot


@dataclass(slots=True)
class OwnedShares:
    """The limiter of one endpoint in one worker. `share` is one partition's part of the configured limits.

    The last minute is kept per share owned, so that it stays true when partitions come and go: the history of a
    gained share is taken to be like that of the others.
    """

    share: Limits
    partitions: int
    factors: Factors = field(default_factory=Factors)
    counts_at_end: bool = False
    """True for a provider that counts a call's tokens only when it ends."""
    misses: float = MISSES
    in_flight: int = 0
    losses: int = 0
    requests: Bucket = field(default_factory=lambda: Bucket(0.0, 0.0))
    tokens: Bucket = field(default_factory=lambda: Bucket(0.0, 0.0))
    _minute_requests: LastMinute = field(default_factory=LastMinute)
    _minute_tokens: LastMinute = field(default_factory=LastMinute)
    _minute_ended: LastMinute = field(default_factory=LastMinute)
    _miss_squared: float = 0.0
    _owned: set[int] = field(default_factory=set[int])

    @property
    def owned(self) -> int:
        """How many partitions' shares there are."""
        return len(self._owned)

    def gain(self, partition: int, now_s: float) -> None:
        """A partition is owned from now on: its share refills from now on, and brings nothing."""
        self._refill(now_s)
        self._owned.add(partition)
        self._set_rates()

    def lose(self, partition: int) -> None:
        """A partition is owned no more: its part of the level leaves with it, a debt stays."""
        if partition not in self._owned:
            return
        kept = 1 - 1 / len(self._owned)
        self._owned.discard(partition)
        self.losses += 1
        for bucket in (self.requests, self.tokens):
            bucket.level = min(bucket.level, bucket.level * kept)
        self._set_rates()

    def correct(self, factors: Factors, now_s: float) -> None:
        """From now on the configured limits count for so much."""
        if factors == self.factors:
            return
        self._refill(now_s)
        full = [bucket.level >= bucket.size * FULL for bucket in (self.requests, self.tokens)]
        self.factors = factors
        self._set_rates()
        for bucket, was_full in zip((self.requests, self.tokens), full, strict=True):
            if was_full:  # else a call larger than the bucket waits for as long as the bucket grows
                bucket.level = bucket.size

    def forget_minute(self, misses: float) -> None:
        """The provider has just shown when it admits: what was sent before no longer matters."""
        self._minute_requests, self._minute_tokens, self._minute_ended = LastMinute(), LastMinute(), LastMinute()
        self.misses = misses

    def wait_s(self, tokens: int, now_s: float, held: int | None = None, *, spare: bool = False) -> float:
        """How long until a call of `tokens` may start: 0 if now, infinite while nothing is owned.

        `held` is what the provider counts while the call is in flight, where that is more. A `spare` call goes when
        the buckets are full: it takes what would run over, so whoever comes after it finds all but this one call.
        """
        if not self._owned:
            return math.inf
        self._refill(now_s)
        level = (self.requests.size, self.tokens.size) if spare else (1, tokens)
        paced_s = max(self.requests.wait_s(level[0]), self.tokens.wait_s(level[1]))
        return paced_s if paced_s > 0 else self._minute_wait_s(held or tokens, now_s)

    def reserve(self, tokens: int, now_s: float, held: int | None = None) -> Reservation:
        """Takes one request and `tokens`. Call it only when `wait_s` is 0."""
        self.requests.take(1)
        self.tokens.take(tokens)
        self.in_flight += 1
        shares = len(self._owned)
        self._minute_requests.add(1 / shares, now_s)
        held = held or tokens
        return Reservation(tokens, held, self.losses, shares, self._minute_tokens.add(held / shares, now_s))

    def settle(self, reservation: Reservation, counted_tokens: int, now_s: float) -> None:
        """Replaces a reservation by what the provider counted: 0 for a call that it refused.

        The request stays charged even then, for OpenAI counts unsuccessful requests. A reservation from before
        partitions were lost gives nothing back: somebody else spends those shares now.
        """
        unused = reservation.tokens - counted_tokens
        self.in_flight -= 1
        if counted_tokens > 0:
            self._miss_squared += (unused**2 - self._miss_squared) / MISS_CALLS
        self._minute_tokens.correct(reservation.slot, (counted_tokens - reservation.held) / reservation.shares)
        if self.counts_at_end:
            self._minute_ended.add(counted_tokens / reservation.shares, now_s)
        if unused < 0 or reservation.losses == self.losses:
            self.tokens.refill(now_s)
            self.tokens.give_back(unused)

    def _minute_wait_s(self, tokens: int, now_s: float) -> float:
        """How long until the call fits into the last 60 s.

        The errors of several workers add up like the sides of a right angle: each keeps its part of the whole free.
        """
        shares = len(self._owned)
        requests = self.share.requests_per_minute * self.factors.requests
        each = self.share.tokens_per_minute * self.factors.tokens
        spread = math.sqrt(self.in_flight * self._miss_squared * shares / self.partitions)
        room = max(GUARD_MIN * each, each - self.misses * spread / shares)
        return max(
            self._minute_requests.room_in_s(1 / shares, requests, now_s),
            self._minute_tokens.room_in_s(tokens / shares, room, now_s),
            self._minute_ended.room_in_s(each * ENDING_S / MINUTE_S, each, now_s),
        )

    def _refill(self, now_s: float) -> None:
        self.requests.refill(now_s)
        self.tokens.refill(now_s)

    def _set_rates(self) -> None:
        per_s = REFILL_SHARE / 60 * len(self._owned)
        self.requests.rate_per_s = self.share.requests_per_minute * per_s * self.factors.requests
        self.tokens.rate_per_s = self.share.tokens_per_minute * per_s * self.factors.tokens
        for bucket in (self.requests, self.tokens):
            bucket.level = min(bucket.level, bucket.size)
