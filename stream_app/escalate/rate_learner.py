"""What of a configured limit is real, learnt from 429s alone. Pure: time is an argument.

Amounts are *shares*: 1.0 is what the configured limit lets this worker's partitions use in a minute. So what was
learnt stays true when partitions come and go, and no worker needs to ask another.

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

so the smaller one is the limit. Only the first refusal has no `since`. There a token bucket gives itself away by
admitting again when, by both other rules, nothing could be free; its size is taken to be a minute, as OpenAI's is,
and the doubt is large. The estimate climbs through its doubt in half a minute, and beyond that very slowly, because
every refusal costs calls: each refusal that confirms the last estimate halves the climb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto

from stream_app.escalate.last_minute import MINUTE_S, LastMinute, Slot

MARGIN = 0.005
"""How far below an estimate to begin: half a per cent is one call of 200, the estimate's own rounding."""
SHARE_MIN = 0.002
"""The least that is ever believed: a worker that asks for nothing learns nothing."""
CALLS_MIN = 12
"""Fewer calls than this since the last refusal measure nothing: the rate is lowered by `STEP_DOWN` instead."""
STEP_DOWN = 0.8
STORED_S, STORED_SHARE = 5.0, 0.9
"""A small bucket overflows while the rate climbs, and `since` is too small then; the rate of 5 s ago is nearer."""
DOUBT_S = 20.0
"""How long the climb from an estimate to its upper end takes."""
CLIMB_PER_MINUTE, CLIMB_MIN_PER_MINUTE = 0.004, 0.0005
"""The climb in the first minute after that; every minute without a refusal doubles it, so that a limit which was
raised is found within ten. With 2.1 % of slack (60/61 and the margin) a right estimate is refused again after three
minutes at the earliest, then four, five, six: three times in ten minutes."""
CLIMB_DOUBLINGS_MAX = 12.0
"""Where the doubling stops: long before a float would overflow, long after every limit was reached."""
CONFIRMED_WITHIN = 0.03
"""Two estimates so close are the same limit."""
GRACE_MIN_S = 0.25
"""A refusal comes at once, an answer after seconds: a probe that was not refused for this long, or for three times as
long as refusals took so far, was admitted."""
PROBES_S = (1.0, 2.0)
"""The first probes: a token bucket admits again after that; for a window they are two more refusals."""
PROBE_LATER_S, PROBE_LATER_MAX_S = 5.0, 60.0
EDGE_S = 0.15
"""A probe at a window's edge goes so much later: clocks differ."""


@dataclass(slots=True)
class Sent:
    """A call as it was logged."""

    at_s: float
    requests: float
    tokens: float
    slots: tuple[Slot, Slot]


class Phase(Enum):
    """Whether calls may go."""

    OPEN = auto()
    HELD = auto()  # refused; the next probe goes at `probe_at_s`
    PROBING = auto()  # one call is under way and tells


@dataclass(slots=True)
class Account:
    """One limit: what was admitted under it, and what it is believed to be."""

    estimate: float = math.inf
    base: float = 1.0
    upper: float = 1.0
    base_at_s: float = 0.0
    climb: float = CLIMB_PER_MINUTE
    since: float = 0.0
    log: LastMinute = field(default_factory=LastMinute)

    def share(self, now_s: float) -> float:
        """What is believed at `now_s`, at most 1."""
        if self.estimate == math.inf:
            return 1.0
        age_s = now_s - self.base_at_s
        doubt = (self.upper / self.base) ** min(1.0, age_s / DOUBT_S)
        minutes = min(CLIMB_DOUBLINGS_MAX, max(0.0, age_s - DOUBT_S) / MINUTE_S)
        slowly = 1 + self.climb * (2**minutes - 1)
        return min(1.0, self.base * doubt * slowly)

    def believe(self, estimate: float, upper: float, now_s: float) -> None:
        """A refusal has told this."""
        confirmed = abs(estimate - self.estimate) <= CONFIRMED_WITHIN * estimate
        self.climb = max(CLIMB_MIN_PER_MINUTE, self.climb / 2) if confirmed else CLIMB_PER_MINUTE
        self.estimate = estimate
        self.base = min(1.0, max(SHARE_MIN, estimate * (1 - MARGIN)))
        self.upper = max(self.base, upper)
        self.base_at_s = now_s


