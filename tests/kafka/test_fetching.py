"""The loop between the consumer and the lane, on a real consumer."""

from __future__ import annotations

import asyncio
import time

from aiokafka import TopicPartition

from stream_app.kafka.connection import Connection
from stream_app.kafka.fetching import Fetching
from stream_app.kafka.owned import OwnedPartition
from stream_app.kafka.stalls import StallWatch
from stream_app.settings import Kafka
from tests.kafka.reading import produce


class Collects:
    """A lane's side of the loop: keeps what arrives."""

    def __init__(self) -> None:
        self.records = []
        self.some = asyncio.Event()

    def arrived(self, partition, records) -> None:
        self.records += records
        self.some.set()


async def test_a_partition_that_opens_while_the_loop_waits_is_read(stack, make_topic):
    """It was paused when it was assigned, and is ready before the loop has looked at it once: it must be resumed."""
    topic = make_topic()
    produce(stack.bootstrap_servers, topic, [b"1", b"2"])
    tp, work = TopicPartition(topic, 0), Collects()
    consumer = Connection(Kafka(bootstrap_servers=stack.bootstrap_servers)).consumer(None, "fetching")
    await consumer.start()
    partition = OwnedPartition(tp, object, None)
    loop = Fetching(
        consumer, "group", {tp: partition}, work, asyncio.Event(), StallWatch(60.0, time.monotonic), 100, 150.0
    )
    consumer.assign([tp])
    consumer.seek(tp, 0)
    consumer.pause(tp)
    partition.life.ready(0)
    fetching = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(10):
            await work.some.wait()
    finally:
        fetching.cancel()
        await asyncio.wait({fetching})
        await consumer.stop()
    assert [record.value for record in work.records] == [b"1", b"2"]
