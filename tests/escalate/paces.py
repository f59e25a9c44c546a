"""What sets the pace of the simulated workers, and runs of ten minutes with each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.rate_headers import rate_headers
from stream_app.escalate.token_bucket import Limits
from stream_app.escalate.token_use import TokenUse
from tests.escalate.providers import Call, Fleet, Provider, Worker, calls, heavy_tail, lognormal, meter, used

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.escalate.token_use import Counted
    from tests.escalate.providers import Counts, Kind, Pace

PARTITIONS = 12
COUNTED: dict[Counts, Counted] = {"max": "max_tokens", "settled": "settled", "use": "used", "end": "used"}
REQUESTS_BOUND = Limits(500, 1_000_000)
TOKENS_BOUND = Limits(2_000, 200_000)
LATENCIES = (lognormal(5.0, 0.5), heavy_tail(2.0))
GAP_S = 3.0
"""For how long a rebalance takes every partition from everybody."""


@dataclass
class Corrected:
    """`CorrectedRate` with estimates by `TokenUse`."""

    rate: CorrectedRate
    use: TokenUse
    wall_ahead_s: float

    def gain(self, partition: int, now_s: float) -> None:
        self.rate.gain(partition, now_s)

    def lose(self, partition: int, now_s: float) -> None:
        self.rate.lose(partition)

    def wait_s(self, call: Call, now_s: float) -> float:
        return self.rate.wait_s(self._cost(call), now_s, self._held(call))

    def start(self, call: Call, now_s: float) -> Callable[[float, bool, dict[str, str]], None]:
        cost = self._cost(call)
        started = self.rate.start(cost, now_s, self._held(call))

        def ended(at_s: float, admitted: bool, headers: dict[str, str]) -> None:
            said = rate_headers(headers, at_s + self.wall_ahead_s)
            if not admitted:
                self.rate.refused(started, said, at_s, at_s + self.wall_ahead_s)
                return
            sizes, reported = (call.estimate, call.output_max), (call.input_tokens, call.output_tokens)
            self.rate.answered(started, self.use.settle("v1", sizes, reported, cost), said, at_s)

        return ended

    def _held(self, call: Call) -> int:
        return self.use.held("v1", call.estimate, call.output_max)

    def _cost(self, call: Call) -> int:
        return self.use.charge("v1", call.estimate, call.output_max)


@dataclass(frozen=True)
class Setting:
    """One run: who provides, what is allowed in truth and by the settings, and who works."""

    kind: Kind
    counts: Counts
    real: Limits
    configured: Limits
    workers: int = 1
    seed: int = 0
    headers: bool = False
    burst_s: float = 60.0
    latency: Literal[0, 1] = 0

    def fleet(self) -> Fleet:
        """Everything set up, all partitions shared out, and always a next call."""
        fleet = self.fleet_that_waits()
        fleet.saturated = True
        for worker in fleet.workers:
            fleet.pump(worker)
        return fleet

    def fleet_that_waits(self) -> Fleet:
        """Everything set up, all partitions shared out, and no call yet."""
        draw = random.Random(self.seed)
        phase_s = draw.uniform(0, 60)
        provider = Provider(
            meter(self.kind, self.real.requests_per_minute, phase_s, self.burst_s),
            meter(self.kind, self.real.tokens_per_minute, phase_s, self.burst_s),
            self.counts,
        )
        workers = [Worker(self.pace(phase_s)) for _ in range(self.workers)]
        fleet = Fleet(
            provider, workers, calls(), LATENCIES[self.latency], draw, self.headers, False, in_flight_max=2_000
        )
        fleet.assign(owners(self.workers))
        return fleet

    def pace(self, phase_s: float) -> Pace:
        """A new worker's, where the wall clock is ahead by `phase_s`."""
        at_end = self.counts == "end"
        rate = CorrectedRate(self.configured, PARTITIONS, counts_at_end=at_end)
        return Corrected(rate, TokenUse(COUNTED[self.counts]), phase_s)


def owners(workers: int) -> dict[int, int]:
    """The partitions shared out evenly."""
    return {partition: partition % workers for partition in range(PARTITIONS)}


def two_rebalances(fleet: Fleet) -> None:
    """One worker of three leaves at 200 s and comes back at 400 s; nobody owns anything for `GAP_S` each time."""
    for at_s, workers in ((200.0, 2), (400.0, 3)):
        fleet.at(at_s, fleet.revoke)
        fleet.at(at_s + GAP_S, lambda workers=workers: fleet.assign(owners(workers)))


def utilisation(fleet: Fleet, limits: Limits, from_s: float, to_s: float) -> float:
    """The larger part of its two limits that the provider saw used."""
    requests, tokens = used(fleet.provider.log, from_s, to_s)
    minutes = (to_s - from_s) / 60
    return max(requests / limits.requests_per_minute, tokens / limits.tokens_per_minute) / minutes
