"""Holding a share in a stream: who is escalated of a batch is decided event by event, in the stream's order. Pure.

The tiers are walked at the policy's own cut, which does not move: what is asked of which model depends on the text
alone. Then the answer that stands is ranked, and the controller accepts it or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from stream_app.events import UncertifiedReason
from stream_app.routing.calibration import Float64Array
from stream_app.routing.decide import Route, Routed
from stream_app.routing.models import IndexArray
from stream_app.routing.share import HeldShare, ShareController


class Backing(IntEnum):
    """What stands behind an answer of a task that holds a share. The values stand in `Held.backing`."""

    FLOOR = 0
    """The certificate: it is at least as sure as the certified cut."""
    BELOW_FLOOR = 1
    """Nothing: the share that was asked for leaves no more room at the LLM."""
    FOREIGN = 2
    """Nothing: the text is outside the calibrated domain, and the share is used up."""

    @property
    def uncertified_reason(self) -> UncertifiedReason | None:
        """Why an answer accepted so is not certified."""
        return (None, "manual", "uncalibrated")[self]


@dataclass(frozen=True, slots=True)
class Held:
    """For N rows: the cut each was held against, as a confidence, and what stands behind its answer."""

    cut: Float64Array
    backing: NDArray[np.int8]

    @classmethod
    def of(cls, rows: int) -> "Held":
        """Nothing decided yet."""
        return cls(np.zeros(rows), np.zeros(rows, np.int8))


def hold(share: HeldShare, controller: ShareController, routed: Routed, rows: IndexArray, held: Held) -> None:
    """Decides `rows`, in their order: sets their `route`, and what `held` says of them. The controller moves on."""
    confidence, route = routed.confidence[rows], routed.route[rows]
    foreign = route == Route.OUT_OF_DOMAIN
    escalated, levels = controller.hold(share.rank_of(confidence, foreign))
    because = np.where(foreign, np.int8(Route.OUT_OF_DOMAIN), np.int8(Route.UNSURE))
    routed.route[rows] = np.where(escalated, because, np.int8(Route.ACCEPTED))
    held.cut[rows] = share.ranks.cut_at(levels)
    below = np.where(confidence < np.float32(share.floor), np.int8(Backing.BELOW_FLOOR), np.int8(Backing.FLOOR))
    held.backing[rows] = np.where(foreign, np.int8(Backing.FOREIGN), below)


def hold_all(share: HeldShare | None, routed: Routed) -> Routed:
    """All rows as one stream from its beginning; as they are where no share is held."""
    if share is not None:
        rows = len(routed.route)
        hold(share, share.controller(None), routed, np.arange(rows), Held.of(rows))
    return routed


def others(rows: range, refused: Sequence[int]) -> IndexArray:
    """Those of `rows` that are not refused: a controller does not see a text that no model answers."""
    if not refused:
        return np.arange(rows.start, rows.stop)
    gone = set(refused)
    return np.array([row for row in rows if row not in gone], np.intp)
