"""What stands before a call for a second opinion: its endpoint's own rate and circuit, and the lane's money. Pure.

It is never waited for beyond a turn in the rate: while its circuit is open, or the budget does not reach, the first
opinion stands. Of a budget that does not reach for everyone it competes with first opinions by what it is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.gate import Cost, Gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.escalate.budget import Lease
    from stream_app.settings import Endpoint


@dataclass(slots=True)
class SecondGate(Gate):
    """A gate with one endpoint, beside the `first`'s, whose accounts and memory of demand it shares."""

    first: Gate = field(kw_only=True)

    @classmethod
    def beside(cls, first: Gate, endpoint: Endpoint) -> SecondGate:
        """The gate of that endpoint, beside the one of all others."""
        return cls(
            (EndpointGate.of(endpoint, first.partitions),),
            first.usd_per_hour,
            first.usd_per_day,
            first.partitions,
            on_budget="degrade",
            on_outage="degrade",
            spending=first.spending,
            budgets=first.budgets,
            first=first,
        )

    def gain(self, partition: int, last: Lease | None, now_s: float, wall_s: float) -> None:
        """A partition is owned from now on: its share of the rate starts empty. The first opens its account."""
        del last, wall_s
        for endpoint in self.endpoints:
            endpoint.rate.gain(partition, now_s)

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        for endpoint in self.endpoints:
            endpoint.rate.lose(partition)

    def worth(self, change: float, costs: Sequence[Cost], now_s: float, wall_s: float, draw: float) -> bool:
        """Whether to spend on an opinion that is worth `change`: its price is the same whoever was asked first."""
        if not self.budgets:
            return True
        at, nusd = self.first.in_use(now_s), [costs[0].nusd] * len(self.first.endpoints)
        return self.spending.worth(change, nusd, self._left(wall_s), at=at, now_s=now_s, draw=draw)

    def _spares(self, cost: Cost, at: int, now_s: float, wall_s: float) -> bool:
        """Whether the money left reaches for that call and for everyone to come."""
        del at
        return self.spending.spares(cost.nusd, self._left(wall_s), at=self.first.in_use(now_s), now_s=now_s)
