"""Making confidence mean what it says: pooling, temperature, isotonic regression, and how well they did."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.routing.models import FloatArray, IndexArray

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PROBABILITY_MIN = 1e-7
"""Below this a float32 softmax tells nothing any more; it also keeps the logarithm finite."""

WEIGHT_MAX = 20.0
"""A member's largest exponent: temperature 0.05. A model that wants more was perfect on the sample by luck."""

TIE_MARGIN = 1e-6
"""A few steps of float32: a mapped confidence that ties would hand the answer to the label that stands first."""

_GOLDEN = (5**0.5 - 1) / 2


def pool(probabilities: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """The members' probabilities [N, L] as one: softmax of the weighted sum of their logarithms.

    With one member, `weight` is 1 / T of temperature scaling (Guo et al. 2017, arXiv 1706.04599); with several
    this is the logarithmic opinion pool (Heskes 1998), for two labels a logistic regression over log-odds.
    """
    # Label-major, since numpy reduces a few long rows many times faster than many short ones.
    logits = np.zeros(probabilities[0].shape[::-1], np.float32)
    for part, weight in zip(probabilities, weights, strict=True):
        logits += np.float32(weight) * np.log(np.maximum(part.T, np.float32(PROBABILITY_MIN), order="C"))
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits.T


def confident(probabilities: FloatArray, confidence: FloatArray, share_right: FloatArray) -> FloatArray:
    """The probabilities with the top one mapped through the knots and the rest shrunk or grown to fit.

    The top label stays on top: its mapped confidence never falls to what would tie it with the second.
    """
    rows = np.arange(len(probabilities))
    top = probabilities.argmax(axis=1)
    others = np.maximum(probabilities, np.float32(PROBABILITY_MIN))
    others[rows, top] = 0
    rest, second = others.sum(axis=1), others.max(axis=1)
    after = np.interp(probabilities[rows, top], confidence, share_right)
    after = np.maximum(after, second / (rest + second) * (1 + TIE_MARGIN)).astype(np.float32)
    mapped = others * ((1 - after) / rest)[:, None]
    mapped[rows, top] = after
    return mapped


def negative_log_likelihood(probabilities: FloatArray, truth: IndexArray) -> float:
    """Mean of -log of the true label's probability."""
    true = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(true, PROBABILITY_MIN), dtype=np.float64).mean())


def fit_weights(probabilities: Sequence[FloatArray], truth: IndexArray) -> tuple[float, ...]:
    """The pool's weights that make the true labels most likely: argmin of NLL, by coordinate descent.

    The NLL is convex in the weights, so that one golden-section search along each in turn finds it; with one
    member that is temperature scaling. Weights lie in [0, WEIGHT_MAX].
    """
    weights = [1.0 / len(probabilities)] * len(probabilities)
    best = np.inf
    for _ in range(100):
        for member in range(len(weights)):

            def loss(weight: float, member: int = member) -> float:
                tried = [*weights[:member], weight, *weights[member + 1 :]]
                return negative_log_likelihood(pool(probabilities, tried), truth)

            weights[member] = _minimum(loss, 0.0, WEIGHT_MAX)
        now = negative_log_likelihood(pool(probabilities, weights), truth)
        if best - now < 1e-7:
            break
        best = now
    return tuple(weights)


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function is smallest on [low, high], to 1e-4, by golden-section search."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


def isotonic_knots(confidence: FloatArray, right: BoolArray) -> tuple[Float64Array, Float64Array] | None:
    """Pool adjacent violators on confidence -> right, as knots at the blocks' mean confidence.

    Between the knots a straight line, so that two confidences stay apart where a step would tie them. None
    where fewer than two blocks are left: the confidence then tells nothing about being right.
    Each block's share is (right + 1) / (rows + 2), Laplace's rule: a block is never certain.
    """
    order = np.argsort(confidence, kind="stable")
    blocks = list[tuple[float, float, int]]()  # sum of confidence, of right, rows
    for x, y in zip(confidence[order].tolist(), right[order].tolist(), strict=True):
        blocks.append((x, float(y), 1))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last = blocks.pop()
            before = blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    xs = np.array([total / rows for total, _, rows in blocks])
    ys = np.maximum.accumulate(np.array([(good + 1) / (rows + 2) for _, good, rows in blocks]))
    apart = np.concatenate([[True], np.diff(xs.astype(np.float32)) > 0])
    xs, ys = xs[apart], ys[apart]
    return (xs, ys) if len(xs) > 1 else None


@dataclass(frozen=True, slots=True)
class CalibrationErrors:
    """How far confidence is from the share of right answers, four ways."""

    expected_calibration_error: float
    brier: float
    negative_log_likelihood: float
    area_under_risk_coverage: float


def calibration_errors(probabilities: FloatArray, truth: IndexArray) -> CalibrationErrors:
    """Expected calibration error over 15 equal bins (Guo et al. 2017), Brier score over all labels, NLL, and the
    area under the risk-coverage curve (El-Yaniv and Wiener 2010): the mean error among the k surest, over k.
    """
    rows = np.arange(len(truth))
    label = probabilities.argmax(axis=1)
    confidence, right = probabilities[rows, label], label == truth
    bins = np.minimum((confidence * 15).astype(np.intp), 14)
    gaps = np.abs(np.bincount(bins, confidence, 15) - np.bincount(bins, right, 15))
    target = np.zeros_like(probabilities)
    target[rows, truth] = 1
    wrong = ~right[np.argsort(-confidence, kind="stable")]
    return CalibrationErrors(
        expected_calibration_error=float(gaps.sum() / len(truth)),
        brier=float(((probabilities - target) ** 2).sum(axis=1).mean()),
        negative_log_likelihood=negative_log_likelihood(probabilities, truth),
        area_under_risk_coverage=float((np.cumsum(wrong) / (rows + 1)).mean()),
    )
