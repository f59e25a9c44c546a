"""How far each lane is: what its group has committed, against what its topic holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream_app.errors import StartError
from stream_app.kafka.finished import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata

    from stream_app.kafka.connection import Connection

COORDINATOR_TRIES = 20
COORDINATOR_RETRY_S = 0.5
"""The first question about any group makes a new cluster create its topic of offsets: some seconds."""


@dataclass(frozen=True, slots=True)
class LaneLag:
    """How far a lane's group is behind its topic.

    `records` are those that it has not committed, `finished_ahead` those among them that are finished all the
    same (the slow lane finishes in any order). `started` is False before the first commit. `notes` are the
    lane's own texts beside its committed offsets, one a partition.
    """

    lane: str
    group: str
    topic: str
    records: int
    started: bool
    finished_ahead: int
    notes: tuple[str, ...]


async def lane_lag(connection: Connection, lane: str, topic: str, partitions: int) -> LaneLag:
    """The lag of one lane on its topic. Raises StartError when Kafka cannot be reached."""
    group = f"{connection.kafka.group}-{lane}"
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    async with connection.admin() as admin:
        stored = await _stored(admin, group)
    committed = {tp: stored[tp].offset for tp in assigned if tp in stored and stored[tp].offset >= 0}
    consumer = connection.consumer(None, "shunt-status")
    await connection.start(consumer)
    try:
        consumer.assign(assigned)
        begin = await consumer.beginning_offsets(assigned)
        end = await consumer.end_offsets(assigned)
    finally:
        await consumer.stop()
    records = behind(begin, end, committed, from_earliest=connection.kafka.start == "earliest")
    told = [decode(stored[tp].metadata, offset) for tp, offset in committed.items()]
    return LaneLag(
        lane,
        group,
        topic,
        records,
        started=bool(committed),
        finished_ahead=sum(len(of_partition.finished) for of_partition in told),
        notes=tuple(of_partition.extra for of_partition in told),
    )


async def _stored(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's offsets. Raises StartError when Kafka cannot say, even after some tries."""
    for left in reversed(range(COORDINATOR_TRIES)):
        try:
            return await admin.list_consumer_group_offsets(group)
        except KafkaError as error:
            if not (error.retriable and left):
                raise StartError(f"Kafka does not tell the offsets of group {group}", advice=str(error)) from error
            await asyncio.sleep(COORDINATOR_RETRY_S)
    raise AssertionError("the last try returns or raises")


def behind(
    begin: Mapping[TopicPartition, int],
    end: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, int],
    *,
    from_earliest: bool,
) -> int:
    """Offsets between the committed ones and the end; without a commit, from where the lane would start."""
    first = begin if from_earliest else end
    return sum(max(0, end[tp] - max(committed.get(tp, first[tp]), begin[tp])) for tp in end)
