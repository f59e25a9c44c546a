"""Confidence that means what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_app.routing.calibration import (
    calibration_errors,
    confident,
    fit_weights,
    isotonic_knots,
    negative_log_likelihood,
    pool,
)

SEED = 20261120


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def sample(rows, temperature, labels=3):
    """Probabilities that are overconfident by `temperature`, and truths drawn from the honest ones."""
    rng = np.random.default_rng(SEED)
    logits = rng.normal(size=(rows, labels)) * 2
    honest = softmax(logits)
    truth = np.array([rng.choice(labels, p=row / row.sum()) for row in honest.astype(float)])
    return softmax(logits * temperature), truth


probability_rows = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.floats(0, 1, width=32)
).map(lambda raw: (raw + np.float32(0.01)) / (raw + np.float32(0.01)).sum(axis=1, keepdims=True))


@given(probability_rows, st.floats(0.1, 10))
def test_temperature_keeps_order_and_sums(probabilities, weight):
    """One member's weight never changes which label is on top, and the result is a distribution."""
    pooled = pool([probabilities], [weight])
    assert np.allclose(pooled.sum(axis=1), 1, atol=1e-5)
    rows = np.arange(len(pooled))
    assert (pooled[rows, probabilities.argmax(axis=1)] >= pooled.max(axis=1) - 1e-6).all()


def test_weight_one_is_no_change():
    """A weight of 1 gives the member's own probabilities back."""
    probabilities, _ = sample(50, 1)
    assert np.allclose(pool([probabilities], [1.0]), probabilities, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_temperature_is_found_again(temperature):
    """Overconfidence by a factor T is answered with the weight 1 / T, and the calibration error falls."""
    probabilities, truth = sample(20_000, temperature)
    (weight,) = fit_weights([probabilities], truth)
    assert weight == pytest.approx(1 / temperature, rel=0.05), f"seed {SEED}"
    before, after = (calibration_errors(p, truth) for p in (probabilities, pool([probabilities], [weight])))
    assert after.expected_calibration_error < 0.02 < before.expected_calibration_error
    assert after.negative_log_likelihood < before.negative_log_likelihood
    assert after.brier < before.brier


def test_a_useless_member_gets_no_weight():
    """Pooling finds who knows: noise beside an honest model weighs near nothing, and never hurts."""
    honest, truth = sample(5_000, 1)
    noise = softmax(np.random.default_rng(SEED + 1).normal(size=honest.shape) * 2)
    weights = fit_weights([honest, noise], truth)
    assert weights[0] == pytest.approx(1, abs=0.1)
    assert weights[1] < 0.1
    assert negative_log_likelihood(pool([honest, noise], weights), truth) <= negative_log_likelihood(honest, truth)


@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(0, 1, width=32)).flatmap(
        lambda c: st.tuples(st.just(c), hnp.arrays(np.bool_, len(c)))
    )
)
def test_isotonic_knots_rise(pair):
    """Knots rise in both directions and stay strictly inside (0, 1): no block is certain."""
    knots = isotonic_knots(*pair)
    if knots is None:
        return
    xs, ys = knots
    assert (np.diff(xs.astype(np.float32)) > 0).all()
    assert (np.diff(ys) >= 0).all()
    assert 0 < ys.min() <= ys.max() < 1


def test_isotonic_finds_the_share_right():
    """Where the share of right answers is the square of confidence, the knots say so."""
    rng = np.random.default_rng(SEED)
    confidence = rng.uniform(0.5, 1, 20_000).astype(np.float32)
    xs, ys = isotonic_knots(confidence, rng.random(20_000) < confidence**2)
    grid = np.linspace(0.55, 0.95, 9)
    assert np.abs(np.interp(grid, xs, ys) - grid**2).max() < 0.04, f"seed {SEED}"


@settings(max_examples=50)
@given(probability_rows, st.floats(0, 1), st.floats(0, 1))
def test_mapped_confidence_keeps_the_top_label(probabilities, low, high):
    """Mapping the top confidence keeps a distribution and its top label, whatever the knots say."""
    mapped = confident(probabilities, np.float32([0, 1]), np.float32(sorted([low, high])))
    top = probabilities.argmax(axis=1)
    assert np.allclose(mapped.sum(axis=1), 1, atol=1e-4)
    assert (mapped.argmax(axis=1) == top).all(), "a tie would make an answer of the label that stands first"
    assert mapped.min() >= -1e-6


def test_errors_of_a_perfect_and_a_constant_model():
    """Certain and right is 0 everywhere; certain and wrong half the time is an error of one half."""
    truth = np.array([0, 1] * 50)
    perfect = np.eye(2, dtype=np.float32)[truth]
    errors = calibration_errors(perfect, truth)
    assert (errors.expected_calibration_error, errors.brier, errors.area_under_risk_coverage) == (0, 0, 0)
    constant = np.tile(np.float32([1, 0]), (100, 1))
    assert calibration_errors(constant, truth).expected_calibration_error == pytest.approx(0.5)
    assert calibration_errors(constant, truth).brier == pytest.approx(1.0)
