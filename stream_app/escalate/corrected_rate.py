"""All that decides when a worker's next call to an endpoint may start, as far as rates go. Pure.

    OwnedShares    the configured limits, by partitions owned
    SaidLimit      how much of them the headers leave, for requests and for tokens
    RateLearner    how much of them 429s leave, and when to try again after one

The least of the three counts. Tell every call's start and end, and every response's headers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.escalate.last_minute import MINUTE_S, NETWORK_S
from stream_app.escalate.owned_shares import MISSES_LEARNT, Factors, OwnedShares
from stream_app.escalate.rate_learner import RateLearner
from stream_app.escalate.said_limits import SaidLimit

if TYPE_CHECKING:
    from stream_app.escalate.owned_shares import Reservation
    from stream_app.escalate.rate_headers import Allowance, RateHeaders
    from stream_app.escalate.rate_learner import Sent
    from stream_app.escalate.token_bucket import Limits

FACTOR_STEP = 0.001
"""Smaller changes of a limit than a tenth of a per cent wait until they are one."""


SETTLES_S = MINUTE_S + 2 * NETWORK_S
"""After partitions came or went, a worker's last minute says for so long nothing of what the fleet sent in it."""
ROOM = 2.0
"""A 429 that says there is room for twice the call is not for that limit."""


@dataclass(frozen=True, slots=True)
class Started:
    """A call under way; give it to exactly one of `answered`, `refused` and `lost`."""

    reservation: Reservation
    sent: Sent
    tokens_per_minute: float


@dataclass(slots=True)
class CorrectedRate:
    """The rate of one endpoint in one worker."""

    configured: Limits
    partitions: int
    counts_at_end: bool = False
    shares: OwnedShares = field(init=False)
    learner: RateLearner = field(default_factory=RateLearner)
    said_requests: SaidLimit = field(default_factory=SaidLimit)
    said_tokens: SaidLimit = field(default_factory=SaidLimit)
    _refusals_ended: int = 0
    _settled_at_s: float = math.inf  # when the first minute of owning the same partitions is over

    def __post_init__(self) -> None:
        """The worker owns nothing yet."""
        share = self.configured.share(self.partitions)
        self.shares = OwnedShares(share, self.partitions, counts_at_end=self.counts_at_end)

    def gain(self, partition: int, now_s: float) -> None:
        """A partition is owned from now on."""
        self.shares.gain(partition, now_s)
        self._settled_at_s = math.inf

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        self.shares.lose(partition)
        self._settled_at_s = math.inf

    def wait_s(self, tokens: int, now_s: float, held: int | None = None, *, spare: bool = False) -> float:
        """How long until a call of `tokens` may start: 0 if now, infinite while nothing is owned.

        A `spare` call takes only what others leave (`OwnedShares.wait_s`).
        """
        refused_s = self.learner.wait_s(now_s)
        if self.learner.ended != self._refusals_ended:
            self._refusals_ended = self.learner.ended
            self.shares.forget_minute(MISSES_LEARNT)
        self._correct(now_s)
        return max(refused_s, self.shares.wait_s(tokens, now_s, held, spare=spare))

    def start(self, tokens: int, now_s: float, held: int | None = None) -> Started:
        """A call of `tokens` goes now; `wait_s` was 0."""
        limits, owned = self.shares.share, self.shares.owned
        if self._settled_at_s == math.inf:
            self._settled_at_s = now_s + SETTLES_S
        requests, tokens_per_minute = limits.requests_per_minute * owned, limits.tokens_per_minute * owned
        reservation = self.shares.reserve(tokens, now_s, held)
        return Started(
            reservation, self.learner.sent(1 / requests, tokens / tokens_per_minute, now_s), tokens_per_minute
        )

    def answered(self, started: Started, counted_tokens: int, headers: RateHeaders, now_s: float) -> None:
        """The provider admitted the call and counted so many tokens."""
        self.learner.counted(started.sent, counted_tokens / started.tokens_per_minute)
        self.learner.admitted(started.sent)
        self._settle(started, counted_tokens, headers, now_s)

    def refused(self, started: Started, headers: RateHeaders, now_s: float, wall_s: float) -> None:
        """A 429: the call is not charged, and what `headers` say about coming again is obeyed by every call."""
        said = _has_room(headers.requests, 1), _has_room(headers.tokens, started.reservation.held)
        room = False if False in said else None if None in said else True
        left = self.said_requests.share(now_s), self.said_tokens.share(now_s)
        self.learner.refused(started.sent, now_s, wall_s, headers.retry_after_s, room=room, said=left)
        self._settle(started, 0, headers, now_s)

    def lost(self, started: Started, now_s: float) -> None:
        """Nobody knows what became of the call: it counts as estimated."""
        self.learner.lost(started.sent, now_s)
        self.shares.settle(started.reservation, started.reservation.tokens, now_s)

    def factors(self, now_s: float) -> Factors:
        """How much of the configured limits is used now: a gauge."""
        return Factors(
            min(self.said_requests.share(now_s), self.learner.requests.share(now_s)),
            min(self.said_tokens.share(now_s), self.learner.tokens.share(now_s)),
        )

    def _settle(self, started: Started, counted_tokens: int, headers: RateHeaders, now_s: float) -> None:
        self.shares.settle(started.reservation, counted_tokens, now_s)
        limits, sent_s = self.configured, started.sent.at_s
        learner = self.learner
        settled = sent_s >= self._settled_at_s
        requests, tokens = (one.log.total if settled else None for one in (learner.requests, learner.tokens))
        self.said_requests.said(headers.requests, limits.requests_per_minute, requests, sent_s)
        self.said_tokens.said(headers.tokens, limits.tokens_per_minute, tokens, sent_s)

    def _correct(self, now_s: float) -> None:
        new, old = self.factors(now_s), self.shares.factors
        if abs(new.requests / old.requests - 1) >= FACTOR_STEP or abs(new.tokens / old.tokens - 1) >= FACTOR_STEP:
            self.shares.correct(new, now_s)


def _has_room(allowance: Allowance, amount: float) -> bool | None:
    """Whether this much is said to be left; None where that is not known, or within our estimate's error."""
    left = allowance.remaining
    return None if left is None or amount <= left < ROOM * amount else left >= amount
