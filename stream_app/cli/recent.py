"""What the newest decisions say about a pipeline, and what its leases say about money. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec import timestamp_ms
from stream_app.escalate.budget import DAY_S, HOUR_S, NANO, parse_lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_app.codec import DecisionMessage


@dataclass(slots=True)
class Recent:
    """A count over decisions, in whatever order they come. Spend counts each paid call once."""

    finals: int = 0
    by: Counter[str] = field(default_factory=Counter[str])
    degraded: Counter[str] = field(default_factory=Counter[str])
    corrections: int = 0
    uncertified: int = 0
    cost_usd: float = 0.0
    calls: int = 0
    """Decisions that paid for a call; one answered from the cache did not."""
    models: Counter[str] = field(default_factory=Counter[str])
    """Which model answered, in finals of the LLM."""
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, decisions: Iterable[DecisionMessage]) -> None:
        """Counts some more decisions."""
        for decision in decisions:
            self._add(decision)

    def _add(self, decision: DecisionMessage) -> None:
        if decision.usage is not None:
            self.cost_usd += decision.usage.cost_usd
            self.calls += not decision.usage.cached
        if decision.kind == "correction":
            self.corrections += 1
        if decision.kind != "final":
            return
        self.finals += 1
        self.by[decision.decided_by] += 1
        if decision.decided_by == "llm" and decision.usage is not None:
            self.models[decision.usage.model] += 1
        self.uncertified += decision.certified is False
        if decision.degraded:
            self.degraded[decision.degraded_reason or "unknown"] += 1
        when = timestamp_ms(decision.decided_at)
        self.first_ms = when if self.first_ms is None else min(self.first_ms, when)
        self.last_ms = when if self.last_ms is None else max(self.last_ms, when)

    @property
    def span_s(self) -> float:
        """From the first of these decisions to the last."""
        return 0.0 if self.first_ms is None or self.last_ms is None else (self.last_ms - self.first_ms) / 1000

    @property
    def per_s(self) -> float | None:
        """Final decisions a second between the first and the last; None below two."""
        return (self.finals - 1) / self.span_s if self.finals > 1 and self.span_s > 0 else None

    @property
    def escalated_share(self) -> float | None:
        """Share of finals that the LLM took part in, or was to and could not; None without finals."""
        return (self.by["llm"] + self._degraded_small) / self.finals if self.finals else None

    @property
    def saved_usd_estimate(self) -> float | None:
        """What asking the LLM about everything would have cost more, at the mean price of the calls that were paid.

        None where no call was. An estimate: texts that the small models decided may be shorter, and a plain prompt
        has no hint.
        """
        if not self.calls:
            return None
        unasked = self.finals - self.by["llm"] - self._degraded_small
        return unasked * self.cost_usd / self.calls

    @property
    def _degraded_small(self) -> int:
        return self.degraded.total()


@dataclass(frozen=True, slots=True)
class Spend:
    """Dollars of the fleet: settled in this hour and day, and leased to workers beyond that."""

    hour_usd: float
    day_usd: float
    leased_usd: float


def spend(notes: Iterable[str], wall_s: float) -> Spend:
    """What the leases beside the committed offsets add up to at the time `wall_s`."""
    leases = [lease for note in notes if (lease := parse_lease(note)) is not None]
    hour, day = wall_s // HOUR_S, wall_s // DAY_S
    return Spend(
        hour_usd=sum(lease.settled_hour_nusd for lease in leases if lease.hour == hour) / NANO,
        day_usd=sum(lease.settled_day_nusd for lease in leases if lease.day == day) / NANO,
        leased_usd=sum(lease.leased_nusd for lease in leases) / NANO,
    )
