"""Several endpoints behind one gate: rates and circuits each their own, one budget and one order. Simulated time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from stream_app.escalate.breaker import COOLDOWN_S, Circuit
from stream_app.escalate.budget import NANO
from stream_app.escalate.call_end import Counted, Lost, OverLimit
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.gate import Cost, Gate, Grant, No, Wait
from stream_app.escalate.rate_headers import RateHeaders
from stream_app.escalate.token_bucket import Limits

FREE = (Cost(1, 0), Cost(1, 0))
WITHIN_S = 1_500.0
"""Of simulated time: so soon the budget is spent, however long both endpoints are away."""


def gate(*requests_per_minute: float, usd_per_hour: float = 1_000.0, **options) -> Gate:
    """An endpoint for each limit, one partition owned for a while already, its lease committed."""
    endpoints = tuple(EndpointGate(CorrectedRate(Limits(limit, 1e9), 1)) for limit in requests_per_minute)
    made = Gate(endpoints, usd_per_hour, 10 * usd_per_hour, 1, **options)
    made.gain(0, None, 0.0, 0.0)
    for endpoint in endpoints:
        for bucket in (endpoint.rate.shares.requests, endpoint.rate.shares.tokens):
            bucket.level = bucket.size
    lease(made)
    return made


def lease(made: Gate) -> None:
    """Commits all that the partition may lease."""
    budget = made.budgets[0]
    budget._wanted_nusd = budget.left_nusd
    budget.committed(budget.authority_of(budget.lease(0.0)))


def away(made: Gate, number: int, now_s: float = 0.0) -> None:
    """Opens an endpoint's circuit."""
    made.endpoints[number].breaker.failed(now_s, probe=False, at_once=True)


def granted(made: Gate, now_s: float, costs=FREE) -> Grant:
    said = made.ask(0, costs, now_s, 0.0)
    assert isinstance(said, Grant), said
    return said


def test_the_first_is_used_and_the_second_while_it_is_away():
    """And the first again as soon as its probe is answered; while that is under way, the second goes on."""
    made = gate(1e6, 1e6)
    assert granted(made, 0.0).endpoint == 0
    away(made, 0)
    assert [granted(made, 0.5).endpoint for _ in range(3)] == [1, 1, 1]
    probe = granted(made, COOLDOWN_S)
    assert (probe.endpoint, probe.probe) == (0, True)
    assert [granted(made, COOLDOWN_S).endpoint for _ in range(3)] == [1, 1, 1]
    made.answered(probe, COOLDOWN_S)
    made.settle(probe, Counted(1), 0, COOLDOWN_S, 0.0)
    assert granted(made, COOLDOWN_S).endpoint == 0


def test_a_spent_rate_is_waited_for_and_never_passed_on():
    """A 429 or an empty bucket is no failure: the second endpoint's limit is not a longer first one."""
    made = gate(60, 1e6)
    assert granted(made, 0.0).endpoint == 0
    said = made.ask(0, FREE, 0.0, 0.0)
    assert isinstance(said, Wait)
    assert said.because is None
    refused = granted(made, 2.0)
    made.breaker_of(refused).abandoned(2.0, probe=False)
    made.settle(refused, OverLimit(2.0, RateHeaders(retry_after_s=20.0)), 0, 2.0, 0.0)
    said = made.ask(0, FREE, 4.0, 0.0)
    assert isinstance(said, Wait)
    assert 10 < said.s < 30


def test_whoever_waits_at_the_second_asks_again_when_a_probe_of_the_first_is_due():
    """However long the second's own rate would make it wait."""
    made = gate(1e6, 1)
    away(made, 0)
    granted(made, 0.0)
    said = made.ask(0, FREE, 0.0, 0.0)
    assert said == Wait(COOLDOWN_S)
    assert granted(made, COOLDOWN_S).probe


