"""A hot path at work on topics of a test's own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from stream_app.classify.start import classify_lane
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import visible
from stream_app.settings import Kafka, Settings
from stream_app.telemetry import Metrics
from tests.conftest import run_apart
from tests.kafka.reading import committed_and_end


def pipeline(stack, make_topic, unique_name, *, partitions: int = 3, limits: dict | None = None, **more) -> Settings:
    """Settings for topics that exist now. `limits`: use -> max.message.bytes."""
    name = unique_name("reviews")
    names = Kafka(input_topic=name).names.model_dump()
    single = {"audit_results": names.pop("audit_results"), "control": names.pop("control")}
    for use, stem in names.items():
        largest = (limits or {}).get(use, 12_000_000 if use in {"input", "dlq"} else 1_048_588)
        make_topic(partitions=partitions, name=stem, max_message_bytes=largest)
    make_topic(name=single["audit_results"])
    make_topic(name=single["control"], cleanup_policy="compact")
    known = [*names.values(), *single.values()]
    run_apart(visible(Connection(Kafka(bootstrap_servers=stack.bootstrap_servers)), known))
    kafka = {
        "bootstrap_servers": stack.bootstrap_servers,
        "input_topic": name,
        "group": name,
        "session_timeout_ms": 6_000,
        **more.pop("kafka", {}),
    }
    tasks = more.pop("tasks", [{"name": "sentiment", "tiers": ["scripted"], "threshold": 0.9}])
    return Settings.model_validate({"kafka": kafka, "triton": {"url": stack.triton_grpc}, "tasks": tasks, **more})


@asynccontextmanager
async def classifying(settings: Settings, metrics: Metrics | None = None):
    """The lane's task; drained at the end of the block unless it has ended by itself."""
    stop = asyncio.Event()
    async with classify_lane(settings, metrics or Metrics()) as lane:
        task = asyncio.create_task(lane.run(stop))
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=40)
            assert task.done()


async def caught_up(settings: Settings, task: asyncio.Task, within_s: float = 40.0) -> None:
    """Returns when the lane's lag is exactly zero on every partition; raises what ended the lane."""
    async with asyncio.timeout(within_s):
        while True:
            if task.done():
                task.result()
            offsets = await asyncio.to_thread(
                committed_and_end,
                settings.kafka.bootstrap_servers,
                settings.kafka.input_topic,
                f"{settings.kafka.group}-classify",
            )
            if all(committed == end or (end == 0 and committed < 0) for committed, end in offsets.values()):
                return
            await asyncio.sleep(0.1)
