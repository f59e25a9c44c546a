"""Which endpoint is asked next: the first that can be, and a probe where one is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.breaker import Circuit
from stream_app.escalate.route import Passage, Route, better_elsewhere, passage, route

CLEAR, PROBE, SHUT = Passage.CLEAR, Passage.PROBE, Passage.SHUT


@pytest.mark.parametrize(
    ("passages", "expected"),
    [
        ([CLEAR], Route((0,), 0)),
        ([CLEAR, CLEAR], Route((0,), 0)),
        ([SHUT, CLEAR], Route((1,), 1)),
        ([PROBE, CLEAR], Route((0, 1), 1)),
        ([SHUT, PROBE, CLEAR, PROBE], Route((1, 2), 2)),
        ([CLEAR, PROBE], Route((0,), 0)),
        ([SHUT, PROBE, PROBE], Route((1, 2), 1)),
        ([PROBE], Route((0,), 0)),
        ([SHUT], None),
        ([SHUT, SHUT, SHUT], None),
    ],
)
def test_calls_go_to_the_first_clear_endpoint_and_probes_before_it(passages, expected):
    """In the settings' order; an earlier endpoint whose cool-down is over is tried first, and decides nothing."""
    assert route(passages) == expected


@given(st.lists(st.sampled_from(Passage), min_size=1, max_size=8))
def test_nothing_shut_is_asked_and_nothing_behind_the_first_clear_one(passages):
    """And only where every endpoint is shut there is no way."""
    way = route(passages)
    assert (way is None) == all(one is SHUT for one in passages)
    if way is None:
        return
    assert list(way.tries) == sorted(set(way.tries))
    assert way.decides in way.tries
    assert not any(passages[number] is SHUT for number in way.tries)
    if CLEAR in passages:
        first = passages.index(CLEAR)
        assert way.decides == way.tries[-1] == first
        assert set(way.tries[:-1]) == {number for number in range(first) if passages[number] is PROBE}


@pytest.mark.parametrize(
    ("circuit", "wait_s", "expected"),
    [
        (Circuit.CLOSED, 0.0, CLEAR),
        (Circuit.OPEN, 0.3, SHUT),
        (Circuit.OPEN, 0.0, PROBE),
        (Circuit.HALF_OPEN, float("inf"), SHUT),
    ],
)
def test_what_a_circuit_means_for_a_call(circuit, wait_s, expected):
    """While a probe is under way nobody else goes there."""
    assert passage(circuit, wait_s) is expected


@pytest.mark.parametrize(
    ("circuits", "failed", "expected"),
    [
        ([Circuit.OPEN, Circuit.CLOSED], 0, True),
        ([Circuit.HALF_OPEN, Circuit.CLOSED], 0, True),
        ([Circuit.CLOSED, Circuit.OPEN], 1, True),
        ([Circuit.CLOSED, Circuit.CLOSED], 0, False),
        ([Circuit.OPEN, Circuit.OPEN], 0, False),
        ([Circuit.OPEN, Circuit.HALF_OPEN], 0, False),
        ([Circuit.OPEN], 0, False),
        ([Circuit.CLOSED], 0, False),
    ],
)
def test_a_failed_call_goes_on_elsewhere_only_from_an_open_circuit_to_a_closed_one(circuits, failed, expected):
    """Else the back-off stands between two tries, as ever: nobody runs to and fro between two bad endpoints."""
    assert better_elsewhere(circuits, failed) is expected
