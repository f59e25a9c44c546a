"""A consumer leaves in whatever state aiokafka is in, and whoever waits for it goes on."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from stream_app.kafka.connection import Connection
from stream_app.kafka.leaving import leave
from stream_app.settings import Kafka


@pytest.mark.parametrize("grouped", [True, False])
async def test_a_fetch_cancelled_within_aiokafka_does_not_cancel_who_waits(stack, topic, unique_name, grouped):
    """aiokafka awaits its own cancelled fetches when it stops; a worker died of that with status 1.

    And a command that only reads died of it with a traceback in place of what it had to say.
    """
    connection = Connection(Kafka(bootstrap_servers=stack.bootstrap_servers, input_topic=topic))
    consumer = connection.consumer(unique_name("group") if grouped else None, "leaves")
    if grouped:
        consumer.subscribe([topic])
    await connection.start(consumer)
    if not grouped:
        consumer.assign([TopicPartition(topic, 0)])
    fetch = asyncio.create_task(asyncio.sleep(3_600))
    consumer._fetcher._pending_tasks.add(fetch)
    await leave(consumer)
    assert fetch.cancelled()
    assert not any(connection.connected() for connection in consumer._client._conns.values())
