"""Holding the share that is escalated: at the start by the sample, and then whatever comes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.routing.decide import Route, Routed
from stream_app.routing.holding import Backing, Held, hold, hold_all
from stream_app.routing.share import KNOTS_MAX, HeldShare, Ranks, ShareController, share_threshold


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
        assert abs(escalated / count - share) <= (1 + 2 * controller.step) / (controller.step * count) + 1e-9


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


def test_a_batch_is_held_as_its_events_one_by_one():
    """`hold` gives what `escalates` gives, event by event, and comes to the same level, bit by bit."""
    ranks = np.random.default_rng(3).random(500)
    one, whole = ShareController(0.2, 0.35), ShareController(0.2, 0.35)
    expected = [one.escalates(rank) for rank in ranks.tolist()]
    escalated, levels = whole.hold(ranks)
    assert escalated.tolist() == expected
    assert (levels[0], whole.level) == (0.35, one.level)


@pytest.mark.parametrize("rows", [50, 5_000])
def test_ranks_are_the_share_of_the_sample_that_was_less_sure(rows):
    """Of its own sample a rank is exact where all knots fit, else to half a per cent; a cut is its inverse."""
    sample = np.random.default_rng(4).beta(8, 1, rows).astype(np.float32)
    ranks = Ranks.of(sample)
    assert len(ranks.rank) == min(rows, KNOTS_MAX)
    less_sure = np.array([(sample < one).mean() for one in sample])
    np.testing.assert_allclose(ranks.rank_of(sample), less_sure, atol=1e-9 if rows < KNOTS_MAX else 0.005)
    for level in (0.1, 0.5, 0.9):
        below = sample < ranks.cut_at(level)
        assert abs(below.mean() - level) <= 0.02 + 1 / rows
    assert ranks.cut_at(np.array([-0.01, 0.0, 1.02])).tolist() == [0, 0, 1]


def test_equal_confidences_have_one_rank():
    """A plateau, as an isotonic map makes it, has the rank of its lower end."""
    ranks = Ranks.of(np.array([0.5, 0.5, 0.5, 0.9], np.float32))
    assert ranks.rank_of(np.array([0.5, 0.9], np.float32)).tolist() == [0, 0.75]


SHARE = HeldShare(0.2, Ranks(np.array([0.5, 1.0]), np.array([0.0, 1.0])), floor=0.6)


def routed_of(confidence, route):
    rows = len(confidence)
    return Routed(
        label=np.zeros(rows, np.intp),
        confidence=np.array(confidence, np.float32),
        probabilities=np.ones((rows, 2), np.float32),
        tier=np.zeros(rows, np.int8),
        route=np.array(route, np.int8),
    )


def test_what_is_accepted_for_want_of_room_is_not_certified():
    """Below the certified cut, or outside the domain, an answer may be accepted, with nothing behind it."""
    routed = routed_of([0.55, 0.99, 0.99], [Route.UNSURE, Route.OUT_OF_DOMAIN, Route.ACCEPTED])
    held = Held.of(3)
    hold(SHARE, ShareController(0.2, -0.01), routed, np.arange(3), held)
    assert routed.route.tolist() == [Route.ACCEPTED] * 3
    assert held.backing.tolist() == [Backing.BELOW_FLOOR, Backing.FOREIGN, Backing.FLOOR]
    assert [Backing(one).uncertified_reason for one in held.backing] == ["manual", "uncalibrated", None]


def test_foreign_texts_go_first_and_within_the_share():
    """Nothing but foreign texts: a fifth of them is escalated, as out of domain, and not all."""
    routed = routed_of([0.99] * 2_000, [Route.OUT_OF_DOMAIN] * 2_000)
    hold_all(SHARE, routed)
    assert abs((routed.route == Route.OUT_OF_DOMAIN).mean() - 0.2) <= 0.0265
    assert ((routed.route == Route.OUT_OF_DOMAIN) | (routed.route == Route.ACCEPTED)).all()
    mixed = routed_of([0.9, 0.99] * 200, [Route.UNSURE, Route.OUT_OF_DOMAIN] * 200)
    hold_all(HeldShare(0.5, SHARE.ranks, 0.6), mixed)
    assert (mixed.route[1::2] == Route.OUT_OF_DOMAIN).mean() > 0.95


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
def test_who_is_escalated_depends_on_the_text_and_not_on_the_moment(share):
    """On even traffic the level stays within a few parts of the share: the surest of those escalated is hardly surer
    than the share's own cut.
    """
    controller = ShareController(share, share)
    escalated, levels = controller.hold(np.random.default_rng(6).random(20_000))
    assert abs(escalated.mean() - share) <= 0.1 * share
    assert levels.std() <= 0.2 * share
