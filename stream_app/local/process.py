"""One server of the stack as a process: started under a guard, watched until ready, stopped or killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from stream_app.errors import StartError
from stream_app.local import guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

POLL_S = 0.03
# What a guard may take beyond its server's grace: to kill what is left, and to be scheduled on a busy machine.
GUARD_SLACK_S = 10.0
LOG_BYTES_MAX = 16 * 2**20  # a longer log is put aside when its server starts again; one such is kept


def last_line(text: str) -> str | None:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


@dataclass(slots=True)
class GuardedProcess:
    """A server that ends with the process that started it (see `stream_app.local.guard`).

    Bound to no event loop: it may be started in one and stopped in another.
    `reason` finds, in what this start wrote to the log, the line that says why the server ended.
    """

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    grace_s: float = 10.0
    scratch_glob: str = ""
    reason: Callable[[str], str | None] = last_line
    _guard: subprocess.Popen[bytes] | None = None
    _log_start: int = 0

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's own process id (not its guard's), or None when it does not run."""
        if self._guard is None or not self.running:
            return None
        children = psutil.Process(self._guard.pid).children()
        return children[0].pid if children else None

    def start(self) -> None:
        """Start the server; its output goes to the end of its log."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._guard = subprocess.Popen(  # noqa: S603 - our own command line
                [
                    sys.executable,
                    "-I",
                    "-S",
                    guard.__file__,
                    str(self.grace_s),
                    self.scratch_glob,
                    *self.argv,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(os.environ if self.env is None else self.env),
                start_new_session=True,  # a Ctrl-C in the terminal reaches us, and we stop servers in order
            )

    def log_since_start(self) -> str:
        """What the server has written since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    async def wait_ready(self, is_ready: Callable[[], Awaitable[bool]], *, deadline_s: float) -> None:
        """Return once `is_ready` says so. Raises `StartError` when the server ends first, or is too slow."""
        deadline = time.monotonic() + deadline_s
        while not await is_ready():
            if not self.running:
                why = self.reason(self.log_since_start()) or "it ended and wrote no reason"
                raise StartError(f"{self.name} did not start", advice=f"{why} (log: {self.log})")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self.name} was not ready within {deadline_s:.0f} s", advice=f"its log is {self.log}"
                )
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Ask the server to stop; it is killed after `grace_s`. Returns when nothing of it is left."""
        await self._end(b"")

    async def kill(self) -> None:
        """Kill the server and its children at once (SIGKILL). Returns when nothing of it is left."""
        await self._end(b"kill\n")

    async def _end(self, request: bytes) -> None:
        guard_process = self._guard
        if guard_process is None:
            return
        if guard_process.stdin is not None and not guard_process.stdin.closed:
            try:
                guard_process.stdin.write(request)
                guard_process.stdin.close()
            except BrokenPipeError:
                pass  # the server and its guard had ended before
        deadline = time.monotonic() + self.grace_s + GUARD_SLACK_S
        while guard_process.poll() is None:
            if time.monotonic() > deadline:
                guard_process.kill()
            await asyncio.sleep(POLL_S)
        self._guard = None
