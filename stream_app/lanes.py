"""Which lanes a role runs, and how each is built from the settings.

A lane is imported when it is to run: the LLM's client alone takes as long to import as all that a classify worker
needs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

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
        from stream_app.feeds import Feeds  # noqa: PLC0415 - see above

        return {"feeds": Feeds(settings, Connection(settings.kafka), live, metrics).run}
    works: dict[Lane, Work] = {}
    if role in {"", "classify"}:
        from stream_app.classify.start import classify_lane  # noqa: PLC0415 - see above

        works["classify"] = opened_and_run(lambda: classify_lane(settings, metrics))
    if role in {"", "escalate"}:
        from stream_app.escalate.start import escalate_lane  # noqa: PLC0415 - see above

        works["escalate"] = opened_and_run(lambda: escalate_lane(settings, metrics))
    return works


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
