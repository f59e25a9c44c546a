"""Holding the share that is escalated: at the start by the sample, and then whatever comes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.routing.share import STEP, ShareController, share_threshold


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("rows", [100, 2000])
def test_a_new_event_falls_below_the_threshold_with_at_most_that_probability(share, rows):
    """Over 2,000 samples and a new event each: within three standard errors below and above the share."""
    draw = np.random.default_rng(5)
    seen = []
    for _ in range(2000):
        confidence = draw.beta(8, 1, rows + 1).astype(np.float32)
        seen.append(confidence[-1] < share_threshold(confidence[:-1], share))
    slack = 3 * (share * (1 - share) / 2000) ** 0.5
    assert share - 1 / rows - slack <= np.mean(seen) <= share + slack


def test_a_sample_too_small_for_the_share_escalates_nothing():
    """Of ten confidences none is a one-in-twenty quantile."""
    assert share_threshold(np.linspace(0.5, 1, 10, dtype=np.float32), 0.05) == 0


@settings(max_examples=50)
@given(
    st.sampled_from([0.05, 0.2, 0.5]), st.integers(0, 10_000), st.sampled_from(["even", "low", "high", "spiteful"])
)
def test_the_share_is_held_whatever_comes(share, seed, traffic):
    """|escalated / T - share| <= (1 + 2 step) / (step T), after every event, against who knows the level too."""
    draw = np.random.default_rng(seed)
    controller, escalated = ShareController(share, share), 0
    for count in range(1, 1500):
        rank = {"even": draw.random(), "low": 0.0, "high": 1.0, "spiteful": float(controller.level > 0.5)}[traffic]
        escalated += controller.escalates(rank)
        assert abs(escalated / count - share) <= (1 + 2 * STEP) / (STEP * count) + 1e-9


def test_twenty_percent_through_a_shift_of_domain():
    """20,000 events, the second half much less sure: 20 % within half a point in all, and in each half."""
    draw = np.random.default_rng(9)
    ranks = np.concatenate([draw.random(10_000), draw.beta(1, 4, 10_000)])
    controller = ShareController(0.2, 0.2)
    escalated = np.array([controller.escalates(rank) for rank in ranks.tolist()])
    assert abs(escalated.mean() - 0.2) <= 0.005
    assert abs(escalated[10_000:].mean() - 0.2) <= 0.01
    fixed = (ranks < 0.2).mean()
    assert fixed > 0.3
