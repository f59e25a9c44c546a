"""May the next call start, and at which endpoint? Circuits, rate limits and budget judged together. Pure.

Every endpoint has a rate and a circuit of its own (`endpoint_gate`), and `route` says in which order they are tried.
The budget is one for all of them: whichever endpoint a call goes to, its dollars come from the same accounts.

A worker spends from any partition it owns, so that one with little to do lends to a busy one: the rate from the
pool of all their shares (`owned_shares`), dollars from the event's own partition's account where that can pay, else
from another's. Every call that was granted ends in exactly one `settle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stream_app.escalate.breaker import Breaker, Circuit
from stream_app.escalate.budget import DAY_S, HOUR_S, Funds, Lease, PartitionBudget
from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.route import Passage, Route, better_elsewhere, route
from stream_app.escalate.spending import Left, Spending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_app.escalate.call_end import CallEnd
    from stream_app.escalate.corrected_rate import Started
    from stream_app.settings import Settings

WhenOut = Literal["wait", "degrade", "dlq"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A call may start at that endpoint (by its place in the settings); give it to `settle` once.

    It says what was set aside, and names the very account: a partition that was lost and gained again has a new
    one, which the end of an old call must not touch.
    """

    endpoint: int
    started: Started
    budget: PartitionBudget
    cost: Cost
    probe: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """The most a call can take at an endpoint: an estimate of tokens for the rate, a bound of dollars for the budget.

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
    """All that stands before a call to any of the endpoints, which are given in the order of their use."""

    endpoints: tuple[EndpointGate, ...]
    usd_per_hour: float
    usd_per_day: float
    partitions: int
    on_budget: WhenOut = "wait"
    on_outage: WhenOut = "wait"
    spending: Spending = field(default_factory=Spending)
    budgets: dict[int, PartitionBudget] = field(default_factory=dict[int, PartitionBudget])

    def gain(self, partition: int, last: Lease | None, now_s: float, wall_s: float) -> None:
        """A partition is owned from now on: its share of each rate starts empty, its account has the last lease."""
        for endpoint in self.endpoints:
            endpoint.rate.gain(partition, now_s)
        hourly, daily = self.usd_per_hour / self.partitions, self.usd_per_day / self.partitions
        self.budgets[partition] = PartitionBudget.opened(hourly, daily, last, wall_s)

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        for endpoint in self.endpoints:
            endpoint.rate.lose(partition)
        self.budgets.pop(partition, None)

    def worth(self, change: float, costs: Sequence[Cost], now_s: float, wall_s: float, draw: float) -> bool:
        """Whether to spend on an event with this chance of change; always, where budget is waited for or is ample.

        `costs` are what its call would take at each endpoint; that of the one in use now counts. Call it once for
        each event that needs a call: it remembers the demand. `draw` decides between equals.
        """
        if not self.budgets:
            return True
        at, nusd = self.in_use(now_s), [cost.nusd for cost in costs]
        worth = self.spending.worth(change, nusd, self._left(wall_s), at=at, now_s=now_s, draw=draw)
        return worth or self.on_budget == "wait"

    def in_use(self, now_s: float) -> int:
        """The endpoint that calls go to now; in an outage the first."""
        way = self._route(now_s)
        return 0 if way is None else way.decides

    def _left(self, wall_s: float) -> list[Left]:
        """What this hour and this day still allow, and how long they last."""
        hour, day = 0, 0
        for budget in self.budgets.values():
            budget.roll(wall_s)
            hour += budget.hour_share_nusd - budget.settled_hour_nusd - budget.reserved_nusd
            day += budget.day_share_nusd - budget.settled_day_nusd - budget.reserved_nusd
        hourly = sum(budget.hour_share_nusd for budget in self.budgets.values())
        daily = sum(budget.day_share_nusd for budget in self.budgets.values())
        of_hour, of_day = 1 - wall_s % HOUR_S / HOUR_S, 1 - wall_s % DAY_S / DAY_S
        return [Left(hour, of_hour * HOUR_S, of_hour * hourly), Left(day, of_day * DAY_S, of_day * daily)]

    def ask(self, partition: int, costs: Sequence[Cost], now_s: float, wall_s: float) -> Grant | Wait | No:
        """May a call for an event of `partition` start now? What it needs is set aside if so.

        `costs` are what it takes at each endpoint: prices, tokenizers and forms of the request differ.
        """
        way = self._route(now_s)
        if way is None:
            return Wait(self.circuit_s(now_s), "outage") if self.on_outage == "wait" else No("outage")
        return self._start(way, partition, costs, now_s, wall_s, spare=False)

    def ask_spare(self, partition: int, costs: Sequence[Cost], now_s: float, wall_s: float) -> Grant | Wait | No:
        """May a call go that can wait for hours? Only with what the others leave of rate and budget.

        It is never told to wait for an outage or for budget: it has another time.
        """
        way = self._route(now_s)
        if way is None:
            return No("outage")
        if not all(self._spares(costs[at], at, now_s, wall_s) for at in way.tries):
            return No("budget")
        answer = self._start(way, partition, costs, now_s, wall_s, spare=True)
        return No("budget") if isinstance(answer, Wait) and answer.because == "budget" else answer

    def _spares(self, cost: Cost, at: int, now_s: float, wall_s: float) -> bool:
        """Whether the money left reaches for that call at that endpoint and for everyone to come."""
        return self.spending.spares(cost.nusd, self._left(wall_s), at=at, now_s=now_s)

    def _start(
        self, way: Route, partition: int, costs: Sequence[Cost], now_s: float, wall_s: float, *, spare: bool
    ) -> Grant | Wait | No:
        """At the first endpoint of the way where it can start now."""
        said: dict[int, Wait | No] = {}
        for number in way.tries:
            answer = self._pay(number, partition, costs[number], now_s, wall_s, spare=spare)
            if isinstance(answer, Grant):
                return answer
            said[number] = answer
        decided = said[way.decides]
        return decided if isinstance(decided, No) else self._sooner(decided, way, said, now_s)

    def _route(self, now_s: float) -> Route | None:
        return route([endpoint.passage(now_s) for endpoint in self.endpoints])

    def _sooner(self, decided: Wait, way: Route, said: dict[int, Wait | No], now_s: float) -> Wait:
        """The wait that was decided on, cut short where a probe of an earlier endpoint may go before that."""
        waits = [one for one in said.values() if isinstance(one, Wait)]
        shut = [one for one in self.endpoints[: way.decides] if one.passage(now_s) is Passage.SHUT]
        s = min([*(one.s for one in waits), *(one.breaker.wait_s(now_s) for one in shut)])
        leases = dict.fromkeys(partition for one in waits for partition in one.lease)
        return Wait(s, decided.because, tuple(leases))

    def _pay(
        self, number: int, partition: int, cost: Cost, now_s: float, wall_s: float, *, spare: bool
    ) -> Grant | Wait | No:
        """From the first account that can, if this endpoint's rate allows the call now."""
        lease: list[int] = []
        for candidate in self._from(partition):
            match self.budgets[candidate].ask(cost.nusd, wall_s):
                case Funds.GRANTED:
                    rate_s = self.endpoints[number].rate.wait_s(cost.tokens, now_s, cost.held, spare=spare)
                    if rate_s > 0:
                        return Wait(rate_s, lease=tuple(lease))
                    return self._granted(number, self.budgets[candidate], cost, now_s)
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

    def _granted(self, number: int, budget: PartitionBudget, cost: Cost, now_s: float) -> Grant:
        endpoint = self.endpoints[number]
        started = endpoint.rate.start(cost.tokens, now_s, cost.held)
        budget.reserve(cost.nusd)
        return Grant(number, started, budget, cost, endpoint.breaker.started())

    def _out_of_budget(self, cost: Cost, wall_s: float) -> Wait | No:
        if not self.budgets:
            return Wait(float("inf"))
        never = all(cost.nusd > min(one.hour_share_nusd, one.day_share_nusd) for one in self.budgets.values())
        if never or self.on_budget != "wait":  # no later hour could pay it either
            return No("budget")
        return Wait(min(budget.next_hour_in_s(wall_s) for budget in self.budgets.values()), "budget")

    def settle(self, grant: Grant, end: CallEnd, nusd: int, now_s: float, wall_s: float) -> None:
        """Replaces what was set aside by what the call took: of the rate by its end, of the budget `nusd`."""
        self.endpoints[grant.endpoint].ended(grant.started, end, now_s)
        grant.budget.settle(grant.cost.nusd, nusd, wall_s)
        self.spending.paid(grant.cost.nusd, nusd)

    def answered(self, grant: Grant, now_s: float) -> None:
        """The endpoint of a granted call is well. Those behind it are not needed, so old failures of theirs are over.

        Else one that failed with it once would have to prove itself by a probe just when everyone turns to it.
        """
        self.breaker_of(grant).answered()
        for endpoint in self.endpoints[grant.endpoint + 1 :]:
            endpoint.breaker.forget(now_s)

    def breaker_of(self, grant: Grant) -> Breaker:
        """The circuit breaker of the endpoint that a granted call goes to."""
        return self.endpoints[grant.endpoint].breaker

    def better_elsewhere(self, grant: Grant) -> bool:
        """Whether a call that failed there is better tried again at once, at another endpoint."""
        return better_elsewhere([endpoint.breaker.circuit for endpoint in self.endpoints], grant.endpoint)

    def circuit_s(self, now_s: float) -> float:
        """How long until some endpoint's circuit lets a call through: 0 if one does now."""
        return min(endpoint.breaker.wait_s(now_s) for endpoint in self.endpoints)

    @property
    def is_out(self) -> bool:
        """True in an outage: no endpoint's circuit is closed."""
        return all(endpoint.breaker.circuit is not Circuit.CLOSED for endpoint in self.endpoints)

    @property
    def stops_clock(self) -> bool:
        """True while an outage that is waited out goes on."""
        return self.on_outage == "wait" and self.is_out


def gate_of(settings: Settings, partitions: int) -> Gate:
    """Everything that stands before a call, shared out over the partitions of the escalation topic.

    Not the endpoint for second opinions, which has a gate of its own (`second_gate`).
    """
    llm = settings.llm
    return Gate(
        endpoints=tuple(EndpointGate.of(endpoint, partitions) for endpoint in llm.in_turn),
        usd_per_hour=llm.usd_per_hour,
        usd_per_day=llm.usd_per_day,
        partitions=partitions,
        on_budget=llm.on_budget,
        on_outage=llm.on_outage,
    )
