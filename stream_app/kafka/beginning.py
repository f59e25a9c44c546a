"""Where a partition begins: at what its group has committed, or where the group was founded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from stream_app.kafka.founding import found
from stream_app.kafka.group_offsets import ASK_AGAIN_S, standing, stored_offsets
from stream_app.kafka.owned import Committed
from stream_app.kafka.transactions import TransactionalOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient

    from stream_app.kafka.connection import Connection
    from stream_app.kafka.owned import OwnedPartition

FOUND_WITHIN_S = 20.0
"""For the one transaction with which a group begins."""


class Beginnings:
    """Reads them for one membership, with its clients.

    `topics` are all that the group reads. It begins with all of them at once, so that nothing can be written to one
    of them by a worker that has begun with another one, and be skipped.
    """

    def __init__(
        self,
        connection: Connection,
        admin: AIOKafkaAdminClient,
        consumer: AIOKafkaConsumer,
        group: str,
        topics: Sequence[str],
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._consumer = consumer
        self._group = group
        self._topics = topics
        self._founding = asyncio.Lock()

    async def read(self, partition: OwnedPartition) -> Committed:
        """The committed offset with its metadata, or where `kafka.start` says a new group begins.

        Raises KafkaError, StartError (that offset is gone) or DeliveryRefused; the caller sets the deadline.
        """
        tp, consumer = partition.tp, self._consumer
        while True:
            known = {topic: consumer.partitions_for_topic(topic) or set[int]() for topic in self._topics}
            if not (all(known.values()) and tp.partition in known[tp.topic]):
                await asyncio.sleep(ASK_AGAIN_S)  # it is being refreshed: a group must not begin with half of it
                continue
            partitions = {TopicPartition(topic, number) for topic, numbers in known.items() for number in numbers}
            stored = await stored_offsets(self._admin, self._group, partitions)
            if (committed := await standing(consumer, self._group, tp, stored[tp])) is not None:
                return committed
            added = any(told.offset >= 0 for told in stored.values())
            if added:
                return Committed((await consumer.beginning_offsets([tp]))[tp], "")
            async with self._founding:
                name = f"{self._group}:{self._topics[0]}:start"
                output = TransactionalOutput(
                    lambda name=name: self._connection.transactional_producer(name), self._group, FOUND_WITHIN_S
                )
                await found(output, self._admin, consumer, self._group, partitions, self._connection.kafka.start)
