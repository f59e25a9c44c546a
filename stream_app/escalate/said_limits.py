"""What rate headers say of a limit, turned into how much of the configured one to use. Pure: time is an argument.

A `limit` below the configured one is the truth, at once; above it the configured one is kept. `remaining` tells
that somebody else spends with the same key. By how much depends on the provider's rule, which shows in `reset`:

    token bucket   reset is what is spent, at the rate of the limit. Use remaining / spent of the limit, at most all:
                   below one half it slows down in proportion, and settles where refill and spending meet. With
                   answers 5 s old the loop's gain is 0.2, so it does not swing.
    windows        spent, less what this fleet sent in the last 60 s, is what others spent. The most of the last
                   60 s counts (a fixed window shows it at its end only), and does not depend on what we do: so this
                   cannot swing either.

The fleet's spending is taken to be this worker's, by its part of the partitions, once it has owned the same ones for
a minute: before that it does not know. Less than `DEADBAND` is taken for that guess's error.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.escalate.rate_headers import Allowance

MINUTE_S = 60.0
DEADBAND = 0.05
SHARE_MIN = 0.1
"""However much others spend, this much is tried: else nothing would be heard again."""
VOTES = 8
"""So many headers in a row must look like a token bucket's."""
VOTE_SPENT_MIN, VOTE_SPENT_MAX = 0.05, 0.8
"""An empty account looks like every rule's, and a sliding log that is nearly full has the reset of a bucket."""
PEAK_SLOT_S = 5.0
FULL_MIN = 0.5
"""Where no more than half of the limit was ever left, the account holds less than a minute, and what is missing from
the limit says nothing about others."""


@dataclass(slots=True)
class SaidLimit:
    """One limit. Shares are parts of the configured limit."""

    limit: float = 1.0
    said_at_s: float = -math.inf
    votes: int = 0
    _left: float = 1.0
    _left_max: float = 0.0
    _peaks: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])

    def said(self, allowance: Allowance, configured: float, own: float | None, sent_s: float) -> None:
        """A call sent at `sent_s` came back with this. `own` is what this worker sent in the last 60 s, in shares.
        None where that says nothing of what the fleet sent.

        Answers overtake each other: what an older call says is not listened to.
        """
        if sent_s < self.said_at_s or allowance.limit_per_minute is None:
            return
        self.said_at_s = sent_s
        self.limit = min(1.0, allowance.limit_per_minute / configured)
        if allowance.remaining is None:
            return
        spent = 1 - allowance.remaining / allowance.limit_per_minute
        self._vote(spent, allowance.reset_s)
        self._left = 1 - spent
        self._left_max = max(self._left_max, self._left)
        if own is None:
            return
        others = spent - own * configured / allowance.limit_per_minute
        if not self._peaks or sent_s - self._peaks[-1][0] >= PEAK_SLOT_S:
            self._peaks.append((sent_s, others))
        elif others > self._peaks[-1][1]:
            self._peaks[-1] = (self._peaks[-1][0], others)

    def share(self, now_s: float) -> float:
        """How much of the configured limit to use now."""
        while self._peaks and self._peaks[0][0] <= now_s - MINUTE_S - PEAK_SLOT_S:
            self._peaks.popleft()
        if not self._peaks or self._left_max < FULL_MIN:
            return self.limit
        if self.votes >= VOTES:
            kept = min(1.0, self._left / max(1e-9, 1 - self._left))
        else:
            most = max(others for _, others in self._peaks)
            kept = 1 - most if most > DEADBAND else 1.0
        return self.limit * max(SHARE_MIN, kept)

    def _vote(self, spent: float, reset_s: float | None) -> None:
        if reset_s is None or not VOTE_SPENT_MIN <= spent <= VOTE_SPENT_MAX:
            return
        like_bucket = abs(reset_s - spent * MINUTE_S) <= max(1.0, 0.1 * reset_s)
        self.votes = self.votes + 1 if like_bucket else 0
