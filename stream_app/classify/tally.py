"""What a batch became, counted for the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.telemetry import Metrics


@dataclass(slots=True)
class Tally:
    """How many records of a batch became what; `answers` by task and label, `escalated` by task and reason."""

    accepted: int = 0
    escalated: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    dead: Counter[str] = field(default_factory=Counter[str])
    tombstones: int = 0
    provisional: int = 0
    audits: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def count_into(self, metrics: Metrics) -> None:
        """Adds the batch to the worker's counters."""
        if self.accepted:
            metrics.decisions("final", "small", self.accepted)
        for (task, label), count in self.answers.items():
            if count:
                metrics.answers(task, label, "small", count)
        for (task, because), count in self.escalated.items():
            metrics.escalated(task, because, count)
        for cause, count in self.dead.items():
            metrics.dead_letters("classify", cause, count)
        if self.tombstones:
            metrics.tombstones(self.tombstones)
        if self.provisional:
            metrics.decisions("provisional", "small", self.provisional)
        if self.audits:
            metrics.audits_sent(self.audits)
