"""The policy that decides, as a batch is pinned to it, and how another one takes its place."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from stream_app.classify.deciding import Decider
    from stream_app.classify.drifting import Drifting
    from stream_app.classify.outbox import Outbox
    from stream_app.routing.policy import Policy

    Alarmed = frozenset[tuple[str, str]]


class Policing:
    """One policy at work: who decides by it, and who makes what leaves. `swap` is the swap that brought it.

    A batch is pinned to it before it is decided, and stays so to its end. `made` is the policy itself, and `drift`
    watches what is decided by it. `alarmed` are the standing alarms, a task and what of it each; `again` gives one
    for the same policy and other alarms.
    """

    def __init__(
        self,
        decider: Decider,
        outbox: Outbox,
        policy: str | None,
        swap: str = "",
        made: Policy | None = None,
        drift: Drifting | None = None,
        alarmed: Alarmed = frozenset(),
        again: Callable[[Alarmed], Policing] | None = None,
    ) -> None:
        self.decider = decider
        self.outbox = outbox
        self.policy = policy
        self.swap = swap
        self.made = made
        self.drift = drift
        self.alarmed = alarmed
        self._again = again
        self._batches = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """True while a batch is pinned to it."""
        return not self._idle.is_set()

    def under(self, alarmed: Alarmed) -> Policing | None:
        """The same policy while these alarms stand; None where nothing changes."""
        return None if alarmed == self.alarmed or self._again is None else self._again(alarmed)

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
