"""What several tests of the command line use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from tests.conftest import run_apart

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def llm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stand-in LLM."""
    server = LlmServer(tmp_path_factory.mktemp("llm") / "llm.log", StandInOptions(latency_median_ms=5))
    run_apart(server.start())
    yield server.base_url
    run_apart(server.process.stop())
