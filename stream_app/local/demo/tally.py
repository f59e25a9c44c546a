"""What has been sent and what has come out so far: the live figures."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.local.demo.lines import route_of
from stream_app.local.demo.outcomes import Decided

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.local.demo.outcomes import Outcome


@dataclass(slots=True)
class Tally:
    """Grows while the demo runs. Times are of the monotonic clock, in seconds."""

    planned: int
    now_s: Callable[[], float] = time.monotonic
    sent: int = 0
    routes: Counter[str] = field(default_factory=Counter[str])
    cost_usd: float = 0.0
    first_sent_s: float | None = None
    last_outcome_s: float | None = None
    _closed: set[str] = field(default_factory=set[str])

    def count_sent(self, sent: int) -> None:
        """So many records have been sent."""
        self.sent = sent
        if self.first_sent_s is None:
            self.first_sent_s = self.last_outcome_s = self.now_s()

    def add(self, outcome: Outcome) -> None:
        """One more record of the output topics."""
        self.last_outcome_s = self.now_s()
        if isinstance(outcome, Decided):
            self.cost_usd += outcome.call.cost_usd if outcome.call is not None else 0.0
            if not outcome.final:
                return
        if outcome.source not in self._closed:
            self._closed.add(outcome.source)
            self.routes[route_of(outcome)] += 1

    @property
    def closed(self) -> int:
        """Records with an outcome."""
        return len(self._closed)

    @property
    def seconds(self) -> float:
        """From the first record sent to the last outcome seen."""
        if self.first_sent_s is None or self.last_outcome_s is None:
            return 0.0
        return self.last_outcome_s - self.first_sent_s

    @property
    def idle_s(self) -> float:
        """How long nothing has come out."""
        return 0.0 if self.last_outcome_s is None else self.now_s() - self.last_outcome_s
