"""Deciding tasks of which any label may be right: each is a yes or no of its own, and all must be sure. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.events import Cut
from stream_app.routing.calibration import BoolArray, confident, pool
from stream_app.routing.decide import Knots, Tier
from stream_app.routing.label_sets import sets_of
from stream_app.routing.models import FloatArray, IndexArray, Scores

YES_FROM = 0.5
"""A label is answered yes from this calibrated probability on."""


def as_two(probabilities: FloatArray) -> FloatArray:
    """Each label as a row of its own, of a task of the labels no and yes: [N, labels] -> [N * labels, 2]."""
    yes = probabilities.reshape(-1)
    return np.stack([1 - yes, yes], axis=1)


def sureness(probabilities: FloatArray) -> FloatArray:
    """How sure each row is of all its labels together, [N]: of what it is least sure of."""
    return np.maximum(probabilities, 1 - probabilities).min(axis=1)


@dataclass(frozen=True, slots=True)
class AnyOfTier(Tier):
    """One model, or several pooled, whose answer is the set of labels that are likelier than not.

    `threshold` is the cut of every label, `label_thresholds` (by label index) of each its own: a row is accepted
    where each label's yes or no is at least as probable as its cut. `label_knots` holds a map for each label, None
    for one that has none; empty, none has.
    """

    label_knots: tuple[Knots | None, ...] = ()

    def judge(self, scores: Sequence[Scores]) -> tuple[FloatArray, IndexArray, FloatArray]:
        """Calibrated probabilities [N, labels], the set of each row [N], and what each is least sure of [N]."""
        two = pool([as_two(score.probabilities) for score in scores], self.weights)
        probabilities = np.ascontiguousarray(two[:, 1].reshape(scores[0].probabilities.shape))
        for place, knots in enumerate(self.label_knots):
            if knots is not None:
                mapped = confident(as_two(probabilities[:, place]), knots.confidence, knots.share_right)
                probabilities[:, place] = mapped[:, 1]
        return probabilities, sets_of(probabilities >= np.float32(YES_FROM)), sureness(probabilities)

    def accepts(self, probabilities: FloatArray, label: IndexArray, confidence: FloatArray) -> BoolArray:
        """Which rows are sure of every label."""
        if not self.label_thresholds:
            return Tier.accepts(self, probabilities, label, confidence)
        cuts = np.array(self.label_thresholds, np.float32)
        return (np.maximum(probabilities, 1 - probabilities) >= cuts).all(axis=1)

    def threshold_of(self, label: int) -> Cut:
        """Each label's cut."""
        del label
        return {name: self.cut_of(place) for place, name in enumerate(self.models[0].labels)}
