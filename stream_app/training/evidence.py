"""What a calibration worked with, kept for those who want to see how its policy came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_app.routing.any_of import AnyOfTier
from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Tier
from stream_app.routing.models import FloatArray, IndexArray, Scores
from stream_app.routing.promises import Promise
from stream_app.training.cut import Cut, Judged
from stream_app.training.cutting import Cutting
from stream_app.training.fitted import Divided, Fitted
from stream_app.training.recorded import RecordedRow
from stream_app.training.split import Parts
from stream_app.training.whole_texts import graded


@dataclass(frozen=True, slots=True)
class Evidence:
    """One task's rows and what was seen of them. Arrays are over all files' rows, in order.

    `samples` are the rows that certified, apart where each file did by itself. `tiers` are the fitted ones with their
    cuts, `cuts` the sequence that was tested [steps, labels] and `chosen` the step that was taken, None for none.
    `inside` are the rows of the calibrated domain, `known_share` what the first tier knows of them.

    Of a task of which any label may be right `sets` has what is right of each row, None of others. `truth`, cuts and
    answers are then of whole texts: they know the labels RIGHT and WRONG alone (`whole_texts`).
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
    sets: IndexArray | None = None

    @classmethod
    def of(
        cls,
        divided: Divided | Fitted,
        promises: Sequence[Promise],
        cutting: Cutting,
        tiers: Sequence[Tier],
        scores: Mapping[str, Scores],
        delta: float,
        *,
        any_of: bool = False,
    ) -> "Evidence":
        """What the two steps of a calibration saw. `tiers` are the fitted ones with their cuts."""
        truth = divided.truth
        return cls(
            rows=divided.rows,
            parts=divided.parts,
            samples=divided.samples,
            truth=graded(truth, truth) if any_of else truth,
            inside=divided.inside,
            known_share=divided.known_share,
            scores=scores,
            tiers=tiers,
            promises=promises,
            delta=delta,
            cuts=cutting.cuts,
            cut=cutting.cut,
            sets=truth if any_of else None,
        )

    @property
    def labels(self) -> int:
        """How many labels `truth`, cuts and answers know."""
        return self.cuts.shape[1]

    @property
    def gold(self) -> IndexArray:
        """What is right of each row: its label's index, or the set of all that apply."""
        return self.truth if self.sets is None else self.sets

    def answers(self, given: IndexArray, rows: IndexArray) -> IndexArray:
        """What was `given` for these rows, labels' indexes or sets, as `truth` has it; NO_ANSWER stays."""
        return given if self.sets is None else graded(given, self.sets[rows])

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
        """Each tier's answers without calibration (`at_its_word`)."""
        return [self._judged(at_its_word(tier)) for tier in self.tiers]

    def _judged(self, tier: Tier) -> Judged:
        _, label, confidence = tier.judge([self.scores[model.name] for model in tier.models])
        return Judged(self.answers(label, np.arange(len(label))), confidence)


def at_its_word(tier: Tier) -> Tier:
    """The tier without calibration: its models' own probabilities, pooled in equal parts."""
    plain = replace(tier, weights=(1.0 / len(tier.models),) * len(tier.models), knots=None, payoff=None)
    return replace(plain, label_knots=()) if isinstance(plain, AnyOfTier) else plain
