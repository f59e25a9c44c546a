"""Where any label may be right: what each label's yes or no does to whole texts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Route, Routed
from stream_app.routing.label_sets import marks_of
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.training.report.reliability import reliability
from stream_app.training.shares import Share, share_of


@dataclass(frozen=True, slots=True)
class YesOrNo:
    """One label over N texts.

    `accepted_wrong` is the share of the accepted texts whose yes or no is wrong, `least_sure` the share of the unsure
    texts that this label keeps from being accepted: it is the one they are least sure of. `calibrated` and
    `at_their_word` are the expected calibration errors of its yes or no over all texts, with and without calibration.
    """

    label: str
    accepted_wrong: Share
    least_sure: Share
    calibrated: float
    at_their_word: float


@dataclass(frozen=True, slots=True)
class LabelSets:
    """N texts: how many have no label, how many several, and each label's yes or no."""

    none: Share
    several: Share
    each: tuple[YesOrNo, ...]


def label_sets(labels: Sequence[str], truth: IndexArray, routed: Routed, at_their_word: FloatArray) -> LabelSets:
    """Fold it. `truth` [N] are sets, `at_their_word` [N, labels] the probabilities without calibration."""
    marks = marks_of(truth, len(labels))
    wrong = marks_of(routed.label, len(labels)) != marks
    unsure = routed.route == Route.UNSURE
    least = np.maximum(routed.probabilities, 1 - routed.probabilities).argmin(axis=1)
    return LabelSets(
        none=share_of(truth == 0),
        several=share_of(marks.sum(axis=1) > 1),
        each=tuple(
            YesOrNo(
                label=label,
                accepted_wrong=share_of(wrong[routed.accepted, place]),
                least_sure=share_of(least[unsure] == place),
                calibrated=_error(routed.probabilities[:, place], marks[:, place]),
                at_their_word=_error(at_their_word[:, place], marks[:, place]),
            )
            for place, label in enumerate(labels)
        ),
    )


def _error(yes: FloatArray, true: BoolArray) -> float:
    """Of the likelier of yes and no."""
    return reliability(np.maximum(yes, 1 - yes), (yes >= 0.5) == true).expected_calibration_error
