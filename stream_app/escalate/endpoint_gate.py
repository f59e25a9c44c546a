"""What stands before the calls to one endpoint: its rate limits and its circuit. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from stream_app.escalate.breaker import Breaker
from stream_app.escalate.call_end import CallEnd, Counted, Lost, OverLimit
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.route import Passage, passage
from stream_app.escalate.token_bucket import Limits
from stream_app.escalate.token_use import TokenUse

if TYPE_CHECKING:
    from stream_app.escalate.corrected_rate import Started
    from stream_app.settings import Endpoint


@dataclass(slots=True)
class EndpointGate:
    """One endpoint's limits, circuit and use of tokens, in one worker. Dollars are the business of `gate`."""

    rate: CorrectedRate
    use: TokenUse = field(default_factory=TokenUse)
    breaker: Breaker = field(default_factory=Breaker)

    @classmethod
    def of(cls, endpoint: Endpoint, partitions: int) -> EndpointGate:
        """As the settings have it, shared out over the partitions of the escalation topic."""
        limits = Limits(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        counted = endpoint.tokens_counted
        return cls(CorrectedRate(limits, partitions, counts_at_end=counted == "used"), TokenUse(counted))

    def passage(self, now_s: float) -> Passage:
        """Whether a call may go here, as far as the circuit goes."""
        return passage(self.breaker.circuit, self.breaker.wait_s(now_s))

    def ended(self, started: Started, end: CallEnd, now_s: float) -> None:
        """Replaces what a call was expected to take of the rate by what its end says."""
        match end:
            case Counted(tokens, headers):
                self.rate.answered(started, tokens, headers, now_s)
            case OverLimit(refused_wall_s, headers):
                self.rate.refused(started, headers, now_s, refused_wall_s)
            case Lost():
                self.rate.lost(started, now_s)
            case _:
                assert_never(end)
