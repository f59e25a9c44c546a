"""The pool of a worker's shares and its last minute: nothing overfills, whatever comes and goes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.last_minute import NETWORK_S, SLOT_S, LastMinute
from stream_app.escalate.owned_shares import Factors, OwnedShares
from stream_app.escalate.token_bucket import Limits
from tests.escalate.providers import worst_excess

STEPS = st.lists(
    st.tuples(
        st.floats(0, 20),  # seconds since the last step
        st.integers(1, 3_000),  # tokens of a call
        st.floats(0, 1.5),  # share of them that is counted
        st.sampled_from(["call"] * 6 + ["gain", "lose", "half", "whole"]),
    ),
    max_size=80,
)


def play(pool: OwnedShares, steps, changes: bool) -> tuple[list[tuple[float, float]], float]:
    """Plays steps, each call as early as it may and settled at once; what was charged when, and the largest call."""
    now_s, spent, largest = 0.0, [], 0.0
    for partition in range(3):
        pool.gain(partition, now_s)
    for pause_s, tokens, counted_share, step in steps:
        now_s += pause_s
        if step != "call":
            if changes and step == "gain":
                pool.gain(max(pool._owned, default=0) + 1 if pool.owned < 6 else 0, now_s)
            elif changes and step == "lose" and pool.owned > 1:
                pool.lose(max(pool._owned))
            elif changes and step in ("half", "whole"):
                pool.correct(Factors(0.5, 0.5) if step == "half" else Factors(), now_s)
            continue
        for _ in range(2_000):
            if (wait_s := pool.wait_s(tokens, now_s)) == 0:
                break
            now_s += wait_s + 1e-9
        assert pool.wait_s(tokens, now_s) == 0
        reservation = pool.reserve(tokens, now_s)
        counted = int(tokens * counted_share)
        pool.settle(reservation, counted, now_s)
        spent.append((now_s, float(max(tokens, counted))))
        largest = max(largest, tokens, counted)
    return spent, largest


@given(
    STEPS.map(lambda steps: [(*step[:2], 1.0, step[3]) for step in steps]),
    st.floats(60, 5_000),
    st.floats(6_000, 1e6),
)
def test_no_window_holds_more_than_rate_burst_and_one_call(steps, requests_per_minute, tokens_per_minute):
    """With the same partitions, a worker charges at most rate * T + 1 s of rate + one call in every window T."""
    pool = OwnedShares(Limits(requests_per_minute, tokens_per_minute), 3)
    spent, largest = play(pool, steps, changes=False)
    requests, tokens = pool.requests.rate_per_s, pool.tokens.rate_per_s
    assert worst_excess([(at_s, 1.0) for at_s, _ in spent], requests) <= requests + 1 + 1e-6
    assert worst_excess(spent, tokens) <= tokens + largest + 1e-3


@given(STEPS, st.integers(60, 5_000))
def test_no_minute_exceeds_the_limit_however_shares_come_and_go(steps, requests_per_minute):
    """Any 60 s hold at most the limit of requests, one call more at most: a gained share starts empty."""
    kept = [step for step in steps if step[3] not in ("half", "whole")]
    spent, _ = play(OwnedShares(Limits(requests_per_minute, 1e9), 6), kept, changes=True)
    for at_s, _ in spent:
        assert sum(1 for other_s, _ in spent if at_s <= other_s < at_s + 60) <= requests_per_minute + 1


def test_a_minute_at_full_demand_uses_the_limit_and_not_more():
    """With always more to do, each minute carries between 98 % and 100 % of the limit."""
    pool, now_s, times = OwnedShares(Limits(500, 1e9), 1), 0.0, []
    pool.gain(0, now_s)
    while now_s < 300:
        wait_s = pool.wait_s(100, now_s)
        now_s += wait_s + (1e-9 if wait_s else 0)
        if pool.wait_s(100, now_s) == 0:
            pool.settle(pool.reserve(100, now_s), 100, now_s)
            times.append(now_s)
    for start_s in range(5, 235, 5):
        inside = sum(1 for at_s in times if start_s <= at_s < start_s + 60)
        assert 490 <= inside <= 500


def test_a_call_larger_than_the_bucket_goes_into_debt_alone():
    """A call of ten seconds' tokens goes when the bucket is full, and the next waits until its debt is repaid."""
    pool = OwnedShares(Limits(1e6, 6_100), 1)  # 100 tokens a second
    pool.gain(0, 0.0)
    assert pool.wait_s(1_000, 0.0) == pytest.approx(1.0)
    assert pool.wait_s(1_000, 1.0) == 0
    pool.reserve(1_000, 1.0)
    assert pool.wait_s(50, 1.0) == pytest.approx(9.5)
    assert pool.wait_s(1_000, 1.0) == pytest.approx(10.0)


def test_a_gained_share_starts_empty():
    """Its last owner may just have spent everything: it brings nothing, to a worker that owns none or others."""
    pool = OwnedShares(Limits(600, 1e6), 3)
    pool.gain(0, 0.0)
    assert pool.wait_s(10, 100.0) == 0
    before = pool.requests.level
    pool.gain(1, 100.0)
    assert pool.requests.level == before
    pool.lose(0)
    pool.lose(1)
    pool.gain(0, 100.0)
    assert pool.wait_s(10, 100.0) > 0


@given(STEPS)
def test_every_call_goes_in_the_end(steps):
    """However shares come and go and limits change, a call's wait is finite, and nothing is left in flight."""
    pool = OwnedShares(Limits(120, 12_000), 6)
    play(pool, steps, changes=True)
    assert pool.in_flight == 0
    assert pool.requests.level <= pool.requests.size
    assert pool.tokens.level <= pool.tokens.size


