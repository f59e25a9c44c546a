"""The demo's workers: processes started as a user starts them, one for each role."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import aiohttp

from stream_app.errors import StartError
from stream_app.local.demo.config import STAND_IN_KEY
from stream_app.local.ports import claim_port
from stream_app.local.process import GuardedProcess, last_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROLES = ("classify", "escalate", "feeds")
PAGE_ROLE = "feeds"
KEPT_VARIABLES = frozenset({"SHUNT_DEBUG", "SHUNT_LOG_LEVEL"})
GRACE_S = 15.0
READY_DEADLINE_S = 90.0


class Workers:
    """One worker a role, its log in `folder`. They end with this process, however it ends."""

    def __init__(self, config: Path, folder: Path, page_port: int) -> None:
        self._ports = {role: page_port if role == PAGE_ROLE else claim_port().number for role in ROLES}
        self._processes = {role: self._process(role, config, folder / f"{role}.log") for role in ROLES}
        self._being_killed: set[str] = set()

    def _process(self, role: str, config: Path, log: Path) -> GuardedProcess:
        return GuardedProcess(
            f"the {role} worker",
            [sys.executable, "-m", "stream_app.cli", "--config", str(config), "run", role],
            log,
            env=_environment(self._ports[role]),
            grace_s=GRACE_S,
            reason=last_words,
        )

    @property
    def processes(self) -> list[GuardedProcess]:
        """The workers' processes, in the order of `ROLES`."""
        return list(self._processes.values())

    async def start(self) -> None:
        """Start them all, and return when each says that it is ready. Raises StartError with the reason."""
        for process in self.processes:
            process.start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            await asyncio.gather(*(self._wait(role, session) for role in ROLES))

    async def _wait(self, role: str, session: aiohttp.ClientSession) -> None:
        async def is_ready() -> bool:
            try:
                async with session.get(f"http://127.0.0.1:{self._ports[role]}/ready") as response:
                    return response.status == HTTPStatus.OK
            except (aiohttp.ClientError, TimeoutError):
                return False

        await self._processes[role].wait_ready(is_ready, deadline_s=READY_DEADLINE_S)

    async def kill(self, roles: Iterable[str]) -> list[int]:
        """SIGKILL these roles' workers at once and start them anew; the process ids that died."""
        victims = [self._processes[role] for role in roles]
        pids = [pid for process in victims if (pid := process.pid) is not None]
        self._being_killed.update(roles)
        try:
            await asyncio.gather(*(process.kill() for process in victims))
            for process in victims:
                process.start()
        finally:
            self._being_killed.difference_update(roles)
        return pids

    def check(self) -> None:
        """Raise StartError with its last words when a worker has ended by itself."""
        for role, process in self._processes.items():
            if role not in self._being_killed and not process.running:
                why = process.reason(process.log_since_start()) or "it wrote no reason"
                raise StartError(f"{process.name} ended", advice=f"{why} (log: {process.log})")

    async def stop(self) -> None:
        """SIGTERM to all: they drain. Returns when nothing of them is left."""
        await asyncio.gather(*(process.stop() for process in self.processes))


def last_words(log: str) -> str | None:
    """The worst that a worker has logged (one JSON object a line), else its last line."""
    for line in reversed(log.splitlines()):
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(told, dict) and cast("dict[str, object]", told).get("level") == "critical":
            return str(cast("dict[str, object]", told).get("message"))
    return last_line(log)


def _environment(web_port: int) -> dict[str, str]:
    """Ours, but no setting from outside (a stray address would lead the demo to a real cluster)."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("SHUNT_") or name in KEPT_VARIABLES
    }
    kept[STAND_IN_KEY] = "stand-in"
    kept["SHUNT_WEB__PORT"] = str(web_port)
    return kept