@dataclass(slots=True)
class RateLearner:
    """One endpoint in one worker. Ask `wait_s` before a call, tell `sent`, then `refused`, `admitted` or `lost`."""

    requests: Account = field(default_factory=Account)
    tokens: Account = field(default_factory=Account)
    phase: Phase = Phase.OPEN
    refusals: int = 0
    ended: int = 0
    _probe_at_s: float = 0.0
    _probe: Sent | None = None
    _probes: int = 0
    _refused_at_s: float = 0.0
    _open_since_s: float = -math.inf  # when the last refusal ended
    _calls_since: int = 0
    _grace_s: float = GRACE_MIN_S
    _first_sent_s: float | None = None
    _aligned: bool = False  # the last refusal ended with a minute of the wall clock
    _wall_ahead_s: float = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until a call may go as far as refusals are concerned: 0 if now."""
        if self.phase is Phase.PROBING and self._probe is not None:
            if now_s < self._probe.at_s + self._grace_s:
                return self._probe.at_s + self._grace_s - now_s
            self._ends(self._probe)
        return max(0.0, self._probe_at_s - now_s) if self.phase is Phase.HELD else 0.0

    def sent(self, requests: float, tokens: float, now_s: float) -> Sent:
        """A call goes now; `wait_s` was 0."""
        slots = self.requests.log.add(requests, now_s), self.tokens.log.add(tokens, now_s)
        sent = Sent(now_s, requests, tokens, slots)
        self.requests.since += requests
        self.tokens.since += tokens
        self._calls_since += 1
        if self._first_sent_s is None:
            self._first_sent_s = now_s
        if self.phase is Phase.HELD:
            self.phase, self._probe = Phase.PROBING, sent
        return sent

    def counted(self, sent: Sent, tokens: float) -> None:
        """What the provider counted for a call, where it was estimated before."""
        self.tokens.log.correct(sent.slots[1], tokens - sent.tokens)
        self.tokens.since += tokens - sent.tokens if sent.at_s >= self._open_since_s else 0.0
        sent.tokens = tokens

    def admitted(self, sent: Sent) -> None:
        """A call was answered."""
        if sent is self._probe and self.phase is Phase.PROBING:
            self._ends(sent)

    def lost(self, sent: Sent, now_s: float) -> None:
        """Nobody knows whether a call was admitted: it counts as if. A probe told nothing: the next call is one."""
        if sent is self._probe and self.phase is Phase.PROBING:
            self.phase, self._probe, self._probe_at_s = Phase.HELD, None, now_s

    def refused(self, sent: Sent, now_s: float, wall_s: float, retry_after_s: float | None = None) -> None:
        """A call came back with a 429."""
        self._take_out(sent)
        self._wall_ahead_s = wall_s - now_s
        self._grace_s = max(self._grace_s, min(2.0, 3 * (now_s - sent.at_s)))
        match self.phase:
            case Phase.OPEN if sent.at_s > self._open_since_s:
                self.refusals += 1
                self._probes = 0
                self._refused_at_s = sent.at_s
            case Phase.PROBING if sent is self._probe:
                self._probes += 1
            case Phase.HELD:  # sent before the hold: it may know of a longer wait
                self._probe_at_s = max(self._probe_at_s, now_s + (retry_after_s or 0.0))
                return
            case _:
                return  # sent before the last refusal ended, or before the probe that tells
        self.phase, self._probe = Phase.HELD, None
        self._probe_at_s = now_s + retry_after_s if retry_after_s is not None else self._next_probe_s(now_s)

    def _take_out(self, sent: Sent) -> None:
        self.requests.log.correct(sent.slots[0], -sent.requests)
        self.tokens.log.correct(sent.slots[1], -sent.tokens)
        if sent.at_s >= self._open_since_s:
            self.requests.since -= sent.requests
            self.tokens.since -= sent.tokens
            self._calls_since -= 1

    def _next_probe_s(self, now_s: float) -> float:
        """Soon, in case it is a bucket; then where a window of either kind would admit again; then ever later."""
        edge_s = now_s + MINUTE_S - (now_s + self._wall_ahead_s) % MINUTE_S + EDGE_S
        if self._aligned:
            return edge_s
        if self._probes < len(PROBES_S):
            return now_s + PROBES_S[self._probes]
        oldest_s = self.requests.log.oldest_s(now_s)
        free_s = math.inf if oldest_s is None else oldest_s + MINUTE_S + EDGE_S
        nearest_s = min((one for one in (edge_s, free_s) if one > now_s + EDGE_S), default=math.inf)
        later_s = PROBE_LATER_S * 2 ** max(0, self._probes - 4)
        return (
            min(nearest_s, now_s + PROBE_LATER_MAX_S) if self._probes < 5 else now_s + min(PROBE_LATER_MAX_S, later_s)
        )

    def _ends(self, probe: Sent) -> None:
        """The refusal is over: judge it."""
        account, last, call = self._binding(probe)
        account.believe(*self._judged(account, last, call, probe.at_s), probe.at_s)
        edge_s = (probe.at_s + self._wall_ahead_s) % MINUTE_S
        self._aligned = probe.at_s - self._refused_at_s > sum(PROBES_S) and edge_s < 4 * EDGE_S
        self.phase, self._probe = Phase.OPEN, None
        self._open_since_s = probe.at_s
        self.ended += 1
        self.requests.since, self.tokens.since = probe.requests, probe.tokens
        self._calls_since = 1

    def _binding(self, probe: Sent) -> tuple[Account, float, float]:
        """The limit that refused, as far as can be told: the one that was used most of what is believed of it."""
        found: list[tuple[float, Account, float, float]] = []
        for account, own in ((self.requests, probe.requests), (self.tokens, probe.tokens)):
            last = account.log.between(probe.at_s - MINUTE_S, math.inf) - own
            found.append((last / account.share(probe.at_s), account, last, own))
        return max(found, key=lambda one: one[0])[1:]

    def _judged(self, account: Account, last: float, call: float, now_s: float) -> tuple[float, float]:
        """An estimate of the limit, and the most that it may be."""
        if self._open_since_s == -math.inf:
            return self._judged_first(last, call, now_s)
        believed, calls = account.share(self._refused_at_s), max(1, self._calls_since - 1)
        open_s = max(1e-3, self._refused_at_s - self._open_since_s)
        shrunk = (account.upper / account.base) ** 0.25
        if calls < CALLS_MIN:
            estimate = believed * STEP_DOWN
            return estimate, min(believed, estimate * shrunk)
        since = max(account.since * MINUTE_S / open_s, STORED_SHARE * account.share(self._refused_at_s - STORED_S))
        estimate = min(last + call / 2, since, believed)
        return estimate, min(believed, estimate * max(shrunk, 1 + 0.5 / calls))

    def _judged_first(self, last: float, call: float, now_s: float) -> tuple[float, float]:
        """Without a `since`: a minute's count, or, where only a bucket admits so soon, less than that."""
        elapsed_s = min(MINUTE_S, self._refused_at_s - (self._first_sent_s or 0.0))
        gap_s = now_s - self._refused_at_s
        edge_s = (now_s + self._wall_ahead_s) % MINUTE_S
        soon = gap_s <= sum(PROBES_S) + 2 * GRACE_MIN_S and edge_s >= gap_s
        if soon and elapsed_s < MINUTE_S - gap_s:
            return last / (1 + elapsed_s / MINUTE_S), min(1.0, last * MINUTE_S / max(1e-3, elapsed_s))
        return last + call / 2, last + call
