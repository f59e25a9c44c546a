"""What a calibration worked with, kept for those who want to see how its policy came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Tier
from stream_app.routing.models import FloatArray, IndexArray, Scores
from stream_app.routing.promises import Promise
from stream_app.training.cut import Cut, Judged
from stream_app.training.cutting import Cutting
from stream_app.training.fitted import Fitted
from stream_app.training.recorded import RecordedRow
from stream_app.training.split import Parts


@dataclass(frozen=True, slots=True)
class Evidence:
    """One task's rows and what was seen of them. Arrays are over all files' rows, in order.

    `samples` are the rows that certified, apart where each file did by itself. `tiers` are the fitted ones with their
    cuts, `cuts` the sequence that was tested [steps, labels] and `chosen` the step that was taken, None for none.
    `inside` are the rows of the calibrated domain, `known_share` what the first tier knows of them.
    """

    rows: Sequence[RecordedRow]
    parts: Parts
    samples: Sequence[IndexArray]
    truth: IndexArray
    inside: BoolArray
    known_share: FloatArray
    scores: Mapping[str, Scores]
    tiers: Sequence[Tier]
    promises: Sequence[Promise]
    delta: float
    cuts: FloatArray
    cut: Cut | None

    @classmethod
    def of(
        cls, fitted: Fitted, cutting: Cutting, tiers: Sequence[Tier], scores: Mapping[str, Scores], delta: float
    ) -> "Evidence":
        """What the two steps of a calibration saw. `tiers` are the fitted ones with their cuts."""
        return cls(
            rows=fitted.rows,
            parts=fitted.parts,
            samples=fitted.samples,
            truth=fitted.truth,
            inside=fitted.inside,
            known_share=fitted.known_share,
            scores=scores,
            tiers=tiers,
            promises=fitted.promises,
            delta=delta,
            cuts=cutting.cuts,
            cut=cutting.cut,
        )

    @property
    def chosen(self) -> int | None:
        """The step of `cuts` that was taken; None where none was, or where gain alone decided."""
        if self.cut is None:
            return None
        found = np.flatnonzero((self.cuts == self.cut.by_label).all(axis=1))
        return int(found[-1]) if len(found) else None

    @property
    def chose(self) -> IndexArray:
        """The rows that had a say in the policy: all but the test's."""
        return np.sort(np.concatenate([self.parts.calibration, self.parts.certification]))

    def judged(self) -> list[Judged]:
        """Each tier's calibrated answers to all rows."""
        return [self._judged(tier) for tier in self.tiers]

    def taken_at_their_word(self) -> list[Judged]:
        """Each tier's answers without calibration: its models' own probabilities, pooled in equal parts."""
        return [
            self._judged(replace(tier, weights=(1.0 / len(tier.models),) * len(tier.models), knots=None, payoff=None))
            for tier in self.tiers
        ]

    def _judged(self, tier: Tier) -> Judged:
        _, label, confidence = tier.judge([self.scores[model.name] for model in tier.models])
        return Judged(label, confidence)
