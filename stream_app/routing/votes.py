"""Weighing LLMs' votes against the small model's, and what a vote is worth before it is asked for. Pure.

An LLM's answer is evidence, not the truth: how much it says depends on how sure the small model was, and on the LLM.
Each label's score is a sum (a conditional logit, McFadden 1974) over what speaks for it: the small model's
log-probability, and the votes cast for it, each with weights fitted on recorded answers. The answer is the label with
the highest posterior. Dawid and Skene (1979) is the ancestor: raters weighed by how often they are wrong.

The value of asking is what an answer is expected to add to the chance of being right:

    sum over answers a of P(a | x) * max over labels y of P(y | x, a)   -   max over labels y of P(y | x)

where the chance of each answer is a logit of the same form, with one more alternative: no answer at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.events import VoteRule
from stream_app.routing.calibration import Float64Array
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.payoff import Payoff

NO_ANSWER = -1
"""A refusal, or nothing usable: a vote for no label."""
PROBABILITY_MIN = 1e-6
SURE_MAX = 4.0
"""Log-odds of the top label beyond which a small model counts as no surer."""
USUAL_CHARS = 600.0
"""Lengths are told as the logarithm of their ratio to this."""
SMALL_TERMS = 2
VOTE_TERMS = 4
SILENCE_TERMS = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """N texts before anyone was asked: calibrated probabilities [N, labels] and lengths in characters [N]."""

    probabilities: FloatArray
    chars: IndexArray

    def __len__(self) -> int:
        return len(self.probabilities)

    def rows(self, rows: IndexArray) -> "Seen":
        """Those rows only."""
        return Seen(self.probabilities[rows], self.chars[rows])

    @property
    def log_probabilities(self) -> Float64Array:
        """[N, labels], finite."""
        return np.log(np.maximum(self.probabilities.astype(np.float64), PROBABILITY_MIN))

    @property
    def sureness(self) -> Float64Array:
        """The top label's log-odds [N], from the log-odds of an even guess between two up to SURE_MAX."""
        top = np.clip(self.probabilities.max(axis=1).astype(np.float64), PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        return np.clip(np.log(top) - np.log1p(-top), -SURE_MAX, SURE_MAX)

    @property
    def length(self) -> Float64Array:
        """log(characters / USUAL_CHARS) [N]."""
        return np.log(np.maximum(self.chars, 1) / USUAL_CHARS)


@dataclass(frozen=True, slots=True)
class Logit:
    """Weights of one conditional logit, in the order of `evidence`'s terms. `voters` are those whose votes it takes.

    With `silence` there is one alternative more than labels: that there will be no answer.
    """

    voters: tuple[str, ...]
    weights: tuple[float, ...]
    silence: bool = False

    def chances(self, seen: Seen, votes: Sequence[IndexArray]) -> Float64Array:
        """[N, labels], or [N, labels + 1]: the chance of each alternative. `votes` [N] each, in the voters' order."""
        scores = evidence(seen, votes, silence=self.silence) @ np.array(self.weights)
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        return chances / chances.sum(axis=1, keepdims=True)


def terms(labels: int, voters: int, *, silence: bool) -> int:
    """How many weights a logit has."""
    return SMALL_TERMS + labels + VOTE_TERMS * voters + (SILENCE_TERMS if silence else 0)


def evidence(seen: Seen, votes: Sequence[IndexArray], *, silence: bool) -> Float64Array:
    """What speaks for each alternative: [N, alternatives, terms].

    For a label: its log-probability, the same times the sureness, a leaning of its own; and for each voter 1, the
    sureness and the length where it voted for that label, and the log-probability where it gave no answer. For
    silence: 1, the sureness and the length.
    """
    count, labels = seen.probabilities.shape
    log_p, sure, length = seen.log_probabilities, seen.sureness[:, None], seen.length[:, None]
    found = np.zeros((count, labels + silence, terms(labels, len(votes), silence=silence)))
    told = found[:, :labels]
    told[:, :, 0] = log_p
    told[:, :, 1] = log_p * sure
    told[:, np.arange(labels), SMALL_TERMS + np.arange(labels)] = 1
    at = SMALL_TERMS + labels
    for vote in votes:
        for_label = (vote[:, None] == np.arange(labels)).astype(np.float64)
        told[:, :, at] = for_label
        told[:, :, at + 1] = for_label * sure
        told[:, :, at + 2] = for_label * length
        told[:, :, at + 3] = log_p * (vote == NO_ANSWER)[:, None]
        at += VOTE_TERMS
    if silence:
        found[:, labels, at:] = np.concatenate([np.ones_like(sure), sure, length], axis=1)
    return found


@dataclass(frozen=True, slots=True)
class NextVote:
    """What asking one more LLM would bring: how it answers, and what is then believed."""

    expected: Logit
    after: Logit
    payoff: Payoff | None = None

    def value(self, seen: Seen, votes: Sequence[IndexArray], now: Float64Array) -> Float64Array:
        """By how much [N] the chance of being right is expected to rise over that of `now`'s best answer, at least 0;
        with a payoff, how much is expected to be saved.

        `votes` are those already cast, in the order of the voters of `expected`; `now` [N, labels] what is believed.
        """
        answers = self.expected.chances(seen, votes)
        count, labels = seen.probabilities.shape
        right = np.zeros(count)
        for answer in range(labels + 1):
            told = np.full(count, NO_ANSWER if answer == labels else answer, np.intp)
            right += answers[:, answer] * self._worth(self.after.chances(seen, [*votes, told])).max(axis=1)
        return np.maximum(right - self._worth(now).max(axis=1), 0.0)

    def _worth(self, believed: Float64Array) -> Float64Array:
        return believed if self.payoff is None else self.payoff.worth(believed)


def posterior_of(rule: VoteRule, voters: tuple[str, ...]) -> Logit | None:
    """What is believed once these LLMs, and only they, have voted; None where the rule does not say."""
    found = next((one for one in rule.weighing if one.voters == voters), None)
    return None if found is None else Logit(found.voters, found.weights)


def next_vote_of(rule: VoteRule, voters: tuple[str, ...], llm: str, payoff: Payoff | None) -> NextVote | None:
    """What asking `llm` after these would bring; None where the rule does not say."""
    expected = next((one for one in rule.expecting if one.llm == llm and one.voters == voters), None)
    after = posterior_of(rule, (*voters, llm))
    if expected is None or after is None:
        return None
    return NextVote(Logit(expected.voters, expected.weights, silence=True), after, payoff)


@dataclass(frozen=True, slots=True)
class Opinions:
    """One text's votes under a rule: `cast` holds each LLM's label, None where it gave no answer, in the order asked.

    `probabilities` are the small model's calibrated ones by label, in its order; `chars` is the text's length.
    """

    rule: VoteRule
    probabilities: Mapping[str, float]
    chars: int
    cast: Mapping[str, str | None]

    def label(self) -> str | None:
        """The label with the highest posterior, or the least expected cost; None without weights for such votes."""
        believed = self._believed()
        if believed is None:
            return None
        worth = believed if self._payoff is None else self._payoff.worth(believed)
        return tuple(self.probabilities)[int(worth[0].argmax())]

    def worth(self, llm: str) -> float:
        """By how much asking that LLM too is expected to raise the chance of being right; 0 where that is unknown."""
        now, following = self._believed(), next_vote_of(self.rule, tuple(self.cast), llm, self._payoff)
        if now is None or following is None or not self._fits(following.expected, following.after):
            return 0.0
        return float(following.value(self._seen, self._votes(), now)[0])

    def asks(self, llm: str) -> bool:
        """Whether that LLM's opinion too is worth asking for, by the rule. What can change nothing never is."""
        worth = self.worth(llm)
        return worth > 0 and worth >= self.rule.worth_min

    @property
    def _payoff(self) -> Payoff | None:
        return Payoff.of(tuple(self.probabilities), self.rule.costs)

    @property
    def _seen(self) -> Seen:
        return Seen(np.array([[*self.probabilities.values()]], np.float32), np.array([self.chars]))

    def _votes(self) -> list[IndexArray]:
        places = {label: place for place, label in enumerate(self.probabilities)}
        return [np.array([NO_ANSWER if said is None else places[said]]) for said in self.cast.values()]

    def _believed(self) -> Float64Array | None:
        weights = posterior_of(self.rule, tuple(self.cast))
        strange = {*self.cast.values()} - {*self.probabilities, None}
        if weights is None or strange or not self._fits(weights):
            return None
        return weights.chances(self._seen, self._votes())

    def _fits(self, *logits: Logit) -> bool:
        """Whether each has as many weights as these labels and its voters take."""
        labels = len(self.probabilities)
        return all(len(one.weights) == terms(labels, len(one.voters), silence=one.silence) for one in logits)
