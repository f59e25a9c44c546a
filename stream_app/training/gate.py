"""Which of the unsure are escalated: those the small model is least sure of, or those where asking gains most.

Data Shunt's rule is the first; it is best where an LLM's mistakes do not depend on what the small model says. An LLM
that doubts one label too often is better asked about the other. Which holds is seen on the rows, and the rule that
decides is chosen per LLM: for each label a distance of its cut from the others', 0 for all if confidence alone is as
good.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.events import VoteRule
from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import IndexArray
from stream_app.routing.votes import Seen
from stream_app.training.cut import Judged, log_odds
from stream_app.training.gain import Recorded, label_offsets
from stream_app.training.paired import clearly_better
from stream_app.training.voting import FOLDS, Recordings, vote_rule, voted


@dataclass(frozen=True, slots=True)
class Known:
    """Rows with recorded answers: what each tier says, what LLMs said, and the truth. All arrays are [N] by row.

    `places` are the rows' places among all, `seen` what the last tier makes of them, `folds` numbers below FOLDS, the
    same for all rows of a group.
    """

    places: IndexArray
    tiers: Sequence[Judged]
    seen: Seen
    recorded: Recordings
    truth: IndexArray
    folds: IndexArray

    @property
    def small(self) -> IndexArray:
        """The label that stands where nobody can be asked."""
        return self.tiers[-1].label

    def rows(self, chosen: IndexArray) -> "Known":
        """Of these rows alone."""
        return Known(
            self.places[chosen],
            [tier.rows(chosen) for tier in self.tiers],
            self.seen.rows(chosen),
            self.recorded.rows(chosen),
            self.truth[chosen],
            self.folds[chosen],
        )

    def among(self, *parts: IndexArray) -> "Known":
        """Of the rows at these places alone."""
        return self.rows(np.flatnonzero(np.isin(self.places, np.concatenate(parts))))

    def rule(self, escalated: BoolArray) -> VoteRule | None:
        """How votes are best weighed where these are escalated."""
        return vote_rule(self.small, self.seen, self.recorded, self.truth, escalated, self.folds)

    def right_if_asked(self, rule: VoteRule | None) -> BoolArray:
        """Whether each row, escalated, comes to its true label."""
        return voted(rule, self.small, self.seen, self.recorded).label == self.truth


def gate_offsets(known: Known, labels: int, coverage: float) -> Float64Array:
    """By how much, in log-odds, each label's cut lies above the lowest one's: 0 where confidence alone decides.

    Offsets must make the whole, small answers and LLM's, right more often at this coverage than confidence does, by
    more than a standard error, on rows that they were not fitted on. What an LLM gains is taken as what asking comes
    to in the end, its vote weighed and a second opinion heard.
    """
    none = np.zeros(labels)
    rule = known.rule(_escalated(known, none, known, coverage))
    asked = known.right_if_asked(rule)
    plain, apart = np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.bool_)
    for fold in range(FOLDS):
        learn, held = np.flatnonzero(known.folds != fold), np.flatnonzero(known.folds == fold)
        if not len(held) or not len(learn):
            continue
        fitted_on, judged_on = known.rows(learn), known.rows(held)
        offsets = _fitted(fitted_on, asked[learn], labels, coverage)
        for right, tried in ((plain, none), (apart, offsets)):
            escalated = _escalated(judged_on, tried, fitted_on, coverage)
            right[held] = np.where(escalated, asked[held], judged_on.small == judged_on.truth)
    return _fitted(known, asked, labels, coverage) if clearly_better(apart, plain) else none


def _fitted(known: Known, asked: BoolArray, labels: int, coverage: float) -> Float64Array:
    return label_offsets(known.tiers, Recorded(np.ones(len(asked), np.bool_), asked), labels, coverage)


def _escalated(known: Known, offsets: Float64Array, levels: Known, coverage: float) -> BoolArray:
    """The rows beyond the cut that accepts `coverage` of the rows `levels`."""
    cut = np.quantile(_surest(levels, offsets), 1 - coverage, method="lower")
    return _surest(known, offsets) < cut


def _surest(known: Known, offsets: Float64Array) -> Float64Array:
    return np.maximum.reduce([log_odds(tier.confidence) - offsets[tier.label] for tier in known.tiers])
