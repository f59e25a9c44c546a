"""Which lanes a role runs, and how each is built from the settings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from stream_app.classify.start import classify_lane
from stream_app.escalate.start import escalate_lane
from stream_app.feeds import Feeds
from stream_app.kafka.connection import Connection
from stream_app.web.live import LiveView

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from stream_app.settings import Settings
    from stream_app.supervision import Work
    from stream_app.telemetry import Lane, Metrics


class Runs(Protocol):
    """A lane, connected and checked: `run` works until it is asked to stop, then drains."""

    async def run(self, stop: asyncio.Event) -> None:
        """Returns drained; raises what ends the worker."""
        ...


def live_view(settings: Settings) -> LiveView:
    """An empty live view of the pipeline. Of several endpoints it names the first one's model."""
    first, *others = settings.llm.endpoints
    model = f"{first.model} +{len(others)}" if others else first.model
    return LiveView(settings.kafka.input_topic, settings.llm.usd_per_hour, model)


def works_of(settings: Settings, role: str, metrics: Metrics, live: LiveView | None) -> dict[Lane, Work]:
    """The lanes of a role, by name: the one of that name, or both data paths where it is empty."""
    if live is not None:
        return {"feeds": Feeds(settings, Connection(settings.kafka), live, metrics).run}
    data_paths: dict[Lane, Work] = {
        "classify": opened_and_run(lambda: classify_lane(settings, metrics)),
        "escalate": opened_and_run(lambda: escalate_lane(settings, metrics)),
    }
    return {lane: work for lane, work in data_paths.items() if role in {"", lane}}


def opened_and_run(lane: Callable[[], AbstractAsyncContextManager[Runs]]) -> Work:
    """The work of a lane that must be opened first. Asked to stop while it still opens, it gives up at once."""

    async def work(stopping: asyncio.Event) -> None:
        opened = False

        async def whole() -> None:
            nonlocal opened
            async with lane() as ready:
                opened = True
                await ready.run(stopping)

        running = asyncio.create_task(whole())
        asked = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if opened or running.done():
                await running
        finally:
            asked.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})

    return work
