"""What becomes of routed rows once their escalated ones are put to the LLMs whose answers are recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.events import VoteRule
from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Route, Routed
from stream_app.routing.payoff import Payoff
from stream_app.routing.votes import NO_ANSWER, Seen
from stream_app.training.recorded import RecordedRow
from stream_app.training.voting import Recordings, Voted, voted


@dataclass(frozen=True, slots=True)
class Asked:
    """What the LLMs' recorded answers make of N routed rows, were each escalated."""

    recorded: Recordings
    voted: Voted

    @classmethod
    def of(cls, recorded: Recordings, rule: VoteRule | None, rows: Sequence[RecordedRow], routed: Routed) -> "Asked":
        """By the policy's rule; outside the calibrated domain the LLM is obeyed, since nothing is known of votes."""
        seen = Seen(routed.probabilities, np.array([len(row.text) for row in rows], np.intp))
        payoff = None if rule is None else Payoff.of(recorded.labels, rule.costs)
        by_rule, obeyed = (voted(one, routed.label, seen, recorded, payoff) for one in (rule, None))
        outside = routed.route == Route.OUT_OF_DOMAIN
        return cls(recorded, Voted(np.where(outside, obeyed.label, by_rule.label), by_rule.second & ~outside))

    def answered(self, escalated: BoolArray) -> BoolArray:
        """The escalated rows that some LLM gave a label for."""
        first, second = self.recorded.answers[0], self.recorded.answers[-1]
        return escalated & ((first != NO_ANSWER) | (self.voted.second & (second != NO_ANSWER)))
