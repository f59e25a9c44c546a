"""A copy lane at work, and conditions to wait for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stream_app.kafka.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kafka.copy_lane import CopyLane


@asynccontextmanager
async def running(lane: CopyLane):
    """The lane at work; drained at the end of the block."""
    stop = asyncio.Event()
    task = asyncio.create_task(lane.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=40)
        assert task.done()


async def until(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    """Returns once `condition` holds; TimeoutError after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)


def owns(lane: CopyLane) -> bool:
    """Whether a partition is open in this lane."""
    return any(partition.committed >= 0 for partition in lane.membership.owned)


class LoadingCoordinator(Connection):
    """Its group coordinator is loading for the first two questions, as after a broker's restart."""

    silent = 2

    @asynccontextmanager
    async def admin(self):
        async with super().admin() as admin:
            ask = admin.list_consumer_group_offsets

            async def answer(*args, **kwargs):
                if self.silent:
                    self.silent -= 1
                    return {}  # what aiokafka makes of an error about the whole group
                return await ask(*args, **kwargs)

            admin.list_consumer_group_offsets = answer
            yield admin


def let_joins_hang(lane: CopyLane) -> None:
    """From now on the lane's joins never end; one is asked for at once."""
    coordinator = lane.membership._consumer._coordinator

    async def hangs(subscription) -> bool:
        await asyncio.Event().wait()
        return False

    coordinator._do_rejoin_group = hangs
    coordinator.request_rejoin()
