"""What of a configured limit is real, learnt from 429s alone. Pure: time is an argument.

Amounts are *shares*: 1.0 is what the configured limit lets this worker's partitions use in a minute. So what was
learnt stays true when partitions come and go, and no worker needs to ask another.

A *refusal* begins with a 429 and ends with the first call that is admitted again; in between nothing is sent but one
probe at a time. At its end it is judged what it tells (`rate_evidence`).

Not every 429 is a limit's: servers send them in trouble, too. What few calls told is doubted, what recent minutes
refute as well (`limit_belief`), and where lowering the rate does not make refusals rarer, nothing more is learnt.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from stream_app.escalate.last_minute import MINUTE_S
from stream_app.escalate.limit_belief import Account, Belief
from stream_app.escalate.rate_evidence import GRACE_MIN_S, PROBES_S, Evidence

if TYPE_CHECKING:
    from stream_app.escalate.last_minute import Slot

REFUSALS_MAX, REFUSALS_S = 5, 120.0
"""A limit is found with fewer refusals; more in so short a time, although much less is sent, have other reasons."""
PROBE_FLOWS_S = 12.0
"""Where calls leave the minute all the time and none is admitted, no sliding log refuses: wait longer."""
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
    """A probe that was taken to be admitted, and how things stood, without what it took itself."""

    probe: Sent
    accounts: list[tuple[Belief, float]]  # what was believed, and admitted since
    seen: Evidence
    aligned: bool


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
    _call: tuple[float, float] = (0.0, 0.0)
    _grace_s: float = GRACE_MIN_S
    _aligned: bool = False  # the last refusal ended with a minute of the wall clock
    _room: bool | None = None
    _presumed: Presumed | None = None
    _seen: Evidence = field(default_factory=Evidence)
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
        self._seen.calls_since += 1
        if self._seen.first_sent_s is None:
            self._seen.first_sent_s = now_s
        if self.phase is Phase.HELD:
            self.phase, self._probe = Phase.PROBING, sent
        return sent

    def counted(self, sent: Sent, tokens: float) -> None:
        """What the provider counted for a call, where it was estimated before."""
        self.tokens.log.correct(sent.slots[1], tokens - sent.tokens)
        self.tokens.take_out(sent.tokens - tokens, since=sent.at_s >= self._seen.since_s)
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
        said: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """A call came back with a 429. `room`: whether its headers say that the limits had room for it.

        `said`: what of the limits for requests and tokens is used at most for other reasons.
        """
        self._take_out(sent)
        if sent.at_s >= self._seen.attempt_s:
            self._seen.attempt_s, self._call = sent.at_s, (sent.requests, sent.tokens)
            self._seen.minute_before = self.requests.log.total, self.tokens.log.total
        self._seen.wall_ahead_s = wall_s - now_s
        self._grace_s = max(self._grace_s, min(2.0, 3 * (now_s - sent.at_s)))
        if self._presumed is not None and sent is self._presumed.probe:
            self._take_back(self._presumed)
        match self.phase:
            case Phase.OPEN if sent.at_s > self._seen.open_since_s:
                self.refusals += 1
                self._probes = 0
                self._seen.refused_at_s = sent.at_s
                self._room = room
                self._seen.pressed = (
                    self._seen.presses(self.requests, sent.requests, said[0]),
                    self._seen.presses(self.tokens, sent.tokens, said[1]),
                )
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
        taken = (self.requests, probe.requests), (self.tokens, probe.tokens)
        before = Presumed(
            probe,
            [(account.belief, account.since - own) for account, own in taken],
            replace(self._seen, calls_since=self._seen.calls_since - 1),
            self._aligned,
        )
        self._ends(probe)
        self._presumed = before

    def _take_back(self, presumed: Presumed) -> None:
        """The probe was refused after all, slowly: the refusal never ended, and what was refused since is part of it.

        What was admitted since is kept, and so are a newer hold and a newer probe.
        """
        now, seen = self._seen, presumed.seen
        anew = now.since_s != seen.since_s
        for account, (belief, since) in zip((self.requests, self.tokens), presumed.accounts, strict=True):
            account.belief = belief
            account.since += since * anew
        self._seen = replace(
            seen,
            attempt_s=now.attempt_s,
            minute_before=now.minute_before,
            wall_ahead_s=now.wall_ahead_s,
            calls_since=now.calls_since + seen.calls_since * anew,
        )
        self._aligned = presumed.aligned
        if anew:
            self._lately.pop()
        if self.phase is Phase.OPEN:
            self.phase, self._probe = Phase.PROBING, presumed.probe
        self._presumed = None

    def _window_full(self, now_s: float) -> bool:
        """True where this minute of the wall clock has taken about what is believed of a limit."""
        edge_s = now_s - (now_s + self._seen.wall_ahead_s) % MINUTE_S
        return any(
            account.log.between(edge_s, math.inf) >= WINDOW_FULL * account.share(now_s)
            for account in (self.requests, self.tokens)
        )

    def _take_out(self, sent: Sent) -> None:
        self.requests.log.correct(sent.slots[0], -sent.requests)
        self.tokens.log.correct(sent.slots[1], -sent.tokens)
        since = sent.at_s >= self._seen.since_s
        self.requests.take_out(sent.requests, since=since)
        self.tokens.take_out(sent.tokens, since=since)
        self._seen.calls_since -= since

    def _next_probe_s(self, now_s: float) -> float:
        """Soon, in case it is a bucket; then where a window of either kind would admit again; then ever later."""
        tried_s = self._seen.attempt_s  # the minute may have ended while the 429 was on its way
        edge_s = max(now_s, tried_s + MINUTE_S - (tried_s + self._seen.wall_ahead_s) % MINUTE_S + EDGE_S)
        if self._aligned:
            return edge_s
        if self._probes < len(PROBES_S):
            return now_s + PROBES_S[self._probes] * self._seen.patience
        more = 2 ** (self._probes - len(PROBES_S))
        freed_s = self._freed_in_s(more, now_s)
        if freed_s > 0:
            return min(edge_s, now_s + (freed_s + EDGE_S if freed_s > PROBES_S[-1] * more else PROBE_FLOWS_S * more))
        later_s = PROBE_LATER_S * 2 ** max(0, self._probes - 4)
        return min(edge_s, now_s + PROBE_LATER_MAX_S) if self._probes < 5 else now_s + min(PROBE_LATER_MAX_S, later_s)

    def _freed_in_s(self, calls: int, now_s: float) -> float:
        """How long until so many calls like the last are older than a minute: 0 where all are."""
        logs = (self.requests.log, self._call[0]), (self.tokens.log, self._call[1])
        return max(log.room_in_s(calls * call, log.total, now_s) for log, call in logs)

    def _ends(self, probe: Sent) -> None:
        """The refusal is over: judge it."""
        account, last, call = self._binding(probe)
        told = self._seen.judged(account, last, call, probe.at_s, tokens=account is self.tokens)
        often = len(self._lately) == REFUSALS_MAX and probe.at_s - self._lately[0] < REFUSALS_S
        if told is None or self._room or (self._room is None and often and account.refutes(told.estimate)):
            account.keep(probe.at_s)
        else:
            account.believe(told, probe.at_s)
        if told is not None:
            self._lately.append(probe.at_s)
        edge_s = (probe.at_s + self._seen.wall_ahead_s) % MINUTE_S
        self._aligned = probe.at_s - self._seen.refused_at_s > sum(PROBES_S) and edge_s < 4 * EDGE_S
        self.phase, self._probe, self._presumed = Phase.OPEN, None, None
        self._seen.open_since_s = probe.at_s
        self.ended += 1
        self._seen.untold += 1
        if told is not None:
            self._seen.untold, self._seen.empty_s = 0, self._seen.attempt_s
            if told.measured and not told.prompt:
                self._seen.window_s = probe.at_s
            self._seen.since_s, self._seen.calls_since = probe.at_s, 1
            self.requests.since, self.tokens.since = probe.requests, probe.tokens

    def _binding(self, probe: Sent) -> tuple[Account, float, float]:
        """The limit that refused, as far as can be told: the one that was used most of what is believed of it."""
        found: list[tuple[float, Account, float, float]] = []
        for account, own in ((self.requests, probe.requests), (self.tokens, probe.tokens)):
            last = account.log.between(probe.at_s - MINUTE_S, math.inf) - own
            found.append((last / account.share(probe.at_s), account, last, own))
        return max(found, key=lambda one: one[0])[1:]
