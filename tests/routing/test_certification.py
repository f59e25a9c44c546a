"""The arithmetic of certificates, against scipy and in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stream_app.routing.certification import (
    COVERAGES,
    binomial_cdf,
    error_bound,
    labels_needed,
    rows_needed,
)
from stream_app.routing.promises import ErrorAtMost, last_shown


def tally(accepted, wrong):
    """A table of two labels: all is accepted as the first, and so many are truly of the second."""
    return np.array([[accepted - wrong, 0, 0], [wrong, 0, 0]])


def steps(accepted, wrong):
    """One sample's steps."""
    return [(tally(rows, errors),) for rows, errors in zip(accepted, wrong, strict=True)]


def certified_step(tables, error_max, delta):
    """The fixed sequence with an error target as its only promise."""
    return last_shown([ErrorAtMost(error_max)], tables, delta)


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(0.0001, 0.9999))
def test_binomial_cdf_is_scipys(pair, p):
    """Our binomial CDF equals scipy's to nine digits, in both tails."""
    k, n = pair
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-7, abs=1e-9)


@given(counts, st.sampled_from([0.01, 0.05, 0.1]))
def test_bound_is_clopper_pearson(pair, delta):
    """The bound is the beta quantile that Clopper and Pearson's is, and never below what was seen."""
    k, n = pair
    expected = 1.0 if k == n else stats.beta.ppf(1 - delta, k + 1, n - k)
    assert error_bound(k, n, delta) == pytest.approx(expected, abs=1e-7)
    assert error_bound(k, n, delta) >= k / n


@given(counts, st.floats(0.001, 0.2))
def test_bound_grows_with_errors_and_shrinks_with_delta(pair, delta):
    """One more error never lowers the bound; asking for less certainty never raises it."""
    k, n = pair
    assert error_bound(min(k + 1, n), n, delta) >= error_bound(k, n, delta) - 1e-8
    assert error_bound(k, n, delta * 2) <= error_bound(k, n, delta) + 1e-8


@given(st.floats(0, 1), st.integers(1, 300))
def test_certain_edges(p, n):
    """All n or fewer successes are certain; no trial can succeed with probability 0, all must with 1."""
    assert binomial_cdf(n, n, p) == 1.0
    assert binomial_cdf(0, n, 0.0) == 1.0
    assert binomial_cdf(n - 1, n, 1.0) == 0.0
    assert error_bound(0, 0, 0.05) == 1.0


@pytest.mark.parametrize(("error", "labels"), [(0.05, 59), (0.02, 149), (0.01, 299), (0.005, 598)])
def test_labels_needed(error, labels):
    """The known numbers of faultless labels at delta 5 %; one label fewer does not pass the test."""
    assert labels_needed(error, 0.05) == labels
    assert certified_step(steps([labels], [0]), error, 0.05) == 0
    assert certified_step(steps([labels - 1], [0]), error, 0.05) is None
    assert rows_needed(error, 0.05) * COVERAGES[0] >= labels


def test_sequence_stops_at_the_first_failure():
    """A step behind one that failed is never promised, however good it looks; no rows accepted ends it too."""
    assert certified_step(steps([100, 200, 5000], [0, 40, 0]), 0.05, 0.05) == 0
    assert certified_step(steps([100, 200, 300], [40, 0, 0]), 0.05, 0.05) is None
    assert certified_step(steps([0, 200], [0, 0]), 0.05, 0.05) is None
    assert certified_step(steps([], []), 0.05, 0.05) is None


def test_every_sample_must_pass():
    """A step good in one sample and bad in another is not promised, nor one that accepts nothing in one."""
    good, bad = tally(1000, 10), tally(1000, 60)
    assert certified_step([(good, good), (good, bad)], 0.05, 0.05) == 0
    assert certified_step([(good, tally(0, 0))], 0.05, 0.05) is None


def test_promise_holds_in_simulation():
    """Over 2,000 seeded samples, the certified step's true error exceeds the target in at most delta of them."""
    seed, runs, rows, target, delta = 20261120, 2000, 600, 0.05, 0.1
    rng = np.random.default_rng(seed)
    # Error rises from 1 % at the surest text to 17 % at the least sure: the true error of a cut at coverage c.
    true_error = [0.01 + 0.16 * c / 2 for c in COVERAGES]
    broken = certified = 0
    for _ in range(runs):
        rank = rng.random(rows)
        wrong = rng.random(rows) < 0.01 + 0.16 * rank
        accepted = [int((rank <= c).sum()) for c in COVERAGES]
        errors = [int((wrong & (rank <= c)).sum()) for c in COVERAGES]
        step = certified_step(steps(accepted, errors), target, delta)
        certified += step is not None
        broken += step is not None and true_error[step] > target
    # Three standard deviations of a binomial with 2,000 trials at delta are 2 %.
    assert broken / runs <= delta + 0.02, f"seed {seed}"
    assert certified / runs > 0.3, "a test that certifies nothing would keep every promise"
