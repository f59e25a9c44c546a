"""The alarm over audited answers: how seldom it is false, and how soon it is true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.audit import RiskMonitor


def first_alarm(losses, bound, delta=0.05):
    """After how many audits the alarm comes; None if it does not."""
    monitor = RiskMonitor(bound, delta)
    for place, loss in enumerate(losses):
        if monitor.observe(loss):
            return place + 1
    return None


def streams(risk, count, length, seed):
    """So many streams of losses, 1 with probability `risk`."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        yield (draw.random(length) < risk).astype(float).tolist()


@pytest.mark.parametrize("bound", [0.02, 0.05, 0.1])
def test_false_alarms_are_rare_however_long_one_looks(bound):
    """At exactly the bound at most 5 % of streams ever alarm, looked at after each of 5,000 audits.

    Three hundred streams here; `python -m benchmarks.alarm` takes a thousand.
    """
    alarms = sum(first_alarm(losses, bound) is not None for losses in streams(bound, 300, 5000, 7))
    assert alarms <= 15


@pytest.mark.parametrize("bound", [0.02, 0.05])
def test_twice_the_bound_is_found_soon(bound):
    """At twice the bound half of the streams alarm within 700 audits."""
    delays = [first_alarm(losses, bound) or np.inf for losses in streams(2 * bound, 400, 4000, 8)]
    assert np.median(delays) < 700


@pytest.mark.parametrize("bound", [0.02, 0.05])
def test_a_change_after_a_long_good_time_is_found_soon_too(bound):
    """Two thousand good audits must not buy as many bad ones: half of the streams alarm within 30 losses."""
    delays = []
    for good, bad in zip(streams(bound / 2, 200, 2_000, 9), streams(2 * bound, 200, 4_000, 10), strict=True):
        delays.append((first_alarm([*good, *bad], bound) or np.inf) - 2_000)
    assert np.median(delays) < 30 / bound


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.001, 0.5))
def test_wealth_is_fair_or_worse_under_the_bound(losses, bound):
    """After any past, the expected wealth after one more loss of mean at most the bound is no more than before."""
    after = []
    for loss in (0.0, 1.0):
        monitor = RiskMonitor(bound, 0.05)
        for one in losses:
            monitor.observe(one)
        before = monitor.wealth
        monitor.observe(loss)
        assert monitor.wealth >= 0
        after.append(monitor.wealth)
    assert (1 - bound) * after[0] + bound * after[1] <= before * (1 + 1e-9)


def test_an_alarm_stays():
    """What was shown once is not taken back by good answers after it."""
    monitor = RiskMonitor(0.05, 0.05)
    for _ in range(50):
        monitor.observe(1)
    assert monitor.alarm
    for _ in range(5000):
        monitor.observe(0)
    assert monitor.alarm
    assert (monitor.audited, monitor.risk) == (5050, pytest.approx(50 / 5050))


@pytest.mark.parametrize(("bound", "delta"), [(0, 0.05), (1, 0.05), (0.05, 0), (0.05, 1)])
def test_what_is_no_probability_is_refused(bound, delta):
    """Also a loss outside [0, 1]."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        RiskMonitor(bound, delta)
    with pytest.raises(ValueError, match="not in"):
        RiskMonitor(0.05, 0.05).observe(1.1)
