"""What recorded answers of LLMs come to under a vote rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_app.errors import SettingsError
from stream_app.events import VoteRule
from stream_app.routing.calibration import BoolArray
from stream_app.routing.models import IndexArray
from stream_app.routing.payoff import Payoff, plain
from stream_app.routing.votes import NO_ANSWER, Seen, next_vote_of, posterior_of
from stream_app.training.recorded import RecordedRow


@dataclass(frozen=True, slots=True)
class Recordings:
    """What each LLM answered to N rows, in the order in which they would be asked: label indexes, or sets of labels,
    or NO_ANSWER.

    `prices` are what a token costs, relative to each other; one that is not named costs 1.
    """

    labels: tuple[str, ...]
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
        return cls(labels, tuple(llms), tuple(_answers(rows, llm, labels) for llm in llms), prices)

    def rows(self, chosen: IndexArray) -> "Recordings":
        """Of these rows alone."""
        return Recordings(self.labels, self.llms, tuple(answer[chosen] for answer in self.answers), self.prices)

    def price_of(self, llm: str) -> float:
        """Of a token, in parts of the first LLM's."""
        return self.prices.get(llm, 1.0) / self.prices.get(self.llms[0], 1.0)


def _answers(rows: Sequence[RecordedRow], llm: str, labels: tuple[str, ...]) -> IndexArray:
    codes = (row.code_of(row.answer_of(llm), labels) for row in rows)
    return np.array([NO_ANSWER if code is None else code for code in codes], np.intp)


@dataclass(frozen=True, slots=True)
class Voted:
    """What N escalated rows come to: the label, and which of them the second LLM was asked about too."""

    label: IndexArray
    second: BoolArray


def voted(
    rule: VoteRule | None, small: IndexArray, seen: Seen, recorded: Recordings, payoff: Payoff | None = None
) -> Voted:
    """The label of every row, were it escalated. Where no LLM gave an answer, the small model's stands."""
    first, answer = recorded.llms[0], recorded.answers[0]
    label, none = np.where(answer == NO_ANSWER, small, answer), np.zeros(len(seen), np.bool_)
    weigh = None if rule is None else posterior_of(rule, (first,))
    if rule is None or weigh is None:
        return Voted(label, none)
    worth = (payoff or plain(seen.probabilities.shape[1])).worth
    believed = weigh.chances(seen, [answer])
    label = np.where(answer == NO_ANSWER, small, worth(believed).argmax(axis=1))
    if len(recorded.llms) == 1:
        return Voted(label, none)
    second = recorded.llms[1]
    following = next_vote_of(rule, (first,), second, payoff)
    if following is None:
        return Voted(label, none)
    gain = following.value(seen, [answer], believed)
    asked = (gain > 0) & (gain >= rule.worth_min)
    votes = [answer, recorded.answers[1]]
    silent = (votes[0] == NO_ANSWER) & (votes[1] == NO_ANSWER)
    after = np.where(silent, small, worth(following.after.chances(seen, votes)).argmax(axis=1))
    return Voted(np.where(asked, after, label), asked)
