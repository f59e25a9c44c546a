"""The clock that deadlines are counted in: it stands still while the lane waits by choice. Pure.

With `on_outage = "wait"` or `on_budget = "wait"` an event may wait for hours; that time is not its fault, so it
does not count against its deadline.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RunningClock:
    """Running time: the clock's time less all the time it was stopped."""

    stopped_since_s: float | None = None
    _stopped_s: float = 0.0

    def running_s(self, now_s: float) -> float:
        """Running time at `now_s`; it does not move while the clock is stopped."""
        return (now_s if self.stopped_since_s is None else self.stopped_since_s) - self._stopped_s

    @property
    def stopped(self) -> bool:
        """True while it stands still."""
        return self.stopped_since_s is not None

    def set_stopped(self, stopped: bool, now_s: float) -> None:
        """Stops it or lets it run on; saying the same twice changes nothing."""
        if stopped and self.stopped_since_s is None:
            self.stopped_since_s = now_s
        elif not stopped and self.stopped_since_s is not None:
            self._stopped_s += now_s - self.stopped_since_s
            self.stopped_since_s = None
