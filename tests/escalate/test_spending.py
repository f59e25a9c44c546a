"""A budget that is too small is spent, and on the events that are likeliest to change."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.budget import NANO
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.gate import Cost, Gate, Grant, No
from stream_app.escalate.spending import RECENT_MIN, Left, Spending, chance_of_change
from stream_app.escalate.token_bucket import Limits
from tests.escalate.escalated import escalation

CALL_NUSD = 1_000
HOUR_S = 3_600.0


def spend(changes: list[float], budget_calls: float, *, bound_nusd: int = CALL_NUSD) -> list[int]:
    """Which events of one hour are paid for; they come evenly, each a call of the same price and the same bound."""
    rng, spending, left = random.Random(0), Spending(), int(budget_calls * CALL_NUSD)
    paid = []
    for place, change in enumerate(changes):
        now_s = place * HOUR_S / len(changes)
        worth = spending.worth(change, [bound_nusd], [Left(left, HOUR_S - now_s)], now_s=now_s, draw=rng.random())
        if worth and left >= bound_nusd:
            left -= CALL_NUSD
            spending.paid(bound_nusd, CALL_NUSD)
            paid.append(place)
    return paid


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_what_is_paid_for_are_those_likeliest_to_change(share, times):
    """Almost all the money is spent, and nearly as much change is bought as one could who knew the whole hour.

    Also where what is reserved for a call is several times what it costs.
    """
    rng = random.Random(3)
    changes = [rng.random() for _ in range(5_000)]
    paid = spend(changes, share * 5_000, bound_nusd=times * CALL_NUSD)
    assert 0.95 * share * 5_000 <= len(paid) <= share * 5_000
    best = sum(sorted(changes, reverse=True)[: int(share * 5_000)])
    assert sum(changes[place] for place in paid) >= 0.9 * best


def test_a_budget_that_reaches_for_all_is_spent_on_all():
    """Without a shortage nobody is left out, however unlikely to change."""
    rng = random.Random(1)
    changes = [rng.random() for _ in range(1_000)]
    assert spend(changes, 1_100) == list(range(1_000))
    assert spend(changes, 1_100, bound_nusd=5 * CALL_NUSD) == list(range(1_000))


def test_equals_share_the_budget_over_the_whole_time():
    """Where nothing tells events apart, the budget is spent all the same, and not on those that came first."""
    paid = spend([0.4] * 4_000, 1_000)
    assert 900 <= len(paid) <= 1_000
    late = sum(place >= 2_000 for place in paid)
    assert 0.4 < late / len(paid) < 0.6


def test_demand_that_grows_is_noticed():
    """Three quarters of the events come in the last quarter of the hour: their money is not gone by then."""
    rng, spending, left = random.Random(2), Spending(), 1_000 * CALL_NUSD
    times = [place * 2_700 / 1_000 for place in range(1_000)] + [
        2_700 + place * 900 / 3_000 for place in range(3_000)
    ]
    late = 0
    for now_s in times:
        change = rng.random()
        if (
            spending.worth(change, [CALL_NUSD], [Left(left, HOUR_S - now_s)], now_s=now_s, draw=rng.random())
            and left > 0
        ):
            left -= CALL_NUSD
            late += now_s >= 2_700
    assert left < 100 * CALL_NUSD
    assert late > 100


def test_a_burst_is_not_taken_for_the_hours_demand():
    """An event a second, and the budget for 600 an hour; then 150 within a second: a quarter of them is paid for.

    The demand of half an hour is known by then. Taken for a rate, the burst's would be 150 times it, and nobody of
    it would be worth it.
    """
    rng, spending = random.Random(6), Spending()
    half_of_it = Left(300 * CALL_NUSD, 1_800.0)
    for second in range(1_800):
        spending.worth(rng.random(), [CALL_NUSD], [half_of_it], now_s=float(second), draw=rng.random())
    burst = [
        spending.worth(rng.random(), [CALL_NUSD], [half_of_it], now_s=1_800 + place / 150, draw=rng.random())
        for place in range(150)
    ]
    assert 10 <= sum(burst) <= 50


@given(
    st.lists(st.floats(0, 1), min_size=RECENT_MIN, max_size=80),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 0.999),
    st.integers(0, 60),
)
def test_a_likelier_event_is_worth_it_whenever_a_less_likely_one_is(past, one, other, draw, left_calls):
    """The same past, price and draw: the order is that of the chances."""
    low, high = sorted((one, other))

    def judged(change: float) -> bool:
        spending = Spending()
        for place, seen in enumerate(past):
            spending.worth(seen, [CALL_NUSD], [Left(0, 100.0)], now_s=float(place), draw=0.5)
        now_s = float(len(past))
        return spending.worth(change, [CALL_NUSD], [Left(left_calls * CALL_NUSD, 100.0)], now_s=now_s, draw=draw)

    assert judged(high) >= judged(low)


def test_the_chance_of_change_is_that_of_any_asked_task():
    """One task: what is missing to certainty."""
    small = escalation(0, timestamp_ms=1).asks[0].small
    assert chance_of_change(escalation(0, timestamp_ms=1)) == pytest.approx(1 - small.probabilities[small.label])


def test_the_scarcer_of_two_budgets_decides():
    """An hour's budget that is ample does not spend the day's in the morning."""
    rng, spending = random.Random(4), Spending()
    ample, scarce = Left(10_000 * CALL_NUSD, HOUR_S), Left(100 * CALL_NUSD, HOUR_S)
    worth = [
        spending.worth(rng.random(), [CALL_NUSD], [ample, scarce], now_s=place * 3.6, draw=rng.random())
        for place in range(1_000)
    ]
    assert 0.05 < sum(worth[RECENT_MIN:]) / len(worth[RECENT_MIN:]) < 0.2


def gate(on_budget: str) -> Gate:
    """One partition, a dollar an hour, ample rates; an hour begins at 0."""
    made = Gate((EndpointGate(CorrectedRate(Limits(1e9, 1e9), 1)),), 1.0, 100.0, 1, on_budget=on_budget)
    made.gain(0, None, 0.0, 0.0)
    return made


def asked(made: Gate, dollars: float) -> list[tuple[float, bool]]:
    """A thousand events over an hour that would cost so much together: each one's chance, and the gate's word."""
    rng, found = random.Random(5), []
    for place in range(1_000):
        now_s, cost = place * 3.6, Cost(1, int(dollars * NANO / 1_000))
        change = rng.random()
        worth = made.worth(change, [cost], now_s, now_s, rng.random())
        if worth and made.budgets[0].left_nusd >= cost.nusd:
            made.budgets[0].settle(0, cost.nusd, now_s)
        found.append((change, worth))
    return found


def test_the_gate_spends_on_the_likeliest_where_budget_is_not_waited_for():
    """Twice the budget's worth of events: the likelier half is paid for, the rest goes its way at once."""
    found = asked(gate("degrade"), 2.0)
    worth = [change for change, taken in found if taken]
    left_out = [change for change, taken in found if not taken]
    assert 400 < len(worth) < 600
    assert sum(worth) / len(worth) > sum(left_out) / len(left_out) + 0.4


