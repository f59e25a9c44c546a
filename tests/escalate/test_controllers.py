"""Retry, breaker, clock and prices: small rules with no time of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.escalate.breaker import COOLDOWN_MAX_S, COOLDOWN_S, FAILURES_MAX, Breaker, Circuit
from stream_app.escalate.clock import RunningClock
from stream_app.escalate.prices import DEFAULT_PRICES, Price, price_of
from stream_app.escalate.retry import CAP_S, GiveUp, Sleep, next_step
from stream_app.settings import Endpoint


@given(st.integers(1, 100), st.floats(0, 1_000), st.floats(0, 0.999), st.floats(0, 100))
def test_a_retry_never_passes_the_deadline_nor_what_the_server_asked(failures, left_s, draw, at_least_s):
    """The delay is at least the server's, at most the back-off, and always before the deadline."""
    step = next_step(failures, left_s, draw, at_least_s)
    if isinstance(step, Sleep):
        assert at_least_s <= step.s < left_s
        assert step.s <= max(at_least_s, CAP_S, 0.5 * 2 ** (failures - 1))
    else:
        assert max(at_least_s, draw * min(CAP_S, 0.5 * 2 ** min(failures - 1, 16))) >= left_s


def test_back_off_doubles_with_full_jitter():
    """The delay is drawn between 0 and 0.5, 1, 2, ... 20 s."""
    assert [next_step(n, 1e9, 0.5) for n in (1, 2, 3, 10)] == [Sleep(0.25), Sleep(0.5), Sleep(1.0), Sleep(10.0)]
    assert next_step(3, 1e9, 0.0) == Sleep(0.0)
    assert next_step(1, 0.0, 0.0) == GiveUp()


def failed_often(breaker: Breaker, now_s: float, times: int = FAILURES_MAX) -> None:
    for _ in range(times):
        breaker.failed(now_s, probe=False)


def test_the_circuit_opens_after_failures_in_a_row_only():
    """An answer in between starts the count again."""
    breaker = Breaker()
    failed_often(breaker, 0.0, FAILURES_MAX - 1)
    breaker.answered()
    failed_often(breaker, 0.0, FAILURES_MAX - 1)
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.wait_s(0.0) == 0
    breaker.failed(0.0, probe=False)
    assert breaker.circuit is Circuit.OPEN
    assert breaker.wait_s(0.0) == COOLDOWN_S


def test_one_probe_at_a_time_decides():
    """After the cool-down one call goes; its failure doubles the cool-down, its answer closes the circuit."""
    breaker = Breaker()
    failed_often(breaker, 0.0)
    now_s, expected_s = COOLDOWN_S, COOLDOWN_S
    for _ in range(8):
        assert breaker.wait_s(now_s) == 0
        assert breaker.started() is True
        assert breaker.wait_s(now_s) == float("inf")
        breaker.failed(now_s, probe=True)
        expected_s = min(COOLDOWN_MAX_S, 2 * expected_s)
        assert breaker.wait_s(now_s) == expected_s
        now_s += expected_s
    assert breaker.started() is True
    breaker.answered()
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.cooldown_s == COOLDOWN_S
    assert breaker.started() is False


def test_a_probe_that_tells_nothing_makes_room_for_the_next():
    """A cancelled probe does not leave the circuit half open for ever."""
    breaker = Breaker()
    failed_often(breaker, 0.0)
    breaker.started()
    breaker.abandoned(2.0, probe=True)
    assert breaker.wait_s(2.0) == 0


def test_late_failures_of_old_calls_change_nothing_while_open():
    """Hundreds of calls under way when the circuit opens do not lengthen the cool-down."""
    breaker = Breaker()
    failed_often(breaker, 0.0, 300)
    assert breaker.wait_s(0.0) == COOLDOWN_S


def test_a_refused_key_opens_at_once():
    """Nobody tries a wrong key five times."""
    breaker = Breaker()
    breaker.failed(0.0, probe=False, at_once=True)
    assert breaker.circuit is Circuit.OPEN


def test_failures_of_an_endpoint_that_nobody_needs_are_forgotten():
    """Those of an outage that ended before the circuit opened are in no row with the first one weeks later."""
    breaker = Breaker()
    failed_often(breaker, 0.0, FAILURES_MAX - 1)
    breaker.forget(1.0)
    breaker.failed(1e6, probe=False)
    assert breaker.circuit is Circuit.CLOSED


def test_an_open_circuit_is_forgotten_only_after_its_cool_down():
    """Until then, and while a probe is under way, it stays what it is."""
    breaker = Breaker()
    failed_often(breaker, 0.0)
    breaker.forget(COOLDOWN_S / 2)
    assert breaker.circuit is Circuit.OPEN
    breaker.started()
    breaker.forget(COOLDOWN_S)
    assert breaker.circuit is Circuit.HALF_OPEN
    breaker.abandoned(COOLDOWN_S, probe=True)
    breaker.forget(COOLDOWN_S)
    assert breaker.circuit is Circuit.CLOSED


def test_running_time_stands_still_while_stopped():
    """What is waited by choice does not count."""
    clock = RunningClock()
    assert clock.running_s(10.0) == 10.0
    clock.set_stopped(True, 10.0)
    clock.set_stopped(True, 15.0)
    assert clock.running_s(100.0) == 10.0
    assert clock.stopped
    clock.set_stopped(False, 110.0)
    clock.set_stopped(False, 111.0)
    assert clock.running_s(112.0) == 12.0
    assert not clock.stopped


def test_prices_come_from_the_settings_then_from_the_table():
    """A price in the settings wins, each way by itself; a dated snapshot has its model's price."""
    assert price_of(Endpoint(model="gpt-4o-mini")) == DEFAULT_PRICES["gpt-4o-mini"]
    assert price_of(Endpoint(model="gpt-4o-mini-2024-07-18")) == DEFAULT_PRICES["gpt-4o-mini"]
    assert price_of(Endpoint(model="gpt-4o-mini", usd_per_million_input=0)) == Price(0, 0.60)
    assert price_of(Endpoint(model="own", usd_per_million_input=0, usd_per_million_output=0)) == Price(0, 0)
    with pytest.raises(SettingsError, match="own-7b"):
        price_of(Endpoint(model="own-7b", usd_per_million_input=1))


def test_a_price_is_rounded_up_to_whole_nano_dollars():
    """A million tokens cost what the table says, and no call is free by rounding."""
    price = Price(0.15, 0.60)
    assert price.cost_nusd(1_000_000, 0) == 150_000_000
    assert price.cost_nusd(1, 0) == 150
    assert Price(0.0001, 0).cost_nusd(1, 0) == 1
