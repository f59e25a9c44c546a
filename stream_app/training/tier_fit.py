"""Fitting one tier: how its models are pooled, and whether a map on top makes its confidence truer."""

from collections.abc import Mapping

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array, fit_weights, isotonic_knots, pool
from stream_app.routing.decide import Knots, Tier
from stream_app.routing.models import FloatArray, IndexArray, Scores, ServedModel

FOLDS = 5
LOG_LIKELIHOOD_GAIN_MIN = 3.0
"""Held-out labels twenty times likelier (e^3) with the map than without: less is luck on a few hundred rows."""


def fit_tier(
    models: tuple[ServedModel, ...], scores: Mapping[str, Scores], used: IndexArray, truth: IndexArray
) -> Tier:
    """The tier's pool weights, and an isotonic map where held-out folds say that it helps."""
    probabilities = [scores[model.name].probabilities[used] for model in models]
    # Rounded before anything is judged by them: the policy file holds the very numbers the cut was found with.
    weights = tuple(round(weight, 4) for weight in fit_weights(probabilities, truth[used]))
    pooled = pool(probabilities, weights)
    label = pooled.argmax(axis=1)
    knots = worthwhile_knots(pooled[np.arange(len(used)), label], label == truth[used])
    return Tier(models, weights, None, knots)


def worthwhile_knots(confidence: FloatArray, right: BoolArray) -> Knots | None:
    """Isotonic knots if, fitted on four folds, they make the fifth likelier; else None: fewer moving parts."""
    fold = np.arange(len(confidence)) % FOLDS
    gain = 0.0
    for held_out in range(FOLDS):
        knots = isotonic_knots(confidence[fold != held_out], right[fold != held_out])
        if knots is None:
            return None
        here, was_right = confidence[fold == held_out], right[fold == held_out]
        gain += _log_likelihood(np.interp(here, *knots), was_right) - _log_likelihood(here, was_right)
    knots = isotonic_knots(confidence, right)
    if knots is None or gain < LOG_LIKELIHOOD_GAIN_MIN:
        return None
    return Knots(knots[0].astype(np.float32), knots[1].astype(np.float32))


def _log_likelihood(confidence: FloatArray | Float64Array, right: BoolArray) -> float:
    inside = np.clip(confidence.astype(np.float64), 1e-6, 1 - 1e-6)
    return float(np.where(right, np.log(inside), np.log1p(-inside)).sum())
