"""A worker with one small lane, each of which ends in its own way: run as a process by `test_supervision`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from stream_app.app import ShuntApp, run_worker
from stream_app.errors import MembershipLostTooOften, StartError
from stream_app.settings import Kafka, Settings, Task, Web
from stream_app.telemetry import Metrics

NOTES = Path(sys.argv[2])


def note(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(text + "\n")


async def drains(stopping: asyncio.Event) -> None:
    note("running")
    await stopping.wait()
    await asyncio.sleep(0.2)
    note("drained")


async def raises(stopping: asyncio.Event) -> None:
    await asyncio.sleep(0.1)
    raise ValueError("a bug")


async def raises_at_once(stopping: asyncio.Event) -> None:
    raise StartError("topic reviews does not exist", advice="make it with `shunt topics create`")


async def returns(stopping: asyncio.Event) -> None:
    await asyncio.sleep(0.1)


async def background_dies(stopping: asyncio.Event) -> None:
    async def background() -> None:
        await asyncio.sleep(0.1)
        raise KeyError("in the background")

    async with asyncio.TaskGroup() as group:
        group.create_task(background())
        group.create_task(stopping.wait())


async def system_exit(stopping: asyncio.Event) -> None:
    await asyncio.sleep(0.1)
    raise SystemExit(7)


async def system_exit_in_the_background(stopping: asyncio.Event) -> None:
    async def background() -> None:
        await asyncio.sleep(0.1)
        raise SystemExit(7)

    async with asyncio.TaskGroup() as group:
        group.create_task(background())
        group.create_task(stopping.wait())


async def membership(stopping: asyncio.Event) -> None:
    await asyncio.sleep(0.1)
    raise MembershipLostTooOften("fenced 5 times in 10 minutes", advice="look for overloaded workers")


async def slow_stop(stopping: asyncio.Event) -> None:
    note("running")
    await stopping.wait()
    await asyncio.sleep(600)


async def deaf(stopping: asyncio.Event) -> None:
    note("running")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            note("ignored a cancellation")


async def blocks(stopping: asyncio.Event) -> None:
    note("running")
    await stopping.wait()
    time.sleep(600)


async def fails_in_the_drain(stopping: asyncio.Event) -> None:
    note("running")
    await stopping.wait()
    raise ValueError("while draining")


async def cancelled(stopping: asyncio.Event) -> None:
    note("running")
    raise asyncio.CancelledError


async def limited(stopping: asyncio.Event) -> None:
    note("limit reached")


def main() -> None:
    work = globals()[sys.argv[1]]
    settings = Settings(
        tasks=(Task(name="sentiment", labels=("negative", "positive"), tiers=("echo",), threshold=0.5),),
        kafka=Kafka(drain_timeout_s=float(os.environ.get("DRAIN_S", "5"))),
        web=Web(port=int(os.environ.get("PORT", "0"))),
    )
    lanes = {"classify": work, "escalate": drains} if os.environ.get("BOTH") else {"classify": work}
    run_worker(ShuntApp(settings, lanes, Metrics(), may_end=work is limited))


if __name__ == "__main__":
    main()
