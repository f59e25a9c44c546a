"""Which cut may be promised: a fixed sequence of cuts, tested on rows that had no part in making it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.certification import COVERAGES, Tally, certified_step, error_bound
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.policy import Certificate
from stream_app.training.rounding import shortest, to_six_digits


@dataclass(frozen=True, slots=True)
class Judged:
    """What one tier answers to all rows, and how sure it is."""

    label: IndexArray
    confidence: FloatArray


def log_odds(confidence: FloatArray | Float64Array) -> Float64Array:
    """log(c / (1 - c)), finite for 0 and 1."""
    inside = np.clip(confidence.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(inside) - np.log1p(-inside)


def cuts_of(tiers: Sequence[Judged], rows: IndexArray, offsets: Float64Array) -> FloatArray:
    """The fixed sequence of cuts [steps, labels], falling: those that accept COVERAGES of the rows.

    `offsets` holds the labels' cuts apart, in log-odds. A text is accepted at a cut exactly if some tier reaches
    it, so the cuts are quantiles of the surest tier's log-odds less its label's offset. They come from the
    calibration part: the certification rows' labels, and even their texts, have no say.
    """
    surest = np.maximum.reduce([log_odds(tier.confidence[rows]) - offsets[tier.label[rows]] for tier in tiers])
    levels = np.quantile(surest, [1 - coverage for coverage in COVERAGES], method="lower")
    return (1 / (1 + np.exp(-(levels[:, None] + offsets[None, :])))).astype(np.float32)


def certified_cut(
    cuts: FloatArray,
    tiers: Sequence[Judged],
    truth: IndexArray,
    inside: BoolArray,
    samples: Sequence[IndexArray],
    target_error: float,
    delta: float,
) -> tuple[tuple[float, ...], Certificate | None]:
    """The last cuts, by label, that may be promised in every sample of rows; () and None where none may.

    The same cuts serve all tiers, each held against its own calibrated confidence; a text counts with the answer of
    the first tier that reaches its cut. `inside` are the rows of the calibrated domain.
    """
    tallies = [_tallies(step, tiers, truth, inside, samples) for step in cuts]
    step = certified_step(tallies, target_error, delta)
    if step is None:
        return (), None
    certificate = Certificate(
        error_max=target_error,
        delta=delta,
        rows=sum(len(rows) for rows in samples),
        accepted=sum(tally.accepted for tally in tallies[step]),
        wrong=sum(tally.wrong for tally in tallies[step]),
        error_bound=to_six_digits(max(error_bound(tally.wrong, tally.accepted, delta) for tally in tallies[step])),
        each_file=len(samples) > 1,
    )
    return tuple(shortest(cut) for cut in cuts[step]), certificate


def _tallies(
    cuts: FloatArray, tiers: Sequence[Judged], truth: IndexArray, inside: BoolArray, samples: Sequence[IndexArray]
) -> list[Tally]:
    taken, wrong = np.zeros(len(truth), np.bool_), np.zeros(len(truth), np.bool_)
    for tier in tiers:
        now = inside & ~taken & (tier.confidence >= cuts[tier.label])
        wrong |= now & (tier.label != truth)
        taken |= now
    return [Tally(int(taken[rows].sum()), int(wrong[rows].sum())) for rows in samples]
