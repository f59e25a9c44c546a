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
and the doubt is large.

Not every 429 is a limit's: servers send them in trouble, too. What few calls told is doubted, what recent minutes
refute as well (`limit_belief`), and where lowering the rate does not make refusals rarer, nothing more is learnt.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from stream_app.escalate.last_minute import MINUTE_S
from stream_app.escalate.limit_belief import CONFIRMED_WITHIN, Account, Belief, Judgement

if TYPE_CHECKING:
    from stream_app.escalate.last_minute import Slot

CALLS_MIN = 12
"""Fewer calls than this since the last refusal measure nothing: the rate is lowered by `STEP_DOWN` instead."""
CALLS_AGREE_MIN = 5
"""Unless the minute's count, of at least so many, comes out the same twice."""
STEP_DOWN = 0.8
REFUSALS_MAX, REFUSALS_S = 5, 120.0
"""A limit is found with fewer refusals; more in so short a time, although much less is sent, have other reasons."""
STORED_S, STORED_SHARE = 5.0, 0.9
"""A small bucket overflows while the rate climbs, and `since` is too small then; the rate of 5 s ago is nearer."""
GRACE_MIN_S = 0.25
"""A refusal comes at once, an answer after seconds: a probe that was not refused for this long, or for three times as
long as refusals took so far, was admitted."""
PROBES_S = (1.0, 2.0)
"""The first probes: a token bucket admits again after that; for a window they are two more refusals."""
PROBE_LATER_S, PROBE_LATER_MAX_S = 5.0, 60.0
WINDOW_FULL = 0.8
"""A window that has taken less than that was not full: what refused was no window of the clock's minutes."""
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


