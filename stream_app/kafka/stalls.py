"""After the event loop stood still: whether the group still counts this worker in.

A worker that was stopped, swapped out or blocked may have been expelled meanwhile without knowing. Exactness does
not rest on this (whoever opens a partition later fences it), but what it starts in that state is paid in vain, and
a producer it opens would fence the healthy owner.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaConsumer

TICKS_PER_GAP = 5


class StallWatch:
    """In doubt after a gap of more than `gap_max_s` between two looks, until a later heartbeat is answered well."""

    def __init__(self, gap_max_s: float, now_s: Callable[[], float]) -> None:
        self._gap_max_s = gap_max_s
        self._now_s = now_s
        self._looked_s = now_s()
        self._doubted_s = 0.0
        self._trusted = asyncio.Event()
        self._trusted.set()

    @property
    def in_doubt(self) -> bool:
        """Whether nothing new may be started. Asking counts as a look."""
        self._look()
        return not self._trusted.is_set()

    def _look(self) -> float:
        now_s = self._now_s()
        if now_s - self._looked_s > self._gap_max_s:
            self._doubted_s = now_s
            self._trusted.clear()
        self._looked_s = now_s
        return now_s

    async def tick(self) -> None:
        """Looks often enough that only a gap of the event loop is one; runs until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(self._gap_max_s / TICKS_PER_GAP)

    async def trusted(self, within_s: float) -> None:
        """Returns once the group is known to count this worker in, or after `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self._trusted.wait()
        except TimeoutError:
            return

    def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Hears of the heartbeats of a started consumer. aiokafka tells nobody, so listen where it sends them."""
        coordinator = cast("Any", consumer)._coordinator  # noqa: SLF001 - no public way leads to it
        beat = coordinator._do_heartbeat  # noqa: SLF001 - the one that tells the answer

        async def heard_beat() -> bool:
            sent_s = self._look()
            answered_well = await beat()
            self._look()
            if answered_well and sent_s >= self._doubted_s:
                self._trusted.set()
            return answered_well

        coordinator._do_heartbeat = heard_beat  # noqa: SLF001 - its heartbeat task calls it by this name
