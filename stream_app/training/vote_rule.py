"""Whether LLMs' votes are worth weighing, and second opinions worth asking for; and then, by which weights.

The rule is fitted and chosen on rows that certification may see too: it decides among answers that the LLM took part
in, and the promise is about those that it did not.
"""

import numpy as np

from stream_app.events import Expecting, VoteRule, Weighing
from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.votes import NextVote, Seen
from stream_app.training.known import FOLDS, Known, clearly_cheaper
from stream_app.training.vote_fit import fit_expected, fit_posterior

ROWS_MIN = 300
"""With fewer recorded rows an LLM is obeyed: a dozen weights want that many."""
NEAR_SHARE, NEAR_MIN = 0.1, 50
"""The escalated rows that stand for the last one escalated: the surest tenth, at least so many."""


def vote_rule(known: Known, escalated: BoolArray) -> VoteRule | None:
    """The rule for rows like these where the `escalated` ones are; None where the LLM is best obeyed.

    On escalated rows that the weights were not fitted on, weighing the first LLM's vote must lead to cheaper answers
    than obeying it (that is, be right more often): to do so is free. A second opinion is a call, so with it answers
    must be cheaper by more than a standard error.
    """
    if len(known.truth) < ROWS_MIN or not escalated.any():
        return None
    best, chosen = known.of_first().cost_if_asked(None), None
    for way in [known.of_first(), *([known] if len(known.recorded.llms) > 1 else [])]:
        cost = _cross_fitted(way, escalated)
        errors = 0.0 if len(way.recorded.llms) == 1 else 1.0
        if clearly_cheaper(cost[escalated], best[escalated], errors):
            best, chosen = cost, way
    return None if chosen is None else fitted_rule(chosen, escalated)


def fitted_rule(known: Known, escalated: BoolArray) -> VoteRule:
    """The rule with weights for every LLM that is recorded, fitted on all rows, the sure ones too."""
    seen, recorded, truth = known.seen, known.recorded, known.truth
    first, answer = recorded.llms[0], recorded.answers[0]
    alone = fit_posterior((first,), seen, [answer], truth)
    weighing = [Weighing(voters=alone.voters, weights=alone.weights)]
    if len(recorded.llms) == 1:
        return VoteRule(weighing=tuple(weighing), costs=dict(known.costs))
    second, other = recorded.llms[1], recorded.answers[1]
    by_itself = fit_posterior((second,), seen, [other], truth)
    both = fit_posterior((first, second), seen, [answer, other], truth)
    weighing += [Weighing(voters=one.voters, weights=one.weights) for one in (by_itself, both)]
    expected = fit_expected((first,), seen, [answer], other)
    worth = _worth_of_the_last(value_of_asking(known), seen, escalated)
    return VoteRule(
        weighing=tuple(weighing),
        expecting=(Expecting(llm=second, voters=expected.voters, weights=expected.weights),),
        worth_min=round(worth * recorded.price_of(second), 6),
        costs=dict(known.costs),
    )


def value_of_asking(known: Known) -> Float64Array:
    """What asking the first LLM is expected to gain, by row."""
    first, answer = known.recorded.llms[0], known.recorded.answers[0]
    alone = fit_posterior((first,), known.seen, [answer], known.truth)
    following = NextVote(fit_expected((), known.seen, [], answer), alone, known.payoff)
    return following.value(known.seen, [], known.seen.probabilities.astype(np.float64))


def _cross_fitted(known: Known, escalated: BoolArray) -> Float64Array:
    """What each row costs if asked, by weights fitted on the other folds."""
    cost = np.zeros(len(known.truth))
    for fold in range(FOLDS):
        learn, held = np.flatnonzero(known.folds != fold), np.flatnonzero(known.folds == fold)
        if len(learn) and len(held):
            cost[held] = known.rows(held).cost_if_asked(fitted_rule(known.rows(learn), escalated[learn]))
    return cost


def _worth_of_the_last(value: Float64Array, seen: Seen, escalated: BoolArray) -> float:
    """What the surest of the escalated rows gain by the first call: a second call is to gain as much for its price.

    Equal gains for the last dollar either way: no other division of the money gains more (equal marginal value).
    """
    confidence = seen.probabilities.max(axis=1)[escalated]
    near = max(NEAR_MIN, round(NEAR_SHARE * len(confidence)))
    return float(value[escalated][np.argsort(-confidence, kind="stable")[:near]].mean()) if escalated.any() else 0.0
