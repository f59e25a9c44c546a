"""The stand-in LLM over HTTP, one per run for these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from tests.conftest import run_apart
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator


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
