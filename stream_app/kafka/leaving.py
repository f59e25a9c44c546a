"""How a consumer leaves its group, or ends where it has none, whatever state aiokafka is in.

Its public `stop` is tried first. What that leaves behind has no public face: hence its private names here
(`noqa: SLF001`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

log = logging.getLogger(__name__)

LEAVE_TIMEOUT_S = 3.0
"""A broker answers in milliseconds. One that is away costs a request's 40 s, and the session ends by itself."""
CUT_OFF_S = 1.0
COORDINATOR_TASKS = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
"""Of a group's coordinator, and the last of the one without a group."""


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group and closes the connections; in `LEAVE_TIMEOUT_S`, or without the broker's word for it.

    In a task of its own: aiokafka awaits tasks that it has cancelled, and whoever waits for it is cancelled too (a
    fetch that failed and is about to be repeated).
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=LEAVE_TIMEOUT_S)
    if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
        return
    # aiokafka raises here again what its fetching died of, and leaves its tasks and connections behind.
    why = stopping.exception() if stopping.done() and not stopping.cancelled() else None
    if why is not None and not isinstance(why, KafkaError):
        raise why
    if cast("Any", consumer)._group_id is not None:  # noqa: SLF001
        log.warning("a consumer did not leave its group cleanly: %s", repr(why) if why else "cancelled or too slow")
        await _say_goodbye(consumer)
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=CUT_OFF_S)
    await _cut_off(consumer)


async def _say_goodbye(consumer: AIOKafkaConsumer) -> None:
    """Tells the group, past aiokafka's own connection to it: a join that waits there would hold this up as well.

    Unsaid, the others would wait for the rest of this worker's session before they get its partitions.
    """
    inner = cast("Any", consumer)
    coordinator = inner._coordinator  # noqa: SLF001
    if coordinator is None or coordinator.coordinator_id is None or not coordinator.member_id:
        return
    goodbye = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(CUT_OFF_S):
            await inner._client.send(coordinator.coordinator_id, goodbye)  # noqa: SLF001


async def _cut_off(consumer: AIOKafkaConsumer) -> None:
    inner = cast("Any", consumer)
    coordinator, fetcher = inner._coordinator, inner._fetcher  # noqa: SLF001
    tasks: set[asyncio.Task[Any] | None] = set()
    tasks |= {getattr(coordinator, name, None) for name in COORDINATOR_TASKS}
    if fetcher is not None:
        tasks |= {fetcher._fetch_task, *fetcher._pending_tasks}  # noqa: SLF001
    running = {task for task in tasks if task is not None and not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=CUT_OFF_S)
    await inner._client.close()  # noqa: SLF001
