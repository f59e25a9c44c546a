"""The policy that decides, as a batch is pinned to it, and how another one takes its place."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from stream_app.classify.deciding import Decider
    from stream_app.classify.outbox import Outbox


class Policing:
    """One policy at work: who decides by it, and who makes what leaves. `swap` is the swap that brought it.

    A batch is pinned to it before it is decided, and stays so to its end.
    """

    def __init__(self, decider: Decider, outbox: Outbox, policy: str | None, swap: str = "") -> None:
        self.decider = decider
        self.outbox = outbox
        self.policy = policy
        self.swap = swap
        self._batches = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def pinned(self) -> Generator[None]:
        """A batch is decided by it."""
        self._batches += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._batches -= 1
            if not self._batches:
                self._idle.set()

    async def unused(self) -> None:
        """Returns when no batch is pinned to it."""
        await self._idle.wait()
