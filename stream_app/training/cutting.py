"""The second step of a calibration: where the cuts lie, and what the votes of those asked beyond them count."""

import math
from dataclasses import dataclass, replace

import numpy as np

from stream_app.events import VoteRule
from stream_app.routing.decide import Tier
from stream_app.routing.models import FloatArray
from stream_app.routing.promises import NOT_ACCEPTED, counts_of
from stream_app.training.cut import Cut, accepted_as, certified_cut, cuts_of, planned_cuts
from stream_app.training.fitted import Fitted
from stream_app.training.gain import GAIN_COVERAGE
from stream_app.training.gate import gain_cuts, gate_offsets
from stream_app.training.held_share import share_cuts
from stream_app.training.rounding import shortest
from stream_app.training.vote_rule import vote_rule


@dataclass(frozen=True, slots=True)
class Cutting:
    """The sequence of `cuts` [steps, labels] that was tried, and the one taken, None for none.

    `shown` says whether what it promises was shown; with gain alone nothing is promised. `apart` says whether an
    LLM's recorded answers set the labels' cuts apart. `votes` is how those are weighed, None where they are obeyed.
    """

    cuts: FloatArray
    cut: Cut | None
    shown: bool
    apart: bool
    votes: VoteRule | None

    def on(self, tiers: list[Tier]) -> list[Tier]:
        """The tiers with this cut. Equal cuts are one; else the strictest stands for any label without its own."""
        by_label = () if self.cut is None else tuple(float(one) for one in self.cut.by_label)
        own = tuple(math.inf if math.isinf(one) else shortest(np.float32(one)) for one in by_label)
        strictest = max((one for one in own if math.isfinite(one)), default=None)
        apart = own if len(set(own)) > 1 else ()
        return [replace(tier, threshold=strictest, label_thresholds=apart) for tier in tiers]


def cut_and_weigh(fitted: Fitted, delta: float) -> Cutting:
    """The cut that the task's dial asks for, certified at `delta` where it promises anything, and the vote rule."""
    cuts, apart = _sequence(fitted)
    if fitted.task.by_gain:
        cut = _gain_cut(fitted)
    else:
        cut = certified_cut(cuts, fitted.judged, fitted.truth, fitted.inside, fitted.samples, fitted.promises, delta)
    shown = cut is not None and not fitted.task.by_gain
    return Cutting(cuts, cut, shown, apart, _votes(fitted, cut))


def _sequence(fitted: Fitted) -> tuple[FloatArray, bool]:
    """The cuts to be tried in their order, fixed on the calibration rows, and whether labels' are set apart."""
    task, rows, labels = fitted.task, fitted.parts.calibration, len(fitted.labels)
    if task.escalate_max is not None:
        return share_cuts(task.escalate_max, fitted.judged, fitted.inside, rows, labels), False
    if task.precision_min or task.miss_max:
        planned = planned_cuts(fitted.judged, fitted.truth, fitted.inside, rows, fitted.promises, labels)
        return planned, False
    offsets = np.zeros(labels)
    if fitted.known is not None and not task.by_gain:
        offsets = gate_offsets(fitted.known.among(rows), GAIN_COVERAGE)
    return cuts_of(fitted.judged, fitted.used, offsets), bool(offsets.any())


def _gain_cut(fitted: Fitted) -> Cut | None:
    """Where only the gain decides: no promise, so the rows meant for certification help to find it."""
    if fitted.known is None:
        return None
    known = fitted.known.among(fitted.parts.calibration, fitted.parts.certification)
    by_label = gain_cuts(known, fitted.task.asking_cost).astype(np.float32)
    taken = accepted_as(by_label, fitted.judged, fitted.inside)
    return Cut(by_label, tuple(counts_of(fitted.truth[rows], taken[rows], len(by_label)) for rows in fitted.samples))


def _votes(fitted: Fitted, cut: Cut | None) -> VoteRule | None:
    """How the LLMs' votes are best weighed for what is not accepted; certification's promise is of the rest."""
    if fitted.known is None:
        return None
    taken = np.full(len(fitted.rows), NOT_ACCEPTED)
    if cut is not None:
        taken = accepted_as(cut.by_label, fitted.judged, fitted.inside)
    chosen = fitted.known.among(fitted.parts.calibration, fitted.parts.certification)
    return vote_rule(chosen, taken[chosen.places] == NOT_ACCEPTED)
