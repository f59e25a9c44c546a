"""The stand-in LLM as the harness uses it: its admin side, and its own log of calls."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import Any

from tests.stand_in import StandIn


class StandInAdmin(StandIn):
    """Reads the log piece by piece, since a stand-in that is stopped takes its log with it."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self._since = 0
        self._open: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        """Calls with a good answer that was sent in full, by event id."""
        self.statuses: Counter[str] = Counter()
        """Calls by status, and by fault where one was in force."""
        self.asked: dict[str, list[float]] = defaultdict(list)
        """When each event was asked."""

    def collect(self, *, closing: bool = False) -> None:
        """Takes over what is new in the log; `closing`: the stand-in is about to be stopped, and to start at 1."""
        with self._lock:
            lowest = min(self._open, default=self._since + 1)
            for call in self.calls(lowest):
                number = call["number"]
                if number > self._since:
                    self._since = number
                    self.asked[call["event_id"]].append(call["at_s"])
                    self._open[number] = call
                if number in self._open and call["status"] != 0:
                    del self._open[number]
                    self._ended(call)
            if closing:
                self.statuses["severed"] += len(self._open)
                self._open.clear()
                self._since = 0

    def _ended(self, call: dict[str, Any]) -> None:
        self.statuses[call["fault"] or str(call["status"])] += 1
        if call["status"] == 200 and call["fault"] in {None, "slow"}:
            self.answered[call["event_id"]] += 1
