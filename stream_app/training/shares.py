"""A share of rows, and how sure it is. Pure."""

import math
from dataclasses import dataclass

from stream_app.routing.calibration import BoolArray
from stream_app.training.paired import NORMAL_QUANTILE


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `rows`; `share` is None where there is no row. `low` and `high` are its 95 % interval (Wilson's)."""

    hits: int
    rows: int
    share: float | None
    low: float
    high: float


def share(hits: int, rows: int) -> Share:
    """The share with Wilson's score interval (1927), which keeps its level down to few rows and to 0 of n.

    (Brown, Cai and DasGupta 2001 compare it with others.) It describes; promises rest on exact bounds.
    """
    if not rows:
        return Share(0, 0, None, 0.0, 1.0)
    part, square = hits / rows, NORMAL_QUANTILE**2
    middle = (part + square / (2 * rows)) / (1 + square / rows)
    half = NORMAL_QUANTILE * math.sqrt(part * (1 - part) / rows + square / (4 * rows * rows)) / (1 + square / rows)
    # At 0 and at all of the rows rounding would leave the share just outside.
    return Share(hits, rows, part, min(part, max(0.0, middle - half)), max(part, min(1.0, middle + half)))


def share_of(which: BoolArray) -> Share:
    """How many of these rows."""
    return share(int(which.sum()), len(which))
