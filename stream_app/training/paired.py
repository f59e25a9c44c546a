"""Two ways to answer the same rows: how much better one is, and how sure that is. Pure and seeded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stream_app.routing.calibration import BoolArray

DRAWS = 10_000
LEVEL = 0.95
NORMAL_QUANTILE = 1.959964
"""Of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two accuracies over the same rows, with its 95 % interval, all as shares.

    `rows_needed` is how many rows more would tell this difference from none, if it stays as it is: None where
    the interval tells it already, or where there is no difference to tell.
    """

    rows: int
    difference: float
    low: float
    high: float
    rows_needed: int | None

    @property
    def told(self) -> bool:
        """True where the interval does not hold 0."""
        return self.low > 0 or self.high < 0


def paired(right: BoolArray, baseline_right: BoolArray, *, seed: int, draws: int = DRAWS) -> Paired:
    """How much more often `right` is right than `baseline_right`, row by row the same texts.

    The interval is the percentile bootstrap over rows (Efron and Tibshirani, 1993, chapter 13). A row's difference
    is -1, 0 or 1, so a draw of rows is a draw of three counts, which makes the draws exact and cheap.
    Raises ValueError where there is no row, or the two differ in length.
    """
    rows = len(right)
    if not rows or rows != len(baseline_right):
        raise ValueError(f"{rows} and {len(baseline_right)} rows cannot be paired")
    better, worse = int((right & ~baseline_right).sum()), int((baseline_right & ~right).sum())
    chances = [worse / rows, (rows - better - worse) / rows, better / rows]
    counts = np.random.default_rng(seed).multinomial(rows, chances, size=draws)
    low, high = np.quantile((counts[:, 2] - counts[:, 0]) / rows, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = Paired(rows, (better - worse) / rows, float(low), float(high), None)
    if found.told or better == worse:
        return found
    return Paired(rows, found.difference, found.low, found.high, _rows_needed(rows, better, worse))


def _rows_needed(rows: int, better: int, worse: int) -> int:
    """How many rows beyond `rows`, by the normal approximation; at least one where the interval holds 0."""
    difference = (better - worse) / rows
    variance = (better + worse) / rows - difference**2
    return max(1, math.ceil(NORMAL_QUANTILE**2 * variance / difference**2) - rows)
