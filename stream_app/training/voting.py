"""What recorded answers of LLMs come to under a vote rule, and whether such a rule is worth having.

The rule is fitted and chosen on rows that certification may see too: it decides among answers that the LLM took part
in, and the promise is about those that it did not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_app.errors import SettingsError
from stream_app.events import Expecting, VoteRule, Weighing
from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.models import IndexArray
from stream_app.routing.votes import NO_ANSWER, Logit, NextVote, Seen
from stream_app.training.paired import clearly_better
from stream_app.training.recorded import RecordedRow
from stream_app.training.vote_fit import fit_expected, fit_posterior

FOLDS = 5
ROWS_MIN = 300
"""With fewer recorded rows an LLM is obeyed: a dozen weights want that many."""
NEAR_SHARE, NEAR_MIN = 0.1, 50
"""The escalated rows that stand for the last one escalated: the surest tenth, at least so many."""


@dataclass(frozen=True, slots=True)
class Recordings:
    """What each LLM answered to N rows, in the order in which they would be asked: label indexes or NO_ANSWER.

    `prices` are what a token costs, relative to each other; one that is not named costs 1.
    """

    llms: tuple[str, ...]
    answers: tuple[IndexArray, ...]
    prices: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def of(
        cls, llms: Sequence[str], rows: Sequence[RecordedRow], labels: tuple[str, ...], prices: Mapping[str, float]
    ) -> "Recordings":
        """Raises SettingsError where a row has no recorded answer of one of them, or a price names none of them."""
        if stray := sorted(prices.keys() - set(llms)):
            raise SettingsError(
                f"there is a price of {stray[0]}, which is not asked", advice="name it with --llm too"
            )
        index = {label: place for place, label in enumerate(labels)}
        return cls(
            tuple(llms),
            tuple(
                np.array([index.get(row.answer_of(llm) or "", NO_ANSWER) for row in rows], np.intp) for llm in llms
            ),
            prices,
        )

    def rows(self, chosen: IndexArray) -> "Recordings":
        """Of these rows alone."""
        return Recordings(self.llms, tuple(answer[chosen] for answer in self.answers), self.prices)

    def price_of(self, llm: str) -> float:
        """Of a token, in parts of the first LLM's."""
        return self.prices.get(llm, 1.0) / self.prices.get(self.llms[0], 1.0)


@dataclass(frozen=True, slots=True)
class Voted:
    """What N escalated rows come to: the label, and which of them the second LLM was asked about too."""

    label: IndexArray
    second: BoolArray


def voted(rule: VoteRule | None, small: IndexArray, seen: Seen, recorded: Recordings) -> Voted:
    """The label of every row, were it escalated. Where no LLM gave an answer, the small model's stands."""
    first, answer = recorded.llms[0], recorded.answers[0]
    label, none = np.where(answer == NO_ANSWER, small, answer), np.zeros(len(seen), np.bool_)
    weigh = None if rule is None else _weighing(rule, (first,))
    if rule is None or weigh is None:
        return Voted(label, none)
    believed = weigh.chances(seen, [answer])
    label = np.where(answer == NO_ANSWER, small, believed.argmax(axis=1))
    if len(recorded.llms) == 1:
        return Voted(label, none)
    second = recorded.llms[1]
    both = _weighing(rule, (first, second))
    expected = next((one for one in rule.expecting if one.llm == second and one.voters == (first,)), None)
    if both is None or expected is None:
        return Voted(label, none)
    following = NextVote(Logit(expected.voters, expected.weights, silence=True), both)
    asked = following.value(seen, [answer], believed) >= rule.worth_min
    votes = [answer, recorded.answers[1]]
    silent = (votes[0] == NO_ANSWER) & (votes[1] == NO_ANSWER)
    after = np.where(silent, small, both.chances(seen, votes).argmax(axis=1))
    return Voted(np.where(asked, after, label), asked)


def vote_rule(
    small: IndexArray,
    seen: Seen,
    recorded: Recordings,
    truth: IndexArray,
    escalated: BoolArray,
    folds: IndexArray,
) -> VoteRule | None:
    """The rule for rows like these, None where the LLM is best obeyed. `folds` [N] below FOLDS keep groups together.

    Weighing votes, and the second opinion, must each be right more often than without, by more than a standard
    error, on rows that the weights were not fitted on: the escalated ones.
    """
    if len(seen) < ROWS_MIN or not escalated.any():
        return None
    ways: tuple[tuple[Recordings, bool], ...] = ((recorded.rows(np.arange(len(seen))), True),)
    first_only = Recordings(recorded.llms[:1], recorded.answers[:1], {})
    ways = ((first_only, False), (first_only, True), *(ways if len(recorded.llms) > 1 else ()))
    right = [np.zeros(len(seen), np.bool_) for _ in ways]
    for fold in range(FOLDS):
        learn, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for place, (answers, weighed) in enumerate(ways):
            rule = None
            if weighed:
                rule = _fitted(seen.rows(learn), answers.rows(learn), truth[learn], escalated[learn])
            found = voted(rule, small[held], seen.rows(held), answers.rows(held))
            right[place][held] = found.label == truth[held]
    best = 0
    for place in range(1, len(ways)):
        if clearly_better(right[place][escalated], right[best][escalated]):
            best = place
    answers, weighed = ways[best]
    return _fitted(seen, answers, truth, escalated) if weighed else None


def _fitted(seen: Seen, recorded: Recordings, truth: IndexArray, escalated: BoolArray) -> VoteRule:
    first, answer = recorded.llms[0], recorded.answers[0]
    alone = fit_posterior((first,), seen, [answer], truth)
    weighing = [Weighing(voters=alone.voters, weights=alone.weights)]
    if len(recorded.llms) == 1:
        return VoteRule(weighing=tuple(weighing))
    second, other = recorded.llms[1], recorded.answers[1]
    by_itself = fit_posterior((second,), seen, [other], truth)
    both = fit_posterior((first, second), seen, [answer, other], truth)
    weighing += [Weighing(voters=one.voters, weights=one.weights) for one in (by_itself, both)]
    expected = fit_expected((first,), seen, [answer], other)
    value = NextVote(fit_expected((), seen, [], answer), alone).value(seen, [], seen.probabilities.astype(np.float64))
    return VoteRule(
        weighing=tuple(weighing),
        expecting=(Expecting(llm=second, voters=expected.voters, weights=expected.weights),),
        worth_min=round(_worth_of_the_last(value, seen, escalated) * recorded.price_of(second), 6),
    )


def _worth_of_the_last(value: Float64Array, seen: Seen, escalated: BoolArray) -> float:
    """What the surest of the escalated rows gain by the first call: a second call is to gain as much for its price.

    Equal gains for the last dollar either way: no other division of the money gains more (equal marginal value).
    """
    confidence = seen.probabilities.max(axis=1)[escalated]
    near = max(NEAR_MIN, round(NEAR_SHARE * len(confidence)))
    return float(value[escalated][np.argsort(-confidence, kind="stable")[:near]].mean())


def _weighing(rule: VoteRule, voters: tuple[str, ...]) -> Logit | None:
    found = next((one for one in rule.weighing if one.voters == voters), None)
    return None if found is None else Logit(found.voters, found.weights)
