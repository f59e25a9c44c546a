"""Holding a share: the threshold that follows the traffic so that a stated part of it is escalated. Pure.

A threshold is a place in the order of confidences, so it is kept as one: the *rank* of a confidence is the share of
the calibration sample that was less sure. On texts like that sample ranks are uniform and the threshold is the
share itself; on others the controller moves it.
"""

from dataclasses import dataclass

import numpy as np

from stream_app.routing.models import FloatArray

STEP = 0.02
"""The controller's step: over 20,000 events the share is held within (1 + 0.04) / (0.02 * 20,000) = 0.26 points."""


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
    step: float = STEP

    def escalates(self, rank: float) -> bool:
        """Whether an event of that rank, in [0, 1], is escalated; the level follows."""
        escalated = rank < self.level
        self.level += self.step * (self.share - escalated)
        return escalated
