"""A stand-in LLM for the tests of the stand-in LLM."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from tests.local.llm_client import StandInClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="module")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stand-in that answers at once; its address for an OpenAI client."""
    server = LlmServer(tmp_path_factory.mktemp("llm") / "llm.log", StandInOptions(latency_median_ms=0))
    asyncio.run(server.start())
    yield server.base_url
    asyncio.run(server.process.stop())
    server.release_ports()


@pytest.fixture
async def llm(llm_server: str) -> AsyncIterator[StandInClient]:
    """The stand-in as new: no faults, no limits, no calls, no latency."""
    client = StandInClient(llm_server)
    await client.tell("reset")
    yield client
    await client.openai.close()
