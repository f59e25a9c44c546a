"""Counters for every second of the last hour: the rates, shares and sums of the live view. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

HOUR_S = 3_600
RATE_WINDOW_S = 5
"""Rates are of the last five whole seconds: short enough to see a burst, long enough not to flicker."""


class Column(IntEnum):
    """What is counted for every second."""

    SMALL = 0
    LLM = 1
    DEGRADED = 2
    HUMAN = 3
    ESCALATED = 4
    DEAD = 5
    COST_USD = 6
    ASKED = 7


FINALS = (Column.SMALL, Column.LLM, Column.DEGRADED, Column.HUMAN)


class Seconds:
    """Counters for each of the last 3,600 seconds, in a ring; what is older is forgotten."""

    def __init__(self) -> None:
        self._rows = np.zeros((HOUR_S, len(Column)))
        self._second_of_row = np.full(HOUR_S, -1, dtype=np.int64)

    def add(self, at_ms: int, column: Column, amount: float = 1.0) -> None:
        """Count `amount` in the second of `at_ms`."""
        second = at_ms // 1000
        row = second % HOUR_S
        if self._second_of_row[row] > second:
            return  # older than the ring reaches
        if self._second_of_row[row] < second:
            self._rows[row] = 0.0
            self._second_of_row[row] = second
        self._rows[row, column] += amount

    def last(self, now_ms: int, seconds: int) -> Any:
        """The last `seconds` whole seconds before `now_ms`, oldest first: an array (seconds x columns)."""
        wanted = np.arange(now_ms // 1000 - seconds, now_ms // 1000)
        rows = wanted % HOUR_S
        return np.where((self._second_of_row[rows] == wanted)[:, None], self._rows[rows], 0.0)


@dataclass(slots=True)
class InputRate:
    """The input topic's rate, from its end offsets at two moments."""

    samples: deque[tuple[int, int]] = field(default_factory=lambda: deque[tuple[int, int]](maxlen=RATE_WINDOW_S + 1))

    def add(self, at_ms: int, end: int) -> None:
        """The topic's ends, summed over its partitions."""
        self.samples.append((at_ms, end))

    def per_s(self, now_ms: int) -> float | None:
        """Records a second; None where there are no two samples of late."""
        recent = [sample for sample in self.samples if sample[0] >= now_ms - 2 * RATE_WINDOW_S * 1000]
        if len(recent) < 2:
            return None
        (then_ms, before), (now_ms, after) = recent[0], recent[-1]
        return max(0, after - before) * 1000 / max(1, now_ms - then_ms)
