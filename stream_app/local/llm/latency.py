"""How long the stand-in takes to answer. Pure: chance is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

STANDARD_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Latency:
    """Lognormal about a median; constant with a sigma of 0; with a heavy tail where a share of the calls is slow.

    Half the calls take less than `median_ms`, and with a sigma of 0.5 one in twenty takes more than 2.3 times as
    long. Of all calls, `slow_share` have `slow_ms` for their median instead.
    """

    median_ms: float
    sigma: float = 0.0
    slow_share: float = 0.0
    slow_ms: float = 0.0

    def __post_init__(self) -> None:
        if min(self.median_ms, self.sigma, self.slow_ms) < 0 or not 0 <= self.slow_share <= 1:
            raise ValueError("times and sigma are not below 0, and a share is between 0 and 1")

    def draw_s(self, chances: tuple[float, float]) -> float:
        """Seconds that a call takes, by two numbers between 0 and 1, neither included."""
        spread, slow = chances
        median_ms = self.slow_ms if slow < self.slow_share else self.median_ms
        if not median_ms or not self.sigma:
            return median_ms / 1000
        return median_ms / 1000 * math.exp(self.sigma * STANDARD_NORMAL.inv_cdf(spread))