@dataclass(frozen=True, slots=True)
class Presumed:
    """A probe that was taken to be admitted, and how things stood: what was believed and admitted since when."""

    probe: Sent
    before: list[tuple[Belief, float]]
    open_since_s: float
    calls_since: int


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
    _room: bool | None = None
    _presumed: Presumed | None = None
    _lately: deque[float] = field(default_factory=lambda: deque[float](maxlen=REFUSALS_MAX))

    def wait_s(self, now_s: float) -> float:
        """How long until a call may go as far as refusals are concerned: 0 if now."""
        if self.phase is Phase.PROBING and self._probe is not None:
            if now_s < self._probe.at_s + self._grace_s:
                return self._probe.at_s + self._grace_s - now_s
            self._presume(self._probe)
        return max(0.0, self._probe_at_s - now_s) if self.phase is Phase.HELD else 0.0

    def sent(self, requests: float, tokens: float, now_s: float) -> Sent:
        """A call goes now; `wait_s` was 0."""
        slots = self.requests.log.add(requests, now_s), self.tokens.log.add(tokens, now_s)
        sent = Sent(now_s, requests, tokens, slots)
        self.requests.sent(requests, now_s)
        self.tokens.sent(tokens, now_s)
        self._calls_since += 1
        if self._first_sent_s is None:
            self._first_sent_s = now_s
        if self.phase is Phase.HELD:
            self.phase, self._probe = Phase.PROBING, sent
        return sent

    def counted(self, sent: Sent, tokens: float) -> None:
        """What the provider counted for a call, where it was estimated before."""
        self.tokens.log.correct(sent.slots[1], tokens - sent.tokens)
        self.tokens.take_out(sent.tokens - tokens, since=sent.at_s >= self._open_since_s)
        sent.tokens = tokens

    def admitted(self, sent: Sent) -> None:
        """A call was answered."""
        if sent is self._probe and self.phase is Phase.PROBING:
            self._ends(sent)

    def lost(self, sent: Sent, now_s: float) -> None:
        """Nobody knows whether a call was admitted: it counts as if. A probe told nothing: the next call is one."""
        if sent is self._probe and self.phase is Phase.PROBING:
            self.phase, self._probe, self._probe_at_s = Phase.HELD, None, now_s

    def refused(
        self,
        sent: Sent,
        now_s: float,
        wall_s: float,
        retry_after_s: float | None = None,
        *,
        room: bool | None = None,
    ) -> None:
        """A call came back with a 429. `room`: whether its headers say that the limits had room for it."""
        self._take_out(sent)
        self._wall_ahead_s = wall_s - now_s
        self._grace_s = max(self._grace_s, min(2.0, 3 * (now_s - sent.at_s)))
        if self._presumed is not None and sent is self._presumed.probe:
            self._take_back(self._presumed)
        match self.phase:
            case Phase.OPEN if sent.at_s > self._open_since_s:
                self.refusals += 1
                self._probes = 0
                self._refused_at_s = sent.at_s
                self._room = room
                self._aligned = self._aligned and self._window_full(now_s)
            case Phase.PROBING if sent is self._probe:
                self._probes += 1
                self._room = room
            case Phase.HELD:  # sent before the hold: it may know of a longer wait
                self._probe_at_s = max(self._probe_at_s, now_s + (retry_after_s or 0.0))
                return
            case _:
                return  # sent before the last refusal ended, or before the probe that tells
        self.phase, self._probe = Phase.HELD, None
        self._probe_at_s = now_s + retry_after_s if retry_after_s is not None else self._next_probe_s(now_s)

    def _presume(self, probe: Sent) -> None:
        """The probe was not refused so far: the refusal is over, unless a late answer says otherwise."""
        accounts = self.requests, self.tokens
        before = [
            (one.belief, one.since - own) for one, own in zip(accounts, (probe.requests, probe.tokens), strict=True)
        ]
        self._presumed = Presumed(probe, before, self._open_since_s, self._calls_since - 1)
        self._ends(probe)

    def _take_back(self, presumed: Presumed) -> None:
        """The probe was refused after all, slowly: everything is as if it was still on its way."""
        for account, (belief, since) in zip((self.requests, self.tokens), presumed.before, strict=True):
            account.belief = belief
            account.since += since
        self._open_since_s = presumed.open_since_s
        self._calls_since += presumed.calls_since
        if self._lately:
            self._lately.pop()
        self.phase, self._probe, self._presumed = Phase.PROBING, presumed.probe, None

    def _window_full(self, now_s: float) -> bool:
        """True where this minute of the wall clock has taken about what is believed of a limit."""
        edge_s = now_s - (now_s + self._wall_ahead_s) % MINUTE_S
        return any(
            account.log.between(edge_s, math.inf) >= WINDOW_FULL * account.share(now_s)
            for account in (self.requests, self.tokens)
        )

    def _take_out(self, sent: Sent) -> None:
        self.requests.log.correct(sent.slots[0], -sent.requests)
        self.tokens.log.correct(sent.slots[1], -sent.tokens)
        since = sent.at_s >= self._open_since_s
        self.requests.take_out(sent.requests, since=since)
        self.tokens.take_out(sent.tokens, since=since)
        self._calls_since -= since

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
        told = self._judged(account, last, call, probe.at_s)
        often = len(self._lately) == REFUSALS_MAX and probe.at_s - self._lately[0] < REFUSALS_S
        if self._room or (self._room is None and often and account.refutes(told.estimate)):
            account.keep(probe.at_s)
        else:
            account.believe(told, probe.at_s)
        self._lately.append(probe.at_s)
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

    def _judged(self, account: Account, last: float, call: float, now_s: float) -> Judgement:
        """An estimate of the limit, from a minute's count and from what was admitted since the last refusal."""
        prompt = now_s - self._refused_at_s <= sum(PROBES_S) + 2 * GRACE_MIN_S
        if self._open_since_s == -math.inf:
            return self._judged_first(last, call, now_s, prompt=prompt)
        believed, calls = account.share(self._refused_at_s), max(1, self._calls_since - 1)
        open_s = max(1e-3, self._refused_at_s - self._open_since_s)
        shrunk = (account.belief.upper / account.belief.base) ** 0.25
        if calls < CALLS_MIN or last < CALLS_MIN * call:
            counted = last + call / 2
            near = abs(counted - account.belief.estimate) <= max(call, CONFIRMED_WITHIN * counted)
            if near and last >= CALLS_AGREE_MIN * call and open_s >= MINUTE_S / 2:
                return Judgement(min(counted, believed), min(last + call, believed), measured=False, prompt=prompt)
            lower = believed * STEP_DOWN
            flows = last >= CALLS_MIN * call
            return Judgement(lower, min(believed, lower * shrunk), measured=flows, prompt=prompt)
        since = max(account.since * MINUTE_S / open_s, STORED_SHARE * account.share(self._refused_at_s - STORED_S))
        estimate = min(last + call / 2, since, believed)
        upper = min(believed, estimate * max(shrunk, 1 + 0.5 / calls))
        return Judgement(estimate, upper, measured=True, prompt=prompt)

    def _judged_first(self, last: float, call: float, now_s: float, *, prompt: bool) -> Judgement:
        """Without a `since`: a minute's count, or, where only a bucket admits so soon, less than that."""
        elapsed_s = min(MINUTE_S, self._refused_at_s - (self._first_sent_s or 0.0))
        gap_s = now_s - self._refused_at_s
        edge_s = (now_s + self._wall_ahead_s) % MINUTE_S
        soon = prompt and edge_s >= gap_s
        if last < CALLS_MIN * call:
            return Judgement(last + call / 2, 1.0, measured=False, prompt=prompt)
        if soon and elapsed_s < MINUTE_S - gap_s:
            upper = min(1.0, last * MINUTE_S / max(1e-3, elapsed_s))
            return Judgement(last / (1 + elapsed_s / MINUTE_S), upper, measured=True, prompt=prompt)
        return Judgement(last + call / 2, last + call, measured=True, prompt=prompt)
