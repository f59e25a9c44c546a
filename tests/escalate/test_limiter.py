"""The token buckets: no window ever overfills, whatever is asked and whenever."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.limiter import BURST_S, REFILL_SHARE, Limits, RateLimiter

CALLS = st.lists(
    st.tuples(
        st.floats(0, 30),  # seconds since the last step
        st.integers(0, 5_000),  # tokens reserved
        st.floats(0, 2),  # share of them used
        st.sampled_from(["call", "call", "call", "regain", "hold"]),
    ),
    max_size=80,
)


def spend(limiter: RateLimiter, limits: Limits, steps) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Plays steps against partition 0, each call as early as it may; when what was spent."""
    now_s, requests, tokens = 0.0, [], []
    limiter.gain(0, now_s)
    for pause_s, reserved, used_share, step in steps:
        now_s += pause_s
        if step == "regain":
            limiter.lose(0)
            limiter.gain(0, now_s)
            continue
        if step == "hold":
            limiter.hold(now_s + pause_s)
            continue
        now_s += limiter.wait_s(0, reserved, now_s)
        while limiter.wait_s(0, reserved, now_s) > 0:  # a float's rounding away
            now_s += 1e-6
        buckets = limiter.reserve(0, reserved)
        used = int(reserved * min(used_share, 1.0))
        buckets.settle(reserved, used, now_s)
        requests.append((now_s, 1.0))
        tokens.append((now_s, float(used)))
    return requests, tokens


def overfill(spent: list[tuple[float, float]], rate_per_s: float) -> float:
    """The most that any window holds beyond rate * T + burst, in units of the largest call; at most 1 is allowed."""
    largest = max((amount for _, amount in spent), default=0.0)
    worst = 0.0
    for first, last in itertools.combinations_with_replacement(range(len(spent)), 2):
        window_s = spent[last][0] - spent[first][0]
        total = sum(amount for _, amount in spent[first : last + 1])
        allowed = rate_per_s * (window_s + BURST_S)
        worst = max(worst, (total - allowed) / largest if largest else 0.0)
    return worst


@given(
    CALLS.map(lambda steps: [step for step in steps if step[3] != "regain"]), st.floats(1, 5_000), st.floats(10, 1e6)
)
def test_no_window_holds_more_than_rate_burst_and_one_call(steps, requests_per_minute, tokens_per_minute):
    """Over every window of T seconds, requests and tokens spent are at most rate * T + burst + one call."""
    limits = Limits(requests_per_minute, tokens_per_minute)
    requests, tokens = spend(RateLimiter(limits), limits, steps)
    assert overfill(requests, requests_per_minute / 60 * REFILL_SHARE) <= 1 + 1e-6
    assert overfill(tokens, tokens_per_minute / 60 * REFILL_SHARE) <= 1 + 1e-6


@given(CALLS, st.integers(60, 5_000))
def test_no_minute_exceeds_the_limit_where_calls_fit_the_bucket(steps, requests_per_minute):
    """Any 60 s hold at most the limit of requests, gained partitions among them: they start empty."""
    limits = Limits(requests_per_minute, 1e9)
    requests, _ = spend(RateLimiter(limits), limits, steps)
    for at_s, _ in requests:
        assert sum(1 for other_s, _ in requests if at_s <= other_s < at_s + 60) <= requests_per_minute + 1


def test_a_minute_at_full_demand_uses_the_limit_and_not_more():
    """With always more to do, each minute carries between 98 % and 100 % of the limit."""
    limiter, now_s, times = RateLimiter(Limits(500, 1e9)), 0.0, []
    limiter.gain(0, now_s)
    while now_s < 300:
        wait_s = limiter.wait_s(0, 100, now_s)
        now_s += wait_s + (1e-9 if wait_s else 0)
        if limiter.wait_s(0, 100, now_s) == 0:
            limiter.reserve(0, 100)
            times.append(now_s)
    for start_s in range(5, 235, 5):
        inside = sum(1 for at_s in times if start_s <= at_s < start_s + 60)
        assert 490 <= inside <= 500


def test_a_call_larger_than_the_bucket_goes_into_debt_alone():
    """A call of ten seconds' tokens goes when the bucket is full, and the next waits until its debt is repaid."""
    limiter = RateLimiter(Limits(1e6, 6_100))  # 100 tokens a second
    limiter.gain(0, 0.0)
    assert limiter.wait_s(0, 1_000, 0.0) == pytest.approx(1.0)
    assert limiter.wait_s(0, 1_000, 1.0) == 0
    limiter.reserve(0, 1_000)
    assert limiter.wait_s(0, 50, 1.0) == pytest.approx(9.5)
    assert limiter.wait_s(0, 1_000, 1.0) == pytest.approx(10.0)


def test_a_gained_partition_starts_empty():
    """Its last owner may just have spent a full bucket: the new one begins with nothing."""
    limiter = RateLimiter(Limits(600, 1e6))
    limiter.gain(0, 0.0)
    assert limiter.wait_s(0, 10, 100.0) == 0
    limiter.lose(0)
    assert limiter.wait_s(0, 10, 100.0) == float("inf")
    limiter.gain(0, 100.0)
    assert limiter.wait_s(0, 10, 100.0) > 0


def test_retry_after_holds_every_partition():
    """A 429's Retry-After makes all calls of the endpoint wait, and a shorter one later does not shorten it."""
    limiter = RateLimiter(Limits(1e6, 1e9))
    for partition in (0, 1):
        limiter.gain(partition, 0.0)
    limiter.hold(12.0)
    limiter.hold(11.0)
    assert limiter.wait_s(0, 1, 10.0) == limiter.wait_s(1, 1, 10.0) == pytest.approx(2.0)
    assert limiter.wait_s(1, 1, 12.0) == 0
