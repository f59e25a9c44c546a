"""The stand-in LLM as the harness uses it: faults by its admin address, and its own log of calls."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter, defaultdict
from http.client import HTTPException
from typing import Any

EVERYTHING = 10**12
TIMEOUT_S = 10.0


class StandInAdmin:
    """Reads the log piece by piece, since a stand-in that is stopped takes its log with it."""

    def __init__(self, base_url: str) -> None:
        self._admin = base_url.removesuffix("/v1") + "/admin"
        self._since = 0
        self._open: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        """Calls with a good answer that was sent in full, by event id."""
        self.statuses: Counter[str] = Counter()
        """Calls by status, and by fault where one was in force."""
        self.asked: dict[str, list[float]] = defaultdict(list)
        """When each event was asked."""

    def _request(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._admin}/{path}", data, {"content-type": "application/json"})
        request.method = method
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)

    def in_flight(self) -> int:
        """Calls in the air; 0 where the stand-in is away."""
        try:
            return self._request("GET", f"calls?since={EVERYTHING}")["in_flight"]
        except (OSError, HTTPException, ValueError):  # it is being stopped
            return 0

    def fault(self, **fault: object) -> None:
        self._request("POST", "faults", fault)

    def latency(self, median_ms: float) -> None:
        self._request("POST", "latency", {"median_ms": median_ms, "sigma": 0.5})

    def well(self) -> None:
        """No faults from now on."""
        self._request("DELETE", "faults")

    def collect(self, *, closing: bool = False) -> None:
        """Takes over what is new in the log; `closing`: the stand-in is about to be stopped, and to start at 1."""
        with self._lock:
            lowest = min(self._open, default=self._since + 1)
            calls = self._request("GET", f"calls?since={lowest}")["calls"]
            for call in calls:
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
