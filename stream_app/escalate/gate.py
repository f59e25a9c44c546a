"""May the next call start? Rate limits, budget and circuit breaker judged together. Pure.

A worker spends from any partition it owns: an event takes from its own partition's buckets and account where it
can, else from another's, so that a partition with little to do lends to a busy one. Each bucket is charged by
its own rules, so the bounds of `limiter` and `budget` hold all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stream_app.escalate.breaker import Breaker, Circuit
from stream_app.escalate.budget import DAY_S, HOUR_S, Funds, Lease, PartitionBudget
from stream_app.escalate.limiter import Limits, RateLimiter
from stream_app.escalate.spending import Left, Spending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.escalate.limiter import PartitionBuckets
    from stream_app.settings import Settings

WhenOut = Literal["wait", "degrade", "dlq"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A call may start: what was set aside for it, and from which buckets and account.

    It names the very objects: a partition that was lost and gained again has new ones, which the end of an old
    call must not touch.
    """

    buckets: PartitionBuckets
    budget: PartitionBudget
    cost: Cost
    probe: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """The most a call can take: an estimate of tokens for the rate, a bound of dollars for the budget."""

    tokens: int
    nusd: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ask again after `s` (infinite: after the next change). `lease` names partitions to lease for.

    `because` is what the lane waits for by choice, which stops the clock; None where it is only the rate.
    """

    s: float
    because: Literal["budget", "outage"] | None = None
    lease: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class No:
    """Not at all: by the settings, an event does not wait for this."""

    because: Literal["budget", "outage"]


@dataclass(slots=True)
class Gate:
    """All that stands before a call to one endpoint."""

    limiter: RateLimiter
    usd_per_hour: float
    usd_per_day: float
    partitions: int
    on_budget: WhenOut = "wait"
    on_outage: WhenOut = "wait"
    breaker: Breaker = field(default_factory=Breaker)
    spending: Spending = field(default_factory=Spending)
    budgets: dict[int, PartitionBudget] = field(default_factory=dict[int, PartitionBudget])

    def gain(self, partition: int, last: Lease | None, now_s: float, wall_s: float) -> None:
        """A partition is owned from now on: empty buckets, and an account that counts the last lease as spent."""
        self.limiter.gain(partition, now_s)
        hourly, daily = self.usd_per_hour / self.partitions, self.usd_per_day / self.partitions
        self.budgets[partition] = PartitionBudget.opened(hourly, daily, last, wall_s)

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        self.limiter.lose(partition)
        self.budgets.pop(partition, None)

    def worth(self, change: float, cost: Cost, now_s: float, wall_s: float, draw: float) -> bool:
        """Whether to spend on an event with this chance of change; always, where budget is waited for or is ample.

        Call it once for each event that needs a call: it remembers the demand. `draw` decides between equals.
        """
        if self.on_budget == "wait" or not self.budgets:
            return True
        hour, day = 0, 0
        for budget in self.budgets.values():
            budget.roll(wall_s)
            hour += budget.hour_share_nusd - budget.settled_hour_nusd - budget.reserved_nusd
            day += budget.day_share_nusd - budget.settled_day_nusd - budget.reserved_nusd
        funds = [Left(hour, HOUR_S - wall_s % HOUR_S), Left(day, DAY_S - wall_s % DAY_S)]
        return self.spending.worth(change, cost.nusd, funds, now_s=now_s, draw=draw)

    def ask(self, partition: int, cost: Cost, now_s: float, wall_s: float) -> Grant | Wait | No:
        """May a call for an event of `partition` start now? What it needs is set aside if so."""
        if (circuit_s := self.breaker.wait_s(now_s)) > 0:
            return Wait(circuit_s, "outage") if self.on_outage == "wait" else No("outage")
        wait_s = float("inf")
        lease: list[int] = []
        funds = False
        for candidate in self._from(partition):
            found = self.budgets[candidate].ask(cost.nusd, wall_s)
            funds = funds or found is not Funds.EXHAUSTED
            if found is Funds.LEASE_FIRST:
                lease.append(candidate)
            if found is not Funds.GRANTED:
                continue
            if (rate_s := self.limiter.wait_s(candidate, cost.tokens, now_s)) == 0:
                return self._granted(candidate, cost)
            wait_s = min(wait_s, rate_s)
        if not funds:
            return self._out_of_budget(cost, wall_s)
        return Wait(wait_s, lease=tuple(lease))

    def _from(self, partition: int) -> Iterator[int]:
        """The owned partitions, the event's own first."""
        if partition in self.budgets:
            yield partition
        yield from (other for other in self.budgets if other != partition)

    def _granted(self, partition: int, cost: Cost) -> Grant:
        buckets, budget = self.limiter.reserve(partition, cost.tokens), self.budgets[partition]
        budget.reserve(cost.nusd)
        return Grant(buckets, budget, cost, self.breaker.started())

    def _out_of_budget(self, cost: Cost, wall_s: float) -> Wait | No:
        if not self.budgets:
            return Wait(float("inf"))
        never = all(cost.nusd > min(one.hour_share_nusd, one.day_share_nusd) for one in self.budgets.values())
        if never or self.on_budget != "wait":  # no later hour could pay it either
            return No("budget")
        return Wait(min(budget.next_hour_in_s(wall_s) for budget in self.budgets.values()), "budget")

    @staticmethod
    def settle(grant: Grant, used: Cost, now_s: float, wall_s: float) -> None:
        """Replaces what was set aside by what the call took."""
        grant.buckets.settle(grant.cost.tokens, used.tokens, now_s)
        grant.budget.settle(grant.cost.nusd, used.nusd, wall_s)

    @property
    def stops_clock(self) -> bool:
        """True while an outage that is waited out goes on."""
        return self.on_outage == "wait" and self.breaker.circuit is not Circuit.CLOSED


def gate_of(settings: Settings, partitions: int) -> Gate:
    """Everything that stands before a call, shared out over the partitions of the escalation topic."""
    llm, endpoint = settings.llm, settings.llm.endpoints[0]
    limits = Limits(endpoint.requests_per_minute, endpoint.tokens_per_minute)
    return Gate(
        limiter=RateLimiter(limits.share(partitions)),
        usd_per_hour=llm.usd_per_hour,
        usd_per_day=llm.usd_per_day,
        partitions=partitions,
        on_budget=llm.on_budget,
        on_outage=llm.on_outage,
    )
