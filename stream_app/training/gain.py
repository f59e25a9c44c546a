"""Where an LLM is worth asking: not where the small model is unsure, but where the LLM is surer to be right.

An LLM has leanings of its own. If it doubts one label too often, a small model's unsure answer of that label is
better kept, and one of the other label better escalated. So each label gets a cut of its own, set apart from the
others by what the LLM's recorded answers gain; how strict all of them are together is certification's to say.
(Deferral by expected gain: Jitkrittum et al. 2023, arXiv 2307.02764.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import FloatArray
from stream_app.training.cut import Judged, log_odds

GAIN_COVERAGE = 0.85
"""The labels' cuts are set apart where gain would accept this share, where none is asked for: it is usual."""
ROWS_MIN = 100
"""A label with fewer recorded answers is judged by all labels' rows together."""
RIDGE = 1.0
CONFIDENCE_MAX = 0.9995
STEPS = 2_000
SMOOTH_ROWS = 51
"""Neighbours whose value is taken together."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Which rows have an answer of the LLM, and where that was right."""

    rows: BoolArray
    right: BoolArray


def label_offsets(
    tiers: Sequence[Judged], recorded: Recorded, labels: int, coverage: float = GAIN_COVERAGE
) -> Float64Array:
    """By how much, in log-odds, each label's cut lies above the lowest one's, where `coverage` is to be accepted.

    P(LLM right | the small model's label and confidence) is fitted per label, on the last tier's answers; a label's
    cut is where that chance no longer exceeds the confidence by more than some margin, one margin for all labels.
    """
    label, confidence = tiers[-1].label[recorded.rows], tiers[-1].confidence[recorded.rows]
    right = recorded.right[recorded.rows]
    grid = np.linspace(1 / labels + 1e-3, CONFIDENCE_MAX, STEPS)
    fits = [_fit(confidence, right, (label == one) | ((label == one).sum() < ROWS_MIN)) for one in range(labels)]
    # From the sure end down: a cut is only as low as the gain stays small everywhere above it.
    gains = [np.maximum.accumulate((_chance(fit, grid) - grid)[::-1])[::-1] for fit in fits]
    covered = np.stack([tier.confidence[recorded.rows] for tier in tiers])
    given = np.stack([tier.label[recorded.rows] for tier in tiers])
    cuts = np.full(labels, CONFIDENCE_MAX)
    for margin in np.unique(np.concatenate(gains)):
        cuts = np.array([_first(grid, gain <= margin) for gain in gains])
        if (covered >= cuts[given]).any(axis=0).mean() >= coverage:
            break
    offsets = log_odds(cuts)
    return offsets - offsets.min()


def saving_cuts(tier: Judged, value: Float64Array, labels: int, share: float) -> Float64Array:
    """The label's cuts [labels] that escalate about `share` of the rows, those worth most; 0 accepts a label whole.

    `value` [N] is what asking about each row is expected to save. It is smoothed over rows of one label alike in
    confidence; from the sure end down, a label's cut is only as low as the smoothed value stays small above it.
    """
    level = np.full(len(value), -np.inf)
    for label in range(labels):
        rows = np.flatnonzero(tier.label == label)
        order = rows[np.argsort(-tier.confidence[rows], kind="stable")]
        level[order] = np.maximum.accumulate(_smoothed(value[order]))
    asked = round(share * len(value))
    cuts = np.zeros(labels)
    for row in np.argsort(-level, kind="stable")[:asked]:
        label = tier.label[row]
        cuts[label] = max(cuts[label], np.nextafter(np.float32(tier.confidence[row]), np.float32(2)))
    return np.minimum(cuts, 1.0)


def _smoothed(value: Float64Array) -> Float64Array:
    """The mean over SMOOTH_ROWS neighbours, fewer at the ends."""
    if not len(value):
        return value
    sums = np.concatenate([[0.0], np.cumsum(value)])
    places = np.arange(len(value))
    low, high = np.maximum(0, places - SMOOTH_ROWS // 2), np.minimum(len(value), places + SMOOTH_ROWS // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)


def _first(grid: Float64Array, where: BoolArray) -> float:
    return float(grid[where.argmax()]) if where.any() else CONFIDENCE_MAX


def _fit(confidence: FloatArray, right: BoolArray, used: BoolArray) -> Float64Array:
    """Intercept and slope of P(right) over the confidence's log-odds: logistic regression, slope held by a ridge."""
    x = np.stack([np.ones(int(used.sum())), log_odds(confidence[used])], axis=1)
    y = right[used].astype(np.float64)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method; a dozen steps suffice
        chance = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (chance - y) + np.array([1e-6, RIDGE]) * weights
        hessian = (x * (chance * (1 - chance))[:, None]).T @ x + np.diag([1e-6, RIDGE])
        step = np.linalg.solve(hessian, gradient)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _chance(fit: Float64Array, confidence: Float64Array) -> Float64Array:
    return 1 / (1 + np.exp(-(fit[0] + fit[1] * log_odds(confidence))))
