"""The feeds reader on real Kafka: what it reads, from where, and what does not stop it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from stream_app.errors import StartError
from stream_app.feeds import Feeds, is_stand_in
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.settings import Kafka, Settings, Task
from stream_app.telemetry import Metrics
from stream_app.web.live import LiveView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiokafka import AIOKafkaConsumer

    from stream_app.local.stack import Stack

DECIDED = (
    b'{"id":"r-1","kind":"final","revision":0,"replaces":null,"pending":[],"decided_by":"small","policy":null,'
    b'"certified":false,"degraded":false,"degraded_reason":null,"answers":{},"enrichment":{},"usage":null,'
    b'"recommended_action":null,"source":{"topic":"t","partition":0,"offset":0,'
    b'"timestamp":"2026-11-20T09:30:00.120Z"},"decided_at":"2026-11-20T09:30:00.141Z","payload":{}}'
)


class AheadOfTheEnd(Feeds):
    """A reader whose first position no longer exists, as after a long sleep on a topic that expires quickly."""

    async def _seek_an_hour_back(self, consumer: AIOKafkaConsumer) -> None:
        for place in consumer.assignment():
            consumer.seek(place, 1_000_000)


def settings_for(stack: Stack, topic: str) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap_servers=stack.bootstrap_servers, group=topic, input_topic=topic),
        tasks=(Task(name="sentiment", labels=("negative", "positive"), tiers=("echo",), threshold=0.5),),
    )


@contextlib.asynccontextmanager
async def reading(settings: Settings, kind: type[Feeds] = Feeds) -> AsyncIterator[LiveView]:
    view = LiveView(settings.kafka.input_topic, 5.0, "gpt-4o-mini")
    feeds = kind(settings, Connection(settings.kafka), view, Metrics())
    stopping = asyncio.Event()
    running = asyncio.create_task(feeds.run(stopping))
    try:
        yield view
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.1)


async def publish(stack: Stack, topic: str, *values: bytes | None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value=value, key=b"k")
    await producer.stop()


async def test_what_was_decided_before_it_started_is_shown_too(
    stack: Stack, unique_name: Callable[[str], str]
) -> None:
    """A restart fills the page from the last hour; what is not a decision is passed over; a tombstone counts."""
    settings = settings_for(stack, unique_name("reviews"))
    await create(Connection(settings.kafka), plan(settings.kafka, None, partitions=2))
    decisions = settings.kafka.names.decisions
    await publish(stack, decisions, DECIDED, b"not a decision", None)
    async with reading(settings) as view:
        await until(lambda: view.snapshot(0)["totals"] == {"decisions": 1, "dead": 0, "tombstones": 1})
        await publish(stack, decisions, DECIDED)
        await until(lambda: view.snapshot(0)["totals"]["decisions"] == 2)
        await until(lambda: view.lag == {"classify": 0, "escalate": 0})


async def test_a_position_that_expired_does_not_end_the_page(stack: Stack, unique_name: Callable[[str], str]) -> None:
    """The page goes on with what is there, and counts nothing twice."""
    settings = settings_for(stack, unique_name("reviews"))
    await create(Connection(settings.kafka), plan(settings.kafka, None, partitions=1))
    await publish(stack, settings.kafka.names.decisions, DECIDED)
    async with reading(settings, AheadOfTheEnd) as view:
        await until(lambda: view.snapshot(0)["totals"]["decisions"] == 1)
        await publish(stack, settings.kafka.names.decisions, DECIDED)
        await until(lambda: view.snapshot(0)["totals"]["decisions"] == 2)


async def test_a_missing_topic_is_said_at_the_start(stack: Stack, unique_name: Callable[[str], str]) -> None:
    """A page of zeros would hide that the pipeline was never made."""
    settings = settings_for(stack, unique_name("reviews"))
    with pytest.raises(StartError, match="does not exist"):
        async with reading(settings):
            pass


@pytest.mark.parametrize(("owner", "stand_in"), [("shunt-stand-in", True), ("vllm", False)])
async def test_a_stand_in_is_known_by_its_own_word(owner: str, stand_in: bool) -> None:
    """A model served on this machine is not a stand-in unless it says so."""

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "owned_by": owner}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        assert await is_stand_in(f"http://127.0.0.1:{runner.addresses[0][1]}/v1") is stand_in
    finally:
        await runner.cleanup()


async def test_nobody_elses_endpoint_is_asked() -> None:
    """Only an address of this machine can be a stand-in's; an address that answers nobody is none either."""
    assert not await is_stand_in("https://api.example.com/v1")
    assert not await is_stand_in("http://127.0.0.1:9/v1")
