"""The admin side of the stand-in LLM: what tests, the fault harness and benchmarks tell it and ask it."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from typing import Any

NONE_OF_THEM = "calls?since=1000000000000"
"""The stand-in's sums, without its list of calls."""
TIMEOUT_S = 10.0


class StandIn:
    """One stand-in, by its address for an OpenAI client."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def admin(self, path: str, body: object = None, method: str = "POST") -> Any:
        """One call to `/admin/...`; what it answers. Raises `OSError` where it is away or refuses."""
        url = self.base_url.removesuffix("/v1") + f"/admin/{path}"
        data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)

    def fault(self, kind: str, **rest: object) -> None:
        """Puts a fault in force."""
        self.admin("faults", {"kind": kind, **rest})

    def well(self) -> None:
        """No faults from now on."""
        self.admin("faults", method="DELETE")

    def latency(self, median_ms: float, sigma: float = 0.5) -> None:
        """How long its answers take from now on."""
        self.admin("latency", {"median_ms": median_ms, "sigma": sigma})

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """Every call since the last reset, from that number on."""
        return self.admin(f"calls?since={since}", method="GET")["calls"]

    def in_flight(self) -> int:
        """Calls in the air; 0 where the stand-in is away."""
        try:
            return self.admin(NONE_OF_THEM, method="GET")["in_flight"]
        except (OSError, HTTPException, ValueError):  # it is being stopped
            return 0
