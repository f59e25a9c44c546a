"""What a table of counts shows of a policy: never more than is true, and what is true if there are rows enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.certification import error_bound
from stream_app.routing.promises import (
    NOT_ACCEPTED,
    ErrorAtMost,
    MissedAtMost,
    WrongAtPrevalence,
    counts_of,
    shown,
)

NOT_TOXIC, TOXIC = 0, 1
DELTA = 0.05


def table(hits, misses, left, alarms, right, left_other):
    """Counts of two labels: rows of the rare one as accepted right, as the other or not, and the same of the
    other."""
    return np.array([[right, alarms, left_other], [misses, hits, left]])


def test_counts_are_by_truth_and_by_what_was_accepted():
    """The last column holds what was not accepted."""
    truth = np.array([0, 0, 0, 1, 1, 2])
    accepted_as = np.array([0, 1, NOT_ACCEPTED, 1, NOT_ACCEPTED, 0])
    assert counts_of(truth, accepted_as, 3).tolist() == [[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0]]


def test_errors_are_those_accepted_wrongly():
    """Over all labels, and over what was accepted with some of them."""
    counts = table(90, 8, 2, 3, 290, 7)
    assert ErrorAtMost(0.1).bound(counts, DELTA) == error_bound(11, 391, DELTA)
    assert ErrorAtMost(0.1, (TOXIC,)).bound(counts, DELTA) == error_bound(3, 93, DELTA)
    assert ErrorAtMost(0.1).bound(np.zeros_like(counts), DELTA) == 1


def test_misses_are_of_all_rows_of_the_label():
    """A row that is escalated is not missed, and counts among the rows."""
    assert MissedAtMost(0.1, TOXIC).bound(table(90, 8, 2, 3, 290, 7), DELTA) == error_bound(8, 100, DELTA)


@given(st.floats(0.005, 0.5), st.integers(1, 300), st.integers(0, 40))
def test_precision_falls_with_prevalence(prevalence, hits, alarms):
    """The rarer a label, the more of what is accepted with it may be wrong; never less than what was seen."""
    counts = table(hits, 0, 20, alarms, 300, 0)
    bound = WrongAtPrevalence(0.4, TOXIC, prevalence, {NOT_TOXIC: 1.0}).bound(counts, DELTA)
    rarer = WrongAtPrevalence(0.4, TOXIC, prevalence / 2, {NOT_TOXIC: 1.0}).bound(counts, DELTA)
    hit, alarm = hits / (hits + 20), alarms / (300 + alarms)
    assert rarer >= bound >= (1 - prevalence) * alarm / (prevalence * hit + (1 - prevalence) * alarm)


@pytest.mark.parametrize(("hit", "share"), [(0.9, 0.4), (0.6, 0.2)])
def test_a_promise_that_is_just_not_true_is_seldom_shown(hit, share):
    """At a rate of false alarms that just breaks it, at most 5 % of 4,000 samples show it, and two standard
    errors."""
    prevalence = 0.05
    rate = hit * prevalence * share / ((1 - prevalence) * (1 - share)) * 1.0001
    promise = WrongAtPrevalence(share, TOXIC, prevalence, {NOT_TOXIC: 1.0})
    draw = np.random.default_rng(3)
    seen = 0
    for _ in range(4000):
        hits, alarms = int(draw.binomial(300, hit)), int(draw.binomial(900, rate))
        seen += shown([promise], [table(hits, 0, 300 - hits, alarms, 900 - alarms, 0)], DELTA)
    assert seen / 4000 <= DELTA + 2 * (DELTA * (1 - DELTA) / 4000) ** 0.5


def test_the_rows_it_takes_are_told():
    """With so many rows and no false alarm the promise is shown, with one row fewer it is not."""
    promise = WrongAtPrevalence(0.1, TOXIC, 0.01, {NOT_TOXIC: 1.0})
    needed = promise.rows_needed(table(270, 0, 30, 0, 500, 0), DELTA)
    assert shown([promise], [table(270, 0, 30, 0, needed, 0)], DELTA)
    assert not shown([promise], [table(270, 0, 30, 0, needed - 1, 0)], DELTA)
    assert needed > 3_000
    with pytest.raises(ValueError, match="accepted"):
        promise.rows_needed(table(0, 0, 300, 0, 500, 0), DELTA)


def test_each_part_of_the_other_traffic_counts_by_its_weight():
    """A class of false alarms that is a tenth of the rest counts for a tenth."""
    counts = np.array([[500, 0, 0, 0], [0, 80, 0, 20], [470, 30, 0, 0]])
    mixed = WrongAtPrevalence(0.5, 1, 0.1, {0: 0.9, 2: 0.1}).bound(counts, DELTA)
    even = WrongAtPrevalence(0.5, 1, 0.1, {0: 0.5, 2: 0.5}).bound(counts, DELTA)
    none = WrongAtPrevalence(0.5, 1, 0.1, {0: 1.0}).bound(counts, DELTA)
    assert none < mixed < even
