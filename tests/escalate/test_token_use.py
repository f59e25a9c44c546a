"""Estimates of tokens: corrected by what is reported, bounded, and wrong by a figure that is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.token_use import RATIO_MAX, RATIO_MIN, VERSIONS_MAX, TokenUse


def test_a_constant_bias_is_learnt():
    """An estimate that is 30 % too small is right to 2 % after a hundred answers, and its error is reported."""
    use, draw = TokenUse("used"), random.Random(1)
    for _ in range(300):
        tokens_in = draw.randint(200, 1_500)
        estimate = round(tokens_in * 0.7)
        charged = use.charge("v", estimate, 300)
        use.settle("v", (estimate, 300), (tokens_in, 40), charged)
    assert use.charge("v", 700, 300) == pytest.approx(1_040, rel=0.02)
    assert use.error < 0.03
    assert abs(use.bias) < 0.03


def test_the_sum_is_right_where_single_calls_are_not():
    """With even errors of 30 % either way, the charges add up to what is counted within 2 %."""
    use, draw, charged_sum, counted_sum = TokenUse("used"), random.Random(2), 0, 0
    for call in range(2_000):
        tokens_in, tokens_out = draw.randint(100, 2_000), draw.randint(10, 90)
        estimate = round(tokens_in * draw.uniform(0.7, 1.3))
        charged = use.charge("v", estimate, 300)
        counted = use.settle("v", (estimate, 300), (tokens_in, tokens_out), charged)
        if call >= 50:
            charged_sum, counted_sum = charged_sum + charged, counted_sum + counted
    assert charged_sum == pytest.approx(counted_sum, rel=0.02)
    assert 0.1 < use.error < 0.2


def test_by_max_tokens_the_longest_output_is_charged_and_kept():
    """A provider that counts `max_tokens` counts them whatever the answer's length: nothing is given back."""
    use = TokenUse("max_tokens")
    assert use.charge("v", 500, 300) == 800
    assert use.settle("v", (500, 300), (500, 20), 800) == 800
    assert use.error == 0


def test_the_first_call_is_charged_in_full():
    """Before anything was reported the longest output is charged, in either way of counting."""
    assert TokenUse("used").charge("v", 500, 300) == TokenUse("max_tokens").charge("v", 500, 300) == 800


def test_prompt_versions_learn_apart_and_are_bounded():
    """What one prompt's answers are like says nothing about another's, and old versions are forgotten."""
    use = TokenUse("used")
    for _ in range(100):
        use.settle("long", (100, 300), (100, 290), 390)
        use.settle("short", (100, 300), (200, 10), 310)
    assert use.charge("long", 100, 300) > 380
    assert use.charge("short", 100, 300) < 240
    for number in range(VERSIONS_MAX):
        use.settle(f"v{number}", (100, 300), (100, 10), 110)
    assert use.charge("long", 100, 300) == 400
    assert len(use._versions) == VERSIONS_MAX


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(1, 4_000), st.integers(0, 10**7), st.integers(0, 10**7)),
        max_size=50,
    ),
    st.sampled_from(["max_tokens", "used"]),
)
def test_no_report_misleads_beyond_the_bounds(calls, counted):
    """Whatever an endpoint reports, a charge stays between the bounded ratio and the longest output."""
    use = TokenUse(counted)
    for estimate, output_max, tokens_in, tokens_out in calls:
        charged = use.charge("v", estimate, output_max)
        assert 1 <= charged <= estimate * RATIO_MAX + output_max + 1
        assert charged >= int(estimate * RATIO_MIN)
        assert use.settle("v", (estimate, output_max), (tokens_in, tokens_out), charged) >= tokens_in
        assert use.error >= 0
