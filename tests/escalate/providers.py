"""Three strict providers and a fleet of workers in simulated time: what a limiter does over ten minutes, in a second.

A provider admits a call or refuses it with a 429, by one of three rules (a token bucket, a window aligned to the
minute, a sliding log), for requests and tokens both. It counts tokens in one of three ways: the input and
`max_tokens` when the call arrives (for good, or until it is settled at its end), what the call will use when it
arrives, or what it used when it ends. A refused call counts nothing. The fleet is saturated, there is a next one,
unless `demand` says when calls come.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

MINUTE_S = 60.0
Kind = Literal["bucket", "fixed", "sliding"]
Counts = Literal["max", "settled", "use", "end"]


class Meter(Protocol):
    """One limit of a provider."""

    limit: float

    def left(self, now_s: float) -> float:
        """How much may be taken now."""
        ...

    def take(self, now_s: float, amount: float) -> None:
        """Takes it, whether there is so much or not."""
        ...

    def give_back(self, taken_s: float, now_s: float, amount: float) -> None:
        """What was taken at `taken_s` was less by `amount`."""
        ...

    def reset_s(self, now_s: float) -> float:
        """How long until everything is back."""
        ...


@dataclass
class TokenBucket:
    """Starts full; holds `burst_s` seconds of the limit."""

    limit: float
    burst_s: float = MINUTE_S
    taken: float = 0.0
    at_s: float = 0.0

    def left(self, now_s: float) -> float:
        self.taken = max(0.0, self.taken - (now_s - self.at_s) * self.limit / MINUTE_S)
        self.at_s = now_s
        return self.limit * self.burst_s / MINUTE_S - self.taken

    def take(self, now_s: float, amount: float) -> None:
        self.left(now_s)
        self.taken += amount

    def give_back(self, taken_s: float, now_s: float, amount: float) -> None:
        self.left(now_s)
        self.taken = max(0.0, self.taken - amount)

    def reset_s(self, now_s: float) -> float:
        self.left(now_s)
        return self.taken * MINUTE_S / self.limit


@dataclass
class FixedWindow:
    """Counts from each full minute; `phase_s` is where in a minute the simulation begins."""

    limit: float
    phase_s: float = 0.0
    window: int = 0
    taken: float = 0.0

    def left(self, now_s: float) -> float:
        if (window := int((now_s + self.phase_s) // MINUTE_S)) != self.window:
            self.window, self.taken = window, 0.0
        return self.limit - self.taken

    def take(self, now_s: float, amount: float) -> None:
        self.left(now_s)
        self.taken += amount

    def give_back(self, taken_s: float, now_s: float, amount: float) -> None:
        self.left(now_s)
        if int((taken_s + self.phase_s) // MINUTE_S) == self.window:
            self.taken -= amount

    def reset_s(self, now_s: float) -> float:
        return MINUTE_S - (now_s + self.phase_s) % MINUTE_S


@dataclass
class SlidingLog:
    """Counts exactly what the last 60 s took."""

    limit: float
    taken: float = 0.0
    log: deque[tuple[float, float]] = field(default_factory=deque)

    def left(self, now_s: float) -> float:
        while self.log and self.log[0][0] <= now_s - MINUTE_S:
            self.taken -= self.log.popleft()[1]
        return self.limit - self.taken

    def take(self, now_s: float, amount: float) -> None:
        self.left(now_s)
        self.taken += amount
        self.log.append((now_s, amount))

    def give_back(self, taken_s: float, now_s: float, amount: float) -> None:
        self.left(now_s)
        for index in range(len(self.log) - 1, -1, -1):
            if self.log[index][0] == taken_s:
                self.log[index] = (taken_s, self.log[index][1] - amount)
                self.taken -= amount
                return

    def reset_s(self, now_s: float) -> float:
        return self.log[-1][0] + MINUTE_S - now_s if self.log else 0.0


def meter(kind: Kind, limit: float, phase_s: float, burst_s: float = MINUTE_S) -> Meter:
    """A provider's rule by its name."""
    if kind == "bucket":
        return TokenBucket(limit, burst_s)
    return FixedWindow(limit, phase_s) if kind == "fixed" else SlidingLog(limit)


