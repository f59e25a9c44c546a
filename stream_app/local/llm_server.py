"""The stand-in LLM as a server of the stack."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from stream_app.errors import StartError
from stream_app.local.ports import ClaimedPort, claim_port
from stream_app.local.process import GuardedProcess

if TYPE_CHECKING:
    from pathlib import Path

    from stream_app.local.llm.options import StandInOptions

LLM_PORT = 9000
READY_DEADLINE_S = 30.0


class LlmServer:
    """The stand-in LLM (`python -m stream_app.local.llm`); its log goes to `log`."""

    def __init__(self, log: Path, options: StandInOptions) -> None:
        self._log = log
        self._options = options
        self._claim: ClaimedPort | None = None
        self._process: GuardedProcess | None = None

    @property
    def base_url(self) -> str:
        """The address for an OpenAI client, once started."""
        if self._claim is None:
            raise StartError("the stand-in LLM was not started")
        return f"http://127.0.0.1:{self._claim.number}/v1"

    @property
    def process(self) -> GuardedProcess:
        """The server's process, once started."""
        if self._process is None:
            raise StartError("the stand-in LLM was not started")
        return self._process

    async def start(self) -> None:
        """Start the server and wait until it listens. Raises `StartError` with the reason and the log."""
        if self._claim is None:
            self._claim = claim_port(LLM_PORT)
        self._process = GuardedProcess(
            "the stand-in LLM",
            [
                sys.executable,
                "-m",
                "stream_app.local.llm",
                f"--port={self._claim.number}",
                *self._options.to_argv(),
            ],
            self._log,
            grace_s=2.0,
        )
        self._process.start()
        await self._process.wait_ready(self._listens, deadline_s=READY_DEADLINE_S)

    def release_ports(self) -> None:
        """Let others have the port; for a server that is not started again."""
        if self._claim is not None:
            self._claim.release()
        self._claim = None

    async def _listens(self) -> bool:
        if self._claim is None:
            return False
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._claim.number)
        except OSError:
            return False
        writer.close()
        return True
