"""What refusals tell of a limit: an estimate, from what was admitted before them. Pure: time is an argument.

Calls are logged by when they were sent, refused ones taken out again. A *refusal* begins with a 429 and ends with
the first call that is admitted again; in between nothing is sent but one probe at a time. At its end two numbers
are known, and for each of the usual rules one is exact while the other is exact or too large:

    last     admitted in the 60 s before the probe that was admitted
                 sliding log: the limit, since one more was refused
                 fixed window: the limit, since calls are admitted again from a window's start on
                 token bucket: the limit, and what was left in the bucket a minute ago
    since    admitted since the last refusal, a minute
                 token bucket: the limit, since it was empty both times
                 the other two: the rate that was too much

so the smaller one is the limit. A window shows itself by refusing the first probes, which come soon: then, and for
`WINDOW_S` after, `last` counts alone. `since` needs `CALLS_MIN` calls: a refusal that is over soon with fewer tells
nothing yet, `since` goes on, and the next probe waits longer. Only the first refusal has no `since`. There a token
bucket gives itself away by admitting again when, by both other rules, nothing could be free; its size is taken to be
a minute, as OpenAI's is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.escalate.last_minute import MINUTE_S
from stream_app.escalate.limit_belief import Judgement

if TYPE_CHECKING:
    from stream_app.escalate.limit_belief import Account

CALLS_MIN = 12
"""Fewer calls than this measure nothing."""
CALLS_AGREE_MIN, CALLS_AGREE_WITHIN = 5, 0.03
"""Unless the minute's count, of at least so many, comes out the same twice."""
STORED_S = 10.0
"""A bucket overflows while the rate climbs for long, and `since` is too small then: what was believed half as
long ago, at most two minutes, was admitted."""
LATE = 1.05
"""A probe went late where the minute before the last refused call took so much more."""
WINDOW_S = 120.0
"""For so long it is remembered that a window refused."""
PATIENCE_MAX = 3
"""Refusals that tell nothing make the first probes wait twice as long, so many times."""
BUCKET_MIN = 0.6
"""A token bucket gives half of what it gave a minute at least; where much less came, a window is what refuses."""
PRESSED_S, PRESSED_CALLS, PRESSED_SHARE = 10.0, 5, 0.7
"""Calls went as fast as they may where so long, or for so many calls, at least such a share of the belief went."""
GRACE_MIN_S = 0.25
"""A refusal comes at once, an answer after seconds: a probe that was not refused for this long, or for three times as
long as refusals took so far, was admitted."""
PROBES_S = (1.0, 2.0)
"""The first probes: a token bucket admits again after that; for a window they are two more refusals."""


@dataclass(slots=True)
class Evidence:
    """When calls of one endpoint went, were refused and admitted again. Pairs are of requests and of tokens."""

    first_sent_s: float | None = None
    refused_at_s: float = 0.0
    """When the call went whose 429 began the last refusal."""
    attempt_s: float = 0.0
    """When the last call went that was refused."""
    minute_before: tuple[float, float] = (0.0, 0.0)
    """What the minute before that took."""
    empty_s: float = 0.0
    """`attempt_s` of the last refusal that told something: a bucket was empty then."""
    window_s: float = -math.inf
    """When a refusal ended last that only a window explains."""
    open_since_s: float = -math.inf
    """When the last refusal ended."""
    since_s: float = -math.inf
    """From when on the accounts count what was admitted since."""
    calls_since: int = 0
    untold: int = 0
    """How many refusals told nothing since."""
    wall_ahead_s: float = 0.0
    pressed: tuple[bool, bool] = (False, False)

    @property
    def patience(self) -> int:
        """How much longer is waited where the refusals before told nothing: what comes in meanwhile tells."""
        return 2 ** min(PATIENCE_MAX, self.untold)

    def presses(self, account: Account, call: float, said: float) -> bool:
        """True where calls went about as fast as what is believed lets them, in the seconds before the refusal."""
        believed, at_s = min(said, account.share(self.refused_at_s)), self.refused_at_s
        calls_s = PRESSED_CALLS * call * MINUTE_S / believed
        since_s = max(self.open_since_s, self.first_sent_s or 0.0, at_s - min(MINUTE_S, max(PRESSED_S, calls_s)))
        went = account.log.between(since_s, math.inf) + call
        return went >= PRESSED_SHARE * believed * (at_s - since_s) / MINUTE_S

    def judged(self, account: Account, last: float, call: float, now_s: float, *, tokens: bool) -> Judgement | None:
        """An estimate of the limit, from a minute's count and from what was admitted since; None if nothing tells."""
        gap_s, edge_s = now_s - self.refused_at_s, (now_s + self.wall_ahead_s) % MINUTE_S
        prompt = gap_s <= sum(PROBES_S) * self.patience + 2 * GRACE_MIN_S
        bucket = prompt and edge_s >= gap_s and self.refused_at_s > self.window_s + WINDOW_S
        believed = account.share(self.refused_at_s)
        counted, flows = last + call / 2, last >= CALLS_MIN * call
        if bucket and (self.calls_since <= CALLS_MIN or not flows):
            return None
        before = self.minute_before[tokens]
        estimate, upper = counted, (before if before > LATE * last else last) + call
        if bucket:
            estimate, upper = self._of_bucket(account, last, call, gap_s) or (estimate, upper)
        elif not flows:
            near = abs(counted - account.belief.estimate) <= max(call, CALLS_AGREE_WITHIN * counted)
            flows = near and last >= CALLS_AGREE_MIN * call
        return Judgement(
            min(believed, estimate),
            min(believed, max(estimate, upper)),
            measured=flows,
            prompt=prompt,
            pressed=self.pressed[tokens],
            believed=believed,
        )

    def _of_bucket(self, account: Account, last: float, call: float, gap_s: float) -> tuple[float, float] | None:
        """A token bucket's limit, and the most that it may be; None where the minute's count alone tells."""
        if self.since_s == -math.inf:
            elapsed_s = self.refused_at_s - (self.first_sent_s or 0.0)
            if elapsed_s >= MINUTE_S - gap_s:
                return None
            estimate = last / (1 + elapsed_s / MINUTE_S)
            return estimate, estimate
        since = account.since * MINUTE_S / max(1e-3, self.refused_at_s - self.empty_s)
        open_s = self.refused_at_s - self.open_since_s
        if open_s >= STORED_S:
            since = max(since, account.share(self.refused_at_s - min(2 * MINUTE_S, open_s / 2)))
        if since < BUCKET_MIN * last:
            return None
        estimate = min(last + call / 2, since)
        shrunk = (account.belief.upper / account.belief.base) ** 0.25
        return estimate, estimate * max(shrunk, 1 + 0.5 / (self.calls_since - 1))
