"""Ctrl-C and SIGTERM during the demo: the first ends it in order, the second at once."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - an end that was asked for, not an error
    """The end was asked for before there was anything to show."""


@contextmanager
def stop_signals() -> Generator[asyncio.Event]:
    """Inside, the first signal sets the event, and any further one cancels the task that entered."""
    loop = asyncio.get_running_loop()
    entered = asyncio.current_task()
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set() and entered is not None:
            entered.cancel()
        stopping.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stopping
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def unless(stopping: asyncio.Event, work: Coroutine[object, object, T]) -> T:
    """What `work` returns. Raises Interrupted, with `work` cancelled and gone, when `stopping` is set before."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        for pending in (task, stop):
            pending.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pending
    raise Interrupted