@pytest.mark.parametrize(("on_budget", "dollars"), [("wait", 2.0), ("degrade", 0.9), ("dlq", 0.9)])
def test_nobody_is_left_out_where_budget_is_waited_for_or_reaches(on_budget, dollars):
    """Waiting for the next hour loses nothing, and an ample budget is no reason to save."""
    assert all(worth for _, worth in asked(gate(on_budget), dollars))


def busy_hour() -> Spending:
    """A spending that saw an event a second for ten minutes."""
    spending = Spending()
    for second in range(600):
        spending.worth(0.5, [CALL_NUSD], [Left(0, HOUR_S)], now_s=float(second), draw=0.5)
    return spending


def test_only_money_that_nobody_will_need_is_spared():
    """For an event that can wait: what is left must reach for all who come, as many as lately, and for it."""
    needed = 600 * CALL_NUSD  # for ten minutes more of it, but for what is averaged
    assert not busy_hour().spares(CALL_NUSD, [Left(needed // 2, 600.0)], now_s=600.0)
    assert busy_hour().spares(CALL_NUSD, [Left(needed * 3 // 2, 600.0)], now_s=600.0)
    assert not busy_hour().spares(CALL_NUSD, [Left(needed * 3 // 2, 600.0), Left(0, 600.0)], now_s=600.0)


def test_demand_that_ended_an_hour_ago_holds_nothing_back():
    """Who came then says little of who comes now."""
    assert busy_hour().spares(CALL_NUSD, [Left(60 * CALL_NUSD, 600.0)], now_s=600.0 + HOUR_S)


def test_what_calls_cost_counts_and_not_what_was_reserved_for_them():
    """A call costs a fraction of its bound: by bounds the budget would always look short."""
    spending, left = busy_hour(), [Left(300 * CALL_NUSD, 600.0)]
    assert not spending.spares(CALL_NUSD, left, now_s=600.0)
    for _ in range(300):
        spending.paid(CALL_NUSD, CALL_NUSD // 10)
        spending.paid(CALL_NUSD, 0)  # a call that failed and cost nothing
    assert spending.spares(CALL_NUSD, left, now_s=600.0)


@pytest.mark.parametrize("on_budget", ["wait", "degrade"])
def test_who_can_wait_gets_only_what_the_others_will_leave(on_budget):
    """By the gate: half an hour of demand is to come, and is remembered also where budget is waited for."""
    made, now_s = gate(on_budget), 1_800.0
    cost = Cost(1, int(0.0009 * NANO))
    for place in range(500):
        assert made.worth(0.5, [cost], place * 3.6, place * 3.6, 0.5)
        made.budgets[0].settle(0, cost.nusd, place * 3.6)
    # 55 cents are left, and about 45 will be wanted.
    assert made.ask_spare(0, [Cost(1, int(0.3 * NANO))], now_s, now_s) == No("budget")
    made.budgets[0].committed(NANO)  # a lease
    assert isinstance(made.ask_spare(0, [Cost(1, int(0.03 * NANO))], now_s, now_s), Grant)


def test_an_empty_account_spares_nothing():
    """Whoever can wait is told so, where others would wait for the next hour."""
    made = gate("wait")
    asked(made, 2.0)
    assert made.ask_spare(0, [Cost(1, NANO // 1_000)], 3_597.0, 3_597.0) == No("budget")


def test_who_can_wait_never_gets_what_half_the_time_left_would_need():
    """A worker that has just begun knows no demand: half of the hour's dollar stays for who comes, all the same."""
    made, granted = gate("degrade"), 0
    made.budgets[0].committed(NANO)  # a lease
    cost = Cost(1, NANO // 100)
    while granted < 200 and isinstance(made.ask_spare(0, [cost], 1.0 + granted, 1.0), Grant):
        granted += 1
    assert 45 <= granted <= 50


def two_endpoints(on_budget: str) -> Gate:
    """A dollar an hour, an endpoint and its substitute."""
    endpoints = tuple(EndpointGate(CorrectedRate(Limits(1e9, 1e9), 1)) for _ in range(2))
    made = Gate(endpoints, 1.0, 100.0, 1, on_budget=on_budget)
    made.gain(0, None, 0.0, 0.0)
    return made


COSTS = (Cost(1, NANO // 100), Cost(1, 0))
"""A dear endpoint, and a substitute that costs nothing."""


def test_what_costs_nothing_is_worth_it_when_all_is_spent():
    """The hour's dollar is gone, and the dear endpoint away: its free substitute answers everybody."""
    made = two_endpoints("degrade")
    made.budgets[0].committed(NANO)  # a lease
    for second in range(100):
        made.worth(0.5, COSTS, float(second), float(second), 0.5)
        made.budgets[0].settle(0, NANO // 100, float(second))
    assert not made.worth(0.5, COSTS, 100.0, 100.0, 0.5)
    made.endpoints[0].breaker.failed(100.0, probe=False, at_once=True)
    assert made.worth(0.5, COSTS, 100.1, 100.1, 0.5)
    assert isinstance(made.ask(0, COSTS, 100.1, 100.1), Grant)


def test_a_free_substitute_does_not_hide_what_the_demand_would_cost():
    """While it answers, the dear endpoint's demand is remembered: nothing of its money goes to who can wait."""
    made = two_endpoints("wait")
    made.budgets[0].committed(NANO)  # a lease
    made.endpoints[0].breaker.failed(0.0, probe=False, at_once=True)
    for second in range(600):
        made.worth(0.5, COSTS, second / 1_000, second / 1_000, 0.5)  # within the cool-down: at the free one
    made.endpoints[0].breaker.answered()
    assert made.ask_spare(0, COSTS, 0.7, 0.7) == No("budget")
