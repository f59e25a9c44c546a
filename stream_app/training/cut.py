"""Which cut may be promised: a fixed sequence of cuts, tested on rows that had no part in making it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.certification import COVERAGES, Tally, certified_step, error_bound
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.policy import Certificate
from stream_app.training.rounding import shortest, to_six_digits


@dataclass(frozen=True, slots=True)
class Judged:
    """What one tier answers to all rows, and how sure it is."""

    label: IndexArray
    confidence: FloatArray


def cuts_of(tiers: Sequence[Judged], rows: IndexArray) -> FloatArray:
    """The fixed sequence of cuts, falling: quantiles of the surest tier's confidence at COVERAGES.

    A text is accepted at a cut exactly if some tier reaches it, so these are the cuts of those coverages. They
    come from the calibration part: the certification rows' labels, and even their texts, have no say.
    """
    surest = np.maximum.reduce([tier.confidence[rows] for tier in tiers])
    return np.quantile(surest, [1 - coverage for coverage in COVERAGES], method="lower").astype(np.float32)


def certified_cut(
    cuts: FloatArray,
    tiers: Sequence[Judged],
    truth: IndexArray,
    inside: BoolArray,
    samples: Sequence[IndexArray],
    target_error: float,
    delta: float,
) -> tuple[float | None, Certificate | None]:
    """The last cut of the sequence that may be promised in every sample of rows, or None and None.

    One cut serves all tiers, each held against its own calibrated confidence; a text counts with the answer of
    the first tier that reaches the cut. `inside` are the rows of the calibrated domain.
    """
    steps = [_tallies(cut, tiers, truth, inside, samples) for cut in cuts]
    step = certified_step(steps, target_error, delta)
    if step is None:
        return None, None
    certificate = Certificate(
        error_max=target_error,
        delta=delta,
        rows=sum(len(rows) for rows in samples),
        accepted=sum(tally.accepted for tally in steps[step]),
        wrong=sum(tally.wrong for tally in steps[step]),
        error_bound=to_six_digits(max(error_bound(tally.wrong, tally.accepted, delta) for tally in steps[step])),
        each_file=len(samples) > 1,
    )
    return shortest(cuts[step]), certificate


def _tallies(
    cut: np.float32, tiers: Sequence[Judged], truth: IndexArray, inside: BoolArray, samples: Sequence[IndexArray]
) -> list[Tally]:
    taken, wrong = np.zeros(len(truth), np.bool_), np.zeros(len(truth), np.bool_)
    for tier in tiers:
        now = inside & ~taken & (tier.confidence >= cut)
        wrong |= now & (tier.label != truth)
        taken |= now
    return [Tally(int(taken[rows].sum()), int(wrong[rows].sum())) for rows in samples]
