"""May the next call start? Rate limits, budget and circuit breaker judged together. Pure.

A worker spends from any partition it owns, so that one with little to do lends to a busy one: the rate from the
pool of all their shares (`owned_shares`), dollars from the event's own partition's account where that can pay, else
from another's. Every call that was granted ends in exactly one `settle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, assert_never

from stream_app.escalate.breaker import Breaker, Circuit
from stream_app.escalate.budget import DAY_S, HOUR_S, Funds, Lease, PartitionBudget
from stream_app.escalate.call_end import CallEnd, Counted, Lost, OverLimit
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.spending import Left, Spending
from stream_app.escalate.token_bucket import Limits
from stream_app.escalate.token_use import TokenUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.escalate.corrected_rate import Started
    from stream_app.settings import Settings

WhenOut = Literal["wait", "degrade", "dlq"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A call may start: what was set aside for it, and from which account; give it to `settle` once.

    It names the very account: a partition that was lost and gained again has a new one, which the end of an old
    call must not touch.
    """

    started: Started
    budget: PartitionBudget
    cost: Cost
    probe: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """The most a call can take: an estimate of tokens for the rate, a bound of dollars for the budget.

    `held` is what the provider counts while the call is in flight, where that is more than `tokens`.
    """

    tokens: int
    nusd: int
    held: int | None = None


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

    rate: CorrectedRate
    usd_per_hour: float
    usd_per_day: float
    partitions: int
    on_budget: WhenOut = "wait"
    on_outage: WhenOut = "wait"
    use: TokenUse = field(default_factory=TokenUse)
    breaker: Breaker = field(default_factory=Breaker)
    spending: Spending = field(default_factory=Spending)
    budgets: dict[int, PartitionBudget] = field(default_factory=dict[int, PartitionBudget])

    def gain(self, partition: int, last: Lease | None, now_s: float, wall_s: float) -> None:
        """A partition is owned from now on: its share of the rate starts empty, its account counts the last lease."""
        self.rate.gain(partition, now_s)
        hourly, daily = self.usd_per_hour / self.partitions, self.usd_per_day / self.partitions
        self.budgets[partition] = PartitionBudget.opened(hourly, daily, last, wall_s)

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        self.rate.lose(partition)
        self.budgets.pop(partition, None)

    def worth(self, change: float, cost: Cost, now_s: float, wall_s: float, draw: float) -> bool:
        """Whether to spend on an event with this chance of change; always, where budget is waited for or is ample.

        Call it once for each event that needs a call: it remembers the demand. `draw` decides between equals.
        """
        if not self.budgets:
            return True
        funds = self._left(wall_s)
        return self.spending.worth(change, cost.nusd, funds, now_s=now_s, draw=draw) or self.on_budget == "wait"

    def _left(self, wall_s: float) -> list[Left]:
        """What this hour and this day still allow, and how long they last."""
        hour, day = 0, 0
        for budget in self.budgets.values():
            budget.roll(wall_s)
            hour += budget.hour_share_nusd - budget.settled_hour_nusd - budget.reserved_nusd
            day += budget.day_share_nusd - budget.settled_day_nusd - budget.reserved_nusd
        return [Left(hour, HOUR_S - wall_s % HOUR_S), Left(day, DAY_S - wall_s % DAY_S)]

    def ask(self, partition: int, cost: Cost, now_s: float, wall_s: float) -> Grant | Wait | No:
        """May a call for an event of `partition` start now? What it needs is set aside if so."""
        if (circuit_s := self.breaker.wait_s(now_s)) > 0:
            return Wait(circuit_s, "outage") if self.on_outage == "wait" else No("outage")
        return self._pay(partition, cost, now_s, wall_s, spare=False)

    def ask_spare(self, partition: int, cost: Cost, now_s: float, wall_s: float) -> Grant | Wait | No:
        """May a call go that can wait for hours? Only with what the others leave of rate and budget.

        It is never told to wait for an outage or for budget: it has another time.
        """
        if self.breaker.wait_s(now_s) > 0:
            return No("outage")
        if not self.spending.spares(cost.nusd, self._left(wall_s), now_s=now_s):
            return No("budget")
        answer = self._pay(partition, cost, now_s, wall_s, spare=True)
        return No("budget") if isinstance(answer, Wait) and answer.because == "budget" else answer

    def _pay(self, partition: int, cost: Cost, now_s: float, wall_s: float, *, spare: bool) -> Grant | Wait | No:
        """From the first account that can, if the rate allows the call now."""
        lease: list[int] = []
        for candidate in self._from(partition):
            match self.budgets[candidate].ask(cost.nusd, wall_s):
                case Funds.GRANTED:
                    if (rate_s := self.rate.wait_s(cost.tokens, now_s, cost.held, spare=spare)) > 0:
                        return Wait(rate_s, lease=tuple(lease))
                    return self._granted(self.budgets[candidate], cost, now_s)
                case Funds.LEASE_FIRST:
                    lease.append(candidate)
                case Funds.EXHAUSTED:
                    pass
        return Wait(float("inf"), lease=tuple(lease)) if lease else self._out_of_budget(cost, wall_s)

    def _from(self, partition: int) -> Iterator[int]:
        """The owned partitions, the event's own first."""
        if partition in self.budgets:
            yield partition
        yield from (other for other in self.budgets if other != partition)

    def _granted(self, budget: PartitionBudget, cost: Cost, now_s: float) -> Grant:
        started = self.rate.start(cost.tokens, now_s, cost.held)
        budget.reserve(cost.nusd)
        return Grant(started, budget, cost, self.breaker.started())

    def _out_of_budget(self, cost: Cost, wall_s: float) -> Wait | No:
        if not self.budgets:
            return Wait(float("inf"))
        never = all(cost.nusd > min(one.hour_share_nusd, one.day_share_nusd) for one in self.budgets.values())
        if never or self.on_budget != "wait":  # no later hour could pay it either
            return No("budget")
        return Wait(min(budget.next_hour_in_s(wall_s) for budget in self.budgets.values()), "budget")

    def settle(self, grant: Grant, end: CallEnd, nusd: int, now_s: float, wall_s: float) -> None:
        """Replaces what was set aside by what the call took: of the rate by its end, of the budget `nusd`."""
        match end:
            case Counted(tokens, headers):
                self.rate.answered(grant.started, tokens, headers, now_s)
            case OverLimit(refused_wall_s, headers):
                self.rate.refused(grant.started, headers, now_s, refused_wall_s)
            case Lost():
                self.rate.lost(grant.started, now_s)
            case _:
                assert_never(end)
        grant.budget.settle(grant.cost.nusd, nusd, wall_s)
        self.spending.paid(grant.cost.nusd, nusd)

    @property
    def stops_clock(self) -> bool:
        """True while an outage that is waited out goes on."""
        return self.on_outage == "wait" and self.breaker.circuit is not Circuit.CLOSED


def gate_of(settings: Settings, partitions: int) -> Gate:
    """Everything that stands before a call, shared out over the partitions of the escalation topic."""
    llm, endpoint = settings.llm, settings.llm.endpoints[0]
    limits = Limits(endpoint.requests_per_minute, endpoint.tokens_per_minute)
    counted = endpoint.tokens_counted
    return Gate(
        rate=CorrectedRate(limits, partitions, counts_at_end=counted == "used"),
        usd_per_hour=llm.usd_per_hour,
        usd_per_day=llm.usd_per_day,
        partitions=partitions,
        on_budget=llm.on_budget,
        on_outage=llm.on_outage,
        use=TokenUse(counted),
    )
