"""Whether a confidence of 90 % is right nine times in ten. Pure."""

from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.models import FloatArray
from stream_app.training.shares import Share, share_of

BINS_MAX = 12
ROWS_A_BIN = 25
ERROR_BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like confidence: its mean, and how many of them are right."""

    confidence: float
    right: Share


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of about equally many rows, least sure first, and the expected calibration error over 15 equal bins."""

    bins: tuple[Bin, ...]
    expected_calibration_error: float


def reliability(confidence: FloatArray, right: BoolArray) -> Reliability:
    """Of N answers. Equal shares of the rows make a bin, so that each point is as sure as the next.

    The error is that of Guo et al. 2017, arXiv 1706.04599.
    """
    order = np.argsort(confidence, kind="stable")
    count = max(1, min(BINS_MAX, len(order) // ROWS_A_BIN))
    bins = tuple(
        Bin(float(confidence[rows].mean()), share_of(right[rows]))
        for rows in np.array_split(order, count)
        if len(rows)
    )
    places = np.minimum((confidence * ERROR_BINS).astype(np.intp), ERROR_BINS - 1)
    gaps = np.bincount(places, confidence, ERROR_BINS) - np.bincount(places, right, ERROR_BINS)
    return Reliability(bins, float(np.abs(gaps).sum() / max(1, len(order))))