@dataclass(frozen=True)
class Call:
    """What a call is: its true sizes, and what the worker thinks its input is."""

    input_tokens: int
    estimate: int
    output_tokens: int
    output_max: int

    @property
    def used(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def at_most(self) -> int:
        return self.input_tokens + self.output_max


@dataclass
class Provider:
    """Admits or refuses, and logs what it admitted as (arrival, tokens counted)."""

    requests: Meter
    tokens: Meter
    counts: Counts = "use"
    log: list[tuple[float, float]] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    def counted(self, call: Call) -> int:
        """The tokens that this provider sees in a call."""
        return call.at_most if self.counts == "max" else call.used

    def admits(self, now_s: float, call: Call) -> bool:
        """True if the call may go; its account is charged then."""
        tokens_left = self.tokens.left(now_s)
        taken = call.at_most if self.counts == "settled" else self.counted(call)
        enough = tokens_left > 0 if self.counts == "end" else tokens_left >= taken
        if self.requests.left(now_s) < 1 or not enough:
            self.refusals.append(now_s)
            return False
        self.requests.take(now_s, 1)
        if self.counts != "end":
            self.tokens.take(now_s, taken)
        self.log.append((now_s, float(self.counted(call))))
        return True

    def ended(self, arrived_s: float, now_s: float, call: Call) -> None:
        """The answer to the call that arrived at `arrived_s` is ready."""
        if self.counts == "settled":
            self.tokens.give_back(arrived_s, now_s, call.at_most - call.used)
        if self.counts == "end":
            self.tokens.take(now_s, self.counted(call))

    def headers(self, now_s: float) -> dict[str, str]:
        """As OpenAI sends them."""
        said: dict[str, str] = {}
        for name, one in (("requests", self.requests), ("tokens", self.tokens)):
            said[f"x-ratelimit-limit-{name}"] = str(int(one.limit))
            said[f"x-ratelimit-remaining-{name}"] = str(max(0, int(one.left(now_s))))
            said[f"x-ratelimit-reset-{name}"] = f"{one.reset_s(now_s):.3f}s"
        return said


class Pace(Protocol):
    """What a worker asks before a call: a limiter with whatever corrects it."""

    def gain(self, partition: int, now_s: float) -> None: ...
    def lose(self, partition: int, now_s: float) -> None: ...
    def wait_s(self, call: Call, now_s: float) -> float: ...
    def start(self, call: Call, now_s: float) -> Callable[[float, bool, dict[str, str]], None]:
        """The call goes; what comes back is told how it ended: when, admitted or not, with which headers."""
        ...


@dataclass
class Worker:
    """A process: a pace, and the next call, which waits until it may go. `alive` is False after a kill."""

    pace: Pace
    owned: set[int] = field(default_factory=set)
    waiting: list[Call] = field(default_factory=list)
    wakes_s: float = math.inf
    alive: bool = True
    in_flight: int = 0


@dataclass
class Fleet:
    """Workers, a provider and a clock. Times of events are kept in one heap."""

    provider: Provider
    workers: list[Worker]
    next_call: Callable[[random.Random], Call]
    latency_s: Callable[[random.Random], float]
    draw: random.Random
    headers: bool = False
    saturated: bool = True
    in_flight_max: int = 256
    late_max_s: float = 0.003  # how late a timer of an event loop fires
    now_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _ticket: itertools.count[int] = field(default_factory=itertools.count)

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Does something later."""
        heapq.heappush(self._events, (when_s, next(self._ticket), what))

    def assign(self, owners: dict[int, int]) -> None:
        """Gives partitions to workers (partition -> worker), now."""
        for partition, index in owners.items():
            worker = self.workers[index]
            worker.owned.add(partition)
            worker.pace.gain(partition, self.now_s)
        for worker in self.workers:
            self.pump(worker)

    def revoke(self) -> None:
        """Takes every partition from every worker, as a rebalance does."""
        for worker in self.workers:
            for partition in sorted(worker.owned):
                worker.pace.lose(partition, self.now_s)
            worker.owned.clear()

    def run(self, until_s: float) -> None:
        """Plays everything up to `until_s`."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, what = heapq.heappop(self._events)
            what()
        self.now_s = until_s

    def pump(self, worker: Worker) -> None:
        """Starts whatever may start, and sets the timer for the next."""
        while worker.alive and worker.owned and worker.in_flight < self.in_flight_max:
            if not worker.waiting and not self.saturated:
                return
            if not worker.waiting:
                worker.waiting.append(self.next_call(self.draw))
            wait_s = worker.pace.wait_s(worker.waiting[-1], self.now_s)
            if wait_s > 0:
                self._wake(worker, wait_s)
                return
            self._start(worker, worker.waiting.pop())

    def _wake(self, worker: Worker, wait_s: float) -> None:
        when_s = self.now_s + wait_s + self.draw.uniform(0, self.late_max_s)
        if not math.isfinite(when_s) or self.now_s < worker.wakes_s <= when_s:
            return

        def wakes() -> None:
            if worker.wakes_s == when_s:
                worker.wakes_s = math.inf
                self.pump(worker)

        worker.wakes_s = when_s
        self.at(when_s, wakes)

    def _start(self, worker: Worker, call: Call) -> None:
        ended = worker.pace.start(call, self.now_s)
        worker.in_flight += 1
        self.at(self.now_s + self._network_s(), lambda: self._arrives(worker, call, ended))

    def _arrives(self, worker: Worker, call: Call, ended: Callable[[float, bool, dict[str, str]], None]) -> None:
        admitted = self.provider.admits(self.now_s, call)
        said = self.provider.headers(self.now_s) if self.headers else {}
        if admitted:
            arrived_s, ready_s = self.now_s, self.now_s + self.latency_s(self.draw)
            self.at(ready_s, lambda: self.provider.ended(arrived_s, self.now_s, call))
        else:
            ready_s = self.now_s + 0.01

        def back() -> None:
            worker.in_flight -= 1
            if not worker.alive:
                return
            ended(self.now_s, admitted, said)
            if not admitted:
                worker.waiting.append(call)
            self.pump(worker)

        self.at(ready_s + self._network_s(), back)

    def _network_s(self) -> float:
        return min(0.25, self.draw.lognormvariate(math.log(0.015), 0.6))


def lognormal(median_s: float, sigma: float) -> Callable[[random.Random], float]:
    """Latencies as LLMs have them."""
    return lambda draw: draw.lognormvariate(math.log(median_s), sigma)


def heavy_tail(median_s: float, most_s: float = 30.0) -> Callable[[random.Random], float]:
    """Pareto with a shape of 1.5: one call in a hundred takes 13 times the median, up to a time-out."""
    return lambda draw: min(most_s, median_s / 2 ** (1 / 1.5) * draw.paretovariate(1.5))


def calls(input_mean: float = 550.0, output_mean: float = 50.0, output_max: int = 300, error: float = 0.3):
    """Calls whose input is estimated with an even error of up to `error`, without bias."""

    def one(draw: random.Random) -> Call:
        input_tokens = max(20, int(draw.lognormvariate(math.log(input_mean) - 0.08, 0.4)))
        estimate = max(1, round(input_tokens * draw.uniform(1 - error, 1 + error)))
        output = min(output_max, max(5, int(draw.lognormvariate(math.log(output_mean) - 0.125, 0.5))))
        return Call(input_tokens, estimate, output, output_max)

    return one


def used(log: list[tuple[float, float]], from_s: float, to_s: float) -> tuple[int, float]:
    """Requests and tokens admitted in [from, to)."""
    inside = [tokens for at_s, tokens in log if from_s <= at_s < to_s]
    return len(inside), sum(inside)


def worst_excess(log: list[tuple[float, float]], rate_per_s: float) -> float:
    """The most that any window T of the log holds beyond rate * T. O(n): the largest rise of (sum - rate * t)."""
    lowest, total, worst = math.inf, 0.0, 0.0
    for at_s, amount in log:
        lowest = min(lowest, total - rate_per_s * at_s)
        total += amount
        worst = max(worst, total - rate_per_s * at_s - lowest)
    return worst
