"""Rows whose LLM answers are recorded: what asking about them comes to, by whatever rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_app.events import Cost, VoteRule
from stream_app.routing.calibration import Float64Array
from stream_app.routing.models import IndexArray
from stream_app.routing.payoff import Payoff, plain
from stream_app.routing.votes import Seen
from stream_app.training.cut import Judged
from stream_app.training.voting import Recordings, voted

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Known:
    """What each tier says of N rows, what LLMs said, and the truth. All arrays are [N] by row.

    `places` are the rows' places among all, `seen` what the last tier makes of them, `folds` numbers below FOLDS, the
    same for all rows of a group. `costs` are those of wrong answers by label; where there are none each costs 1.
    """

    places: IndexArray
    tiers: Sequence[Judged]
    seen: Seen
    recorded: Recordings
    truth: IndexArray
    folds: IndexArray
    labels: tuple[str, ...]
    costs: Mapping[str, Cost]

    @property
    def small(self) -> IndexArray:
        """The label that stands where nobody can be asked."""
        return self.tiers[-1].label

    @property
    def payoff(self) -> Payoff | None:
        """The costs as a rule to choose answers by."""
        return Payoff.of(self.labels, self.costs)

    def rows(self, chosen: IndexArray) -> "Known":
        """Of these rows alone."""
        return replace(
            self,
            places=self.places[chosen],
            tiers=[tier.rows(chosen) for tier in self.tiers],
            seen=self.seen.rows(chosen),
            recorded=self.recorded.rows(chosen),
            truth=self.truth[chosen],
            folds=self.folds[chosen],
        )

    def among(self, *parts: IndexArray) -> "Known":
        """Of the rows at these places alone."""
        return self.rows(np.flatnonzero(np.isin(self.places, np.concatenate(parts))))

    def of_first(self) -> "Known":
        """As if only the first LLM could be asked."""
        recorded = Recordings(self.labels, self.recorded.llms[:1], self.recorded.answers[:1])
        return replace(self, recorded=recorded)

    def cost_of(self, answer: IndexArray) -> Float64Array:
        """What these answers cost."""
        return (self.payoff or plain(len(self.labels))).cost(self.truth, answer)

    def cost_if_asked(self, rule: VoteRule | None) -> Float64Array:
        """What each row costs, escalated."""
        return self.cost_of(voted(rule, self.small, self.seen, self.recorded, self.payoff).label)


def clearly_cheaper(cost: Float64Array, than: Float64Array, errors: float = 1.0) -> bool:
    """Cheaper on the same rows by more than so many standard errors of the sum of differences.

    Where every wrong answer costs 1 that is McNemar's (1947) statistic, its root beyond `errors`.
    """
    saved = than - cost
    return float(saved.sum()) > errors * float((saved**2).sum()) ** 0.5