def test_a_pool_that_owns_nothing_waits_for_ever():
    """Without a partition there is no share to spend."""
    pool = OwnedShares(Limits(600, 60_000), 2)
    assert pool.wait_s(1, 5.0) == math.inf
    pool.gain(0, 5.0)
    assert 0 < pool.wait_s(1, 5.0) < 1
    pool.lose(0)
    assert pool.wait_s(1, 9.0) == math.inf


def test_a_share_takes_its_level_along_and_leaves_its_debt():
    """Of four full shares one leaves with a quarter; of a debt nothing leaves, for its new owner starts at 0."""
    pool = OwnedShares(Limits(600, 60_000), 4)
    for partition in range(4):
        pool.gain(partition, 0.0)
    pool.wait_s(1, 10.0)
    full = pool.tokens.level
    pool.lose(3)
    assert pool.tokens.level == pytest.approx(full * 3 / 4)
    reservation = pool.reserve(10_000, 10.0)
    debt = pool.tokens.level
    assert debt < 0
    pool.lose(2)
    assert pool.tokens.level == debt
    pool.settle(reservation, 1_000, 10.0)
    assert pool.tokens.level == debt, "what was reserved from a share that left is not given back"


def test_a_full_bucket_stays_full_while_its_limit_grows():
    """A call larger than the bucket goes even if the limit is raised a little before every try."""
    pool = OwnedShares(Limits(6_000, 6_000), 1)
    pool.gain(0, 0.0)
    pool.correct(Factors(1.0, 0.5), 0.0)
    pool.wait_s(500, 10.0)
    for step in range(1, 20):
        pool.correct(Factors(1.0, 0.5 + step / 100), 10.0 + step / 1_000)
        assert pool.wait_s(500, 10.0 + step / 1_000) == 0


def test_the_last_minute_guards_what_the_bucket_forgives():
    """A call that used more than it reserved is remembered for 60 s: the next waits until the minute has room."""
    pool = OwnedShares(Limits(6_000, 6_100), 1, misses=0.0)
    pool.gain(0, 0.0)
    pool.wait_s(100, 1.0)
    pool.settle(pool.reserve(100, 1.0), 6_000, 1.0)
    assert pool.wait_s(200, 60.9) > 0
    assert pool.wait_s(200, 61.0 + SLOT_S + NETWORK_S + 1e-6) == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 100)), max_size=60), st.floats(1, 300))
def test_the_last_minute_never_counts_too_little(entries, limit):
    """At least what was added in the last 60 s is counted, at most a slot and the network's allowance more."""
    minute, now_s, added = LastMinute(), 0.0, []
    for pause_s, amount in entries:
        now_s += pause_s
        minute.add(amount, now_s)
        added.append((now_s, amount))
        longest = 60 + SLOT_S + NETWORK_S
        assert minute.total >= sum(one for at_s, one in added if at_s > now_s - 60) - 1e-6
        assert minute.total <= sum(one for at_s, one in added if at_s >= now_s - longest - 1e-6) + 1e-6
    wait_s = minute.room_in_s(1.0, limit, now_s)
    assert 0 <= wait_s <= 60 + SLOT_S + NETWORK_S + 1e-6
    assert minute.room_in_s(1.0, limit, now_s + wait_s + 1e-6) == 0


def test_the_last_minute_is_corrected_where_it_stands():
    """What an old entry turned out to be counts; for one that is forgotten it changes nothing."""
    minute = LastMinute()
    old, new = minute.add(10, 0.0), minute.add(10, 30.0)
    minute.correct(new, -4)
    assert minute.total == pytest.approx(16)
    minute.forget(70.0)
    minute.correct(old, 100)
    assert minute.total == pytest.approx(6)
    assert minute.between(29.0, 31.0) == pytest.approx(6)


def test_a_spare_call_waits_until_the_buckets_are_full():
    """It takes what would run over, and the next one what does then: the whole rate, if nobody else wants any."""
    pool = OwnedShares(Limits(610, 61_000), 1)  # ten requests and a thousand tokens a second
    pool.gain(0, 0.0)
    assert pool.wait_s(100, 0.5) == 0
    assert pool.wait_s(100, 0.5, spare=True) == pytest.approx(0.5)
    now_s, gone = 1.0, 0
    while now_s < 31.0:
        wait_s = pool.wait_s(100, now_s, spare=True)
        if wait_s > 0:
            now_s += wait_s + 1e-9
            continue
        pool.settle(pool.reserve(100, now_s), 100, now_s)
        gone += 1
        assert pool.wait_s(100, now_s) == 0  # whoever comes now goes at once
    assert 295 <= gone <= 301


def test_a_minute_of_spare_calls_leaves_a_second_of_the_rate_to_who_comes():
    """Else the guard over the last 60 s would hold up a burst that the bucket allows."""
    pool = OwnedShares(Limits(610, 1e9), 1)
    pool.gain(0, 0.0)
    now_s = 1.0
    while now_s < 181.0:
        if (wait_s := pool.wait_s(1, now_s, spare=True)) > 0:
            now_s += wait_s + 1e-9
            continue
        pool.settle(pool.reserve(1, now_s), 1, now_s)
    burst = 0
    while pool.wait_s(1, now_s) == 0 and burst < 20:
        pool.settle(pool.reserve(1, now_s), 1, now_s)
        burst += 1
    assert burst >= 9
