"""The cuts that lie before and behind the one a policy has: all moved together, as certification moves them. Pure."""

from collections.abc import Sequence

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.promises import NOT_ACCEPTED
from stream_app.training.cut import Judged, accepted_as, log_odds
from stream_app.training.evidence import Evidence

LEVELS = 60


def offsets_of(evidence: Evidence) -> Float64Array:
    """How far the labels' cuts lie apart, in log-odds above the lowest: infinite for a label that is never accepted.

    All alike where nothing could be promised.
    """
    if evidence.cut is None:
        return np.zeros(evidence.labels)
    cuts = evidence.cut.by_label
    return np.where(np.isfinite(cuts), log_odds(cuts) - log_odds(cuts[np.isfinite(cuts)]).min(), np.inf)


def family(tiers: Sequence[Judged], rows: IndexArray, offsets: Float64Array) -> FloatArray:
    """Cuts [LEVELS + 2, labels], falling: nothing accepted, then ever more of these rows, at last all of them."""
    open_labels = np.isfinite(offsets)
    apart = np.where(open_labels, offsets, 0.0)
    surest = np.maximum.reduce(
        [
            np.where(
                open_labels[tier.label[rows]], log_odds(tier.confidence[rows]) - apart[tier.label[rows]], -np.inf
            )
            for tier in tiers
        ]
    )
    levels = np.quantile(surest, np.linspace(0.98, 0.0, LEVELS), method="lower")
    cuts = 1 / (1 + np.exp(-(levels[:, None] + apart[None, :])))
    ends = np.stack([np.full(len(offsets), np.inf), np.zeros(len(offsets))])
    every = np.concatenate([ends[:1], np.unique(cuts, axis=0)[::-1], ends[1:]])
    every[:, ~open_labels] = np.inf
    return every.astype(np.float32)


def decided(cuts: FloatArray, tiers: Sequence[Judged], inside: BoolArray) -> tuple[IndexArray, BoolArray]:
    """Each row's small answer (the last tier's where none reaches its cut), and which rows are accepted."""
    found = accepted_as(cuts, tiers, inside)
    accepted = found != NOT_ACCEPTED
    return np.where(accepted, found, tiers[-1].label), accepted
