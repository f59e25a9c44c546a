"""What the slow lane knows of one owned partition of the audits topic: accepted answers to check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.escalate.parked_work import ParkedWork

if TYPE_CHECKING:
    from stream_app.telemetry import Lane

AUDITS_IN_FLIGHT_SHARE = 0.0625
"""Of `llm.max_in_flight`, but one at least: a quarter of what parked events may take. They wait for their turn behind
the audits under way, and behind no others."""


@dataclass(slots=True)
class AuditWork(ParkedWork):
    """One audits partition's work in one assignment: it waits, rests and expires as parked events do, after them."""

    @property
    def lane(self) -> Lane:
        """Its name in the metrics."""
        return "audits"
