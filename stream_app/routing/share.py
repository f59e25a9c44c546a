"""Holding a share: the threshold that follows the traffic so that a stated part of it is escalated. Pure.

A threshold is a place in the order of confidences, so it is kept as one: the *rank* of a confidence is the share of
the calibration sample that was less sure. On texts like that sample ranks are uniform and the threshold is the
share itself; on others the controller moves it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import FloatArray

KNOTS_MAX = 256
"""Places of the order that a policy keeps: a rank is told to half a per cent."""

STEP_PART = 1 / 20
"""The controller's step, in parts of the share.

The level wanders about its right place with a deviation of sqrt(step * share * (1 - share) / 2): a seventh of the
share, whatever that is, so that who is escalated depends on the text and little on the moment. A larger step follows
faster and escalates more blindly; with half of this one a fifth came to 20.6 % of 20,000 events, through a shift to
texts of which the sample's own cut escalates four fifths, and to 20.3 % with this.
"""


def share_threshold(confidence: FloatArray, share: float) -> float:
    """The threshold below which a new event falls with probability at most `share`: METHODS' order statistic.

    The floor(share * (n + 1))-th smallest of n exchangeable confidences: a new one is smaller with at most that
    probability (Vovk et al. 2005, as for any conformal quantile). 0 where the sample is too small to escalate any.
    """
    place = int(np.floor(share * (len(confidence) + 1) + 1e-9))
    if place == 0:
        return 0.0
    return float(np.sort(confidence)[min(place, len(confidence)) - 1])


@dataclass(slots=True)
class ShareController:
    """Escalates `share` of what it is shown, whatever that is. `level` is the rank below which it does.

    After every event level <- level + step * (share - 1[escalated]) (Gibbs and Candes 2021, arXiv 2106.00170). So
    over the first T events |escalated / T - share| <= (1 + 2 * step) / (step * T): no matter what comes, even from
    an adversary who knows the level. `level` lies in [-step, 1 + step] and is all the state there is.
    """

    share: float
    level: float

    @property
    def step(self) -> float:
        """How far an event moves the level."""
        return STEP_PART * self.share

    def escalates(self, rank: float) -> bool:
        """Whether an event of that rank, in [0, 1], is escalated; the level follows."""
        escalated = rank < self.level
        self.level += self.step * (self.share - escalated)
        return escalated

    def hold(self, ranks: Float64Array) -> tuple[BoolArray, Float64Array]:
        """`escalates` for events in their order [N]: who is, and the level that each was held against."""
        level, step, share = self.level, self.step, self.share
        levels = list[float]()
        for rank in ranks.tolist():
            levels.append(level)
            level += step * (share - (rank < level))  # as above, without a call for each event
        self.level = level
        against = np.array(levels)
        return ranks < against, against


@dataclass(frozen=True, slots=True)
class Ranks:
    """The order of a sample's confidences: knots of `confidence`, strictly rising, and the `rank` of each, from 0.

    The rank of a confidence is the share of the sample that was less sure; between knots it is a straight line.
    """

    confidence: Float64Array
    rank: Float64Array

    @classmethod
    def of(cls, confidence: FloatArray) -> "Ranks":
        """The order of these confidences, in `KNOTS_MAX` knots at most."""
        values, counts = np.unique(confidence, return_counts=True)
        below = (np.cumsum(counts) - counts) / len(confidence)
        if len(values) > KNOTS_MAX:
            kept = np.unique(np.searchsorted(below, np.linspace(0, below[-1], KNOTS_MAX), side="left"))
            values, below = values[kept], below[kept]
        return cls(values.astype(np.float64), below)

    def rank_of(self, confidence: FloatArray) -> Float64Array:
        """Ranks [N] of confidences [N], in [0, 1]."""
        return np.interp(confidence, self.confidence, self.rank)

    def cut_at(self, level: NDArray[np.float64] | float) -> Float64Array:
        """The confidence below which that level escalates: 0 for a level of 0 or less, 1 beyond the last rank."""
        cut = np.interp(level, self.rank, self.confidence, right=1.0)
        return np.where(np.asarray(level) <= 0, 0.0, cut)


@dataclass(frozen=True, slots=True)
class HeldShare:
    """What a task needs to hold a share: the share, the order of its confidences, and the cut it certifies.

    Below `floor` what is accepted is not certified.
    """

    share: float
    ranks: Ranks
    floor: float

    def rank_of(self, confidence: FloatArray, foreign: BoolArray) -> Float64Array:
        """Ranks [N]. A text outside the calibrated domain comes before all others, whatever its confidence says."""
        return np.where(foreign, 0.0, self.ranks.rank_of(confidence))

    def controller(self, level: float | None) -> ShareController:
        """A controller that goes on at `level`; None begins at the sample's own."""
        return ShareController(self.share, self.share if level is None else level)


def sample_of(confidence: FloatArray, foreign: BoolArray) -> FloatArray:
    """The confidences of a sample as they are ordered: what is outside the domain comes first."""
    return np.where(foreign, np.float32(0), confidence)


def rows_needed(share: float) -> int:
    """How many confidences it takes for an order statistic that escalates any: floor(share * (n + 1)) >= 1."""
    return int(np.ceil(1 / share - 1 - 1e-9))


def level_is_sound(level: float) -> bool:
    """Whether a controller of any share can have come to that level: it lies in [-step, 1 + step]."""
    return -STEP_PART <= level <= 1 + STEP_PART
