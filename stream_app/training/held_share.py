"""A share to hold instead of a target: the cut that escalates it on the calibration rows, and the order around it."""

from collections.abc import Sequence

import numpy as np

from stream_app.errors import SettingsError
from stream_app.routing.calibration import BoolArray
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.policy import ShareHeld
from stream_app.routing.share import Ranks, rows_needed, sample_of, share_threshold
from stream_app.training.cut import Cut, Judged
from stream_app.training.rounding import shortest, to_six_digits


def share_cuts(share: float, tiers: Sequence[Judged], inside: BoolArray, rows: IndexArray, labels: int) -> FloatArray:
    """A sequence of one step [1, labels]: the cut below which `share` of the calibration `rows` fall.

    It is fixed without the certification rows, so that the bound of what it accepts there holds at the whole of
    delta. Raises SettingsError, with the number needed, where the rows are too few for a cut at all.
    """
    if len(rows) < rows_needed(share):
        raise SettingsError(
            f"{len(rows)} calibration rows are too few to find the cut that escalates {share:.2%}",
            advice=f"label so many that {rows_needed(share)} fall to calibration, or raise escalate_max",
        )
    surest = np.maximum.reduce([tier.confidence[rows] for tier in tiers])
    return np.full((1, labels), share_threshold(sample_of(surest, ~inside[rows]), share), np.float32)


def held_share(
    share: float | None, cut: Cut | None, tiers: Sequence[Judged], inside: BoolArray, rows: IndexArray
) -> ShareHeld | None:
    """The order of the confidences that stand when the tiers are walked at the cut, over the calibration `rows`.

    None where no share is held.
    """
    if share is None or cut is None:
        return None
    ranks = Ranks.of(sample_of(_standing(float(cut.by_label[0]), tiers, rows), ~inside[rows]))
    return ShareHeld(
        escalate_max=share,
        confidence=tuple(shortest(np.float32(one)) for one in ranks.confidence),
        rank=tuple(to_six_digits(one) for one in ranks.rank),
    )


def _standing(cut: float, tiers: Sequence[Judged], rows: IndexArray) -> FloatArray:
    """Of the first tier that reaches the cut, else of the last."""
    standing = tiers[-1].confidence[rows]
    for tier in reversed(tiers[:-1]):
        here = tier.confidence[rows]
        standing = np.where(here >= np.float32(cut), here, standing)
    return standing