def test_a_probe_that_would_have_to_wait_holds_nobody_back():
    """Its rate is spent or its price too high for what is left: the second answers meanwhile."""
    made = gate(60, 1e6)
    granted(made, 0.0)
    away(made, 0)
    made.endpoints[0].breaker.open_until_s = 0.5
    assert granted(made, 0.6).endpoint == 1  # the first has no request left before a second is over
    assert made.endpoints[0].breaker.circuit is Circuit.OPEN
    dear = gate(1e6, 1e6, usd_per_hour=1.0, on_budget="degrade")
    away(dear, 0)
    costs = Cost(1, 2 * NANO), Cost(1, NANO // 10)
    assert granted(dear, COOLDOWN_S, costs).endpoint == 1


def test_the_outage_rule_counts_only_while_every_circuit_is_open():
    """`on_outage = degrade` gives nothing up, and `wait` stops no clock, while one endpoint is well."""
    for on_outage, expected in (("degrade", No("outage")), ("wait", Wait(COOLDOWN_S, "outage"))):
        made = gate(1e6, 1e6, on_outage=on_outage)
        away(made, 0)
        assert not made.stops_clock
        assert granted(made, 0.0).endpoint == 1
        away(made, 1)
        assert made.stops_clock == (on_outage == "wait")
        assert made.ask(0, FREE, 0.0, 0.0) == expected


def test_a_substitute_that_failed_in_an_outage_of_both_is_trusted_again_once_the_first_is_back():
    """When the first fails later, everyone goes to the second at once; nobody is degraded while one call tries it."""
    made = gate(1e6, 1e6, on_outage="degrade")
    away(made, 0)
    away(made, 1)
    made.answered(granted(made, COOLDOWN_S), COOLDOWN_S)
    assert [endpoint.breaker.circuit for endpoint in made.endpoints] == [Circuit.CLOSED, Circuit.CLOSED]
    away(made, 0, 100.0)
    assert [granted(made, 100.0).endpoint for _ in range(3)] == [1, 1, 1]


def test_while_its_cool_down_lasts_a_failed_endpoint_is_not_trusted():
    """And an answer of the second says nothing of the first, which stands before it."""
    made = gate(1e6, 1e6, on_outage="degrade")
    away(made, 0)
    second = granted(made, 0.5)
    away(made, 1, 0.5)
    made.breaker_of(second).failed(0.5, probe=False)
    first = granted(made, COOLDOWN_S)
    made.answered(first, COOLDOWN_S)
    assert made.endpoints[1].breaker.circuit is Circuit.OPEN
    away(made, 0, 2.0)
    made.answered(granted(made, 2.0), 9.0)
    assert made.endpoints[0].breaker.circuit is Circuit.OPEN


def test_dollars_come_from_one_account_at_each_endpoints_price():
    """What the first spent is gone for the second, whose calls cost five times as much."""
    costs = Cost(1, NANO // 10), Cost(1, NANO // 2)
    made = gate(1e6, 1e6, usd_per_hour=1.0, on_budget="degrade")
    for _ in range(3):
        made.settle(granted(made, 0.0, costs), Counted(1), costs[0].nusd, 0.0, 0.0)
    away(made, 0)
    second = granted(made, 0.0, costs)
    assert (second.endpoint, second.cost.nusd) == (1, NANO // 2)
    assert made.ask(0, costs, 0.0, 0.0) == No("budget")
    made.settle(second, Counted(1), NANO // 4, 0.0, 0.0)
    assert made.budgets[0].settled_hour_nusd == 3 * NANO // 10 + NANO // 4


def test_what_an_event_is_worth_is_judged_at_the_price_of_the_endpoint_in_use():
    """A dear second endpoint makes the same budget reach for fewer events."""
    share: dict[bool, float] = {}
    for first_is_away in (False, True):
        made = gate(1e6, 1e6, usd_per_hour=1.0, on_budget="degrade")
        if first_is_away:
            away(made, 0)
            made.endpoints[0].breaker.open_until_s = 1e9
        draw = random.Random(3)
        costs = Cost(1, NANO // 10_000), Cost(1, NANO // 200)
        worth = [made.worth(draw.random(), costs, 3.6 * n, 0.0, draw.random()) for n in range(1_000)]
        share[first_is_away] = sum(worth) / len(worth)
    assert share[False] > 0.95
    assert share[True] < 0.4


@dataclass
class Provider:
    """An endpoint as it counts itself: when calls came, what they were paid."""

    limit: float
    well: bool = True
    calls_s: list[float] = field(default_factory=list[float])
    paid_nusd: int = 0


@pytest.mark.parametrize("seed", range(3))
def test_each_limit_and_the_common_budget_hold_through_outages(seed):
    """Two endpoints that go and come by chance: no window of either passes its limit, all is paid from one budget.

    While the budget lasts and one of them is well, calls go: neither is held back by the other's state.
    """
    print("seed", seed)
    draw, usd = random.Random(seed), 1.0
    providers = [Provider(600.0), Provider(120.0)]
    made = gate(*(one.limit for one in providers), usd_per_hour=usd, on_budget="degrade", on_outage="degrade")
    costs = Cost(1, NANO // 1_000), Cost(1, NANO // 250)
    now_s, idle_s, idle_max_s, said = 0.0, 0.0, 0.0, None
    while said != No("budget"):
        assert now_s < WITHIN_S
        now_s += 0.02
        for provider in providers:
            if draw.random() < 0.002:
                provider.well = not provider.well
        lease(made)
        said = made.ask(0, costs, now_s, 0.0)
        if not isinstance(said, Grant):
            idle_s = idle_s + 0.02 if any(one.well for one in providers) and said != No("outage") else 0.0
            idle_max_s = max(idle_max_s, idle_s)
            continue
        idle_s, provider = 0.0, providers[said.endpoint]
        provider.calls_s.append(now_s)
        if provider.well:
            cost_nusd = int(said.cost.nusd * draw.uniform(0.3, 1.0))
            provider.paid_nusd += cost_nusd
            made.answered(said, now_s)
            made.settle(said, Counted(1), cost_nusd, now_s, 0.0)
        else:
            made.breaker_of(said).failed(now_s, probe=said.probe)
            made.settle(said, Lost(), 0, now_s, 0.0)
    assert all(len(one.calls_s) > 30 for one in providers)
    assert sum(one.paid_nusd for one in providers) == made.budgets[0].settled_hour_nusd <= usd * NANO
    assert made.budgets[0].settled_hour_nusd > 0.99 * usd * NANO
    assert idle_max_s < 2.0
    for provider in providers:
        for first, at_s in enumerate(provider.calls_s):
            inside = sum(at_s <= other <= at_s + 60.0 for other in provider.calls_s[first : first + 700])
            assert inside <= provider.limit + 1
