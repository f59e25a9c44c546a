"""The stand-in LLM over HTTP, one per run for these tests, and a way to tell it what to do."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from tests.conftest import run_apart

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class StandIn:
    """The stand-in's address and its admin side."""

    base_url: str

    def admin(self, path: str, body: object = None, method: str = "POST") -> Any:
        """One call to `/admin/...`; what it answers."""
        url = self.base_url.removesuffix("/v1") + f"/admin/{path}"
        data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def fault(self, kind: str, **rest: object) -> None:
        """Puts a fault in force."""
        self.admin("faults", {"kind": kind, **rest})

    def calls(self) -> list[dict[str, Any]]:
        """Every call since the last reset."""
        return self.admin("calls", method="GET")["calls"]


@pytest.fixture(scope="session")
def stand_in_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """The server's process, once per run."""
    server = LlmServer(
        tmp_path_factory.mktemp("llm") / "llm.log", StandInOptions(latency_median_ms=20, latency_sigma=0.5)
    )
    run_apart(server.start())
    yield StandIn(server.base_url)
    run_apart(server.process.stop())


@pytest.fixture
def llm(stand_in_server: StandIn) -> StandIn:
    """The stand-in as it was at the start: no faults, no limits, no calls."""
    stand_in_server.admin("reset")
    return stand_in_server
