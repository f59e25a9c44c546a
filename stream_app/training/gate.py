"""Which of the unsure are escalated: those the small model is least sure of, or those where asking gains most.

Data Shunt's rule is the first; it is best where an LLM's mistakes do not depend on what the small model says. An LLM
that doubts one label too often is better asked about the other. Which holds is seen on the rows, and the rule that
decides is chosen per LLM: for each label a distance of its cut from the others', 0 for all if confidence alone is as
good. Where nothing is promised but wrong answers have their costs, the gain alone says where the cuts lie.
"""

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import IndexArray
from stream_app.training.cut import log_odds
from stream_app.training.gain import Recorded, label_offsets, saving_cuts
from stream_app.training.known import FOLDS, Known, clearly_cheaper
from stream_app.training.vote_rule import value_of_asking, vote_rule

GAIN_ERRORS = 2.0
"""What is saved must exceed so many standard errors, or nothing is escalated: the best of many shares looks good."""
SHARES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, *(step / 20 for step in range(2, 21)))
"""What may be escalated where only gain decides."""


def gate_offsets(known: Known, coverage: float) -> Float64Array:
    """By how much, in log-odds, each label's cut lies above the lowest one's: 0 where confidence alone decides.

    Offsets must make the whole, small answers and LLM's, cost less at this coverage than confidence does, by more
    than a standard error, on rows that they were not fitted on. What an LLM gains is taken as what asking comes to in
    the end, its vote weighed and a second opinion heard.
    """
    none = np.zeros(len(known.labels))
    asked = known.cost_if_asked(vote_rule(known, _escalated(known, none, known, coverage)))
    plain, apart = np.zeros(len(asked)), np.zeros(len(asked))
    for learn, held in _folds(known):
        fitted_on, judged_on = known.rows(learn), known.rows(held)
        offsets = _fitted(fitted_on, asked[learn], coverage)
        for cost, tried in ((plain, none), (apart, offsets)):
            escalated = _escalated(judged_on, tried, fitted_on, coverage)
            cost[held] = np.where(escalated, asked[held], judged_on.cost_of(judged_on.small))
    return _fitted(known, asked, coverage) if clearly_cheaper(apart, plain) else none


def gain_cuts(known: Known, asking_cost: float) -> Float64Array:
    """The cut of each label where only what is saved decides: 0, all accepted, where the LLM is not worth asking.

    Nothing is escalated unless the best of SHARES saves something to speak of (GAIN_ERRORS), on rows it was not
    fitted on. Then the smallest that is not clearly dearer than the best is taken (the one-standard-error rule,
    Breiman et al. 1984). A call costs `asking_cost`, in the unit of the labels' costs.
    """
    everything = np.ones(len(known.truth), np.bool_)
    costs = {share: known.cost_of(known.small) for share in SHARES}
    for learn, held in _folds(known):
        fitted_on, judged_on = known.rows(learn), known.rows(held)
        asked = judged_on.cost_if_asked(vote_rule(fitted_on, everything[learn])) + asking_cost
        value = value_of_asking(fitted_on)
        for share in SHARES:
            cuts = saving_cuts(fitted_on.tiers[-1], value, len(known.labels), share)
            escalated = judged_on.tiers[-1].confidence < cuts[judged_on.small]
            costs[share][held] = np.where(escalated, asked, costs[share][held])
    best = min(SHARES, key=lambda share: float(costs[share].sum()))
    if not clearly_cheaper(costs[best], costs[0.0], GAIN_ERRORS):
        return np.zeros(len(known.labels))
    share = next(share for share in SHARES if not clearly_cheaper(costs[best], costs[share]))
    return saving_cuts(known.tiers[-1], value_of_asking(known), len(known.labels), share)


def _folds(known: Known) -> list[tuple[IndexArray, IndexArray]]:
    """Rows to learn on and rows held out, for each fold that has both."""
    parts = [(np.flatnonzero(known.folds != fold), np.flatnonzero(known.folds == fold)) for fold in range(FOLDS)]
    return [(learn, held) for learn, held in parts if len(learn) and len(held)]


def _fitted(known: Known, asked: Float64Array, coverage: float) -> Float64Array:
    return label_offsets(
        known.tiers, Recorded(np.ones(len(asked), np.bool_), asked == 0), len(known.labels), coverage
    )


def _escalated(known: Known, offsets: Float64Array, levels: Known, coverage: float) -> BoolArray:
    """The rows beyond the cut that accepts `coverage` of the rows `levels`."""
    cut = np.quantile(_surest(levels, offsets), 1 - coverage, method="lower")
    return _surest(known, offsets) < cut


def _surest(known: Known, offsets: Float64Array) -> Float64Array:
    return np.maximum.reduce([log_odds(tier.confidence) - offsets[tier.label] for tier in known.tiers])
