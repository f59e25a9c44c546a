"""A worker of the slow lane in a process of its own, to be killed: `python worker.py SETTINGS_JSON`."""

from __future__ import annotations

import asyncio
import signal
import sys

from stream_app.escalate.start import escalate_lane
from stream_app.settings import Settings
from stream_app.telemetry import Metrics


async def main() -> None:
    settings = Settings.model_validate_json(sys.argv[1])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with escalate_lane(settings, Metrics()) as lane:
        await lane.run(stop)


if __name__ == "__main__":
    asyncio.run(main())
