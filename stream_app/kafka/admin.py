"""How far each lane is: what its group has committed, against what its topic holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from stream_app.errors import StartError
from stream_app.kafka.finished import decode
from stream_app.kafka.group_offsets import stored_offsets
from stream_app.kafka.leaving import leave

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata

    from stream_app.kafka.connection import Connection

COORDINATOR_WITHIN_S = 15.0
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


async def lane_lag(
    connection: Connection, lane: str, topic: str, partitions: int, *, of_group: str | None = None
) -> LaneLag:
    """The lag of one lane on its topic. Raises StartError when Kafka cannot be reached.

    `of_group` is the lane whose group reads the topic, where that is another one.
    """
    group = f"{connection.kafka.group}-{of_group or lane}"
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    async with connection.admin() as admin:
        stored = await _stored(admin, group, assigned)
    committed = {tp: told.offset for tp, told in stored.items() if told.offset >= 0}
    consumer = connection.consumer(None, "shunt-status")
    await connection.start(consumer)
    try:
        consumer.assign(assigned)
        begin = await consumer.beginning_offsets(assigned)
        end = await consumer.end_offsets(assigned)
    finally:
        await leave(consumer)
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


async def _stored(
    admin: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's offsets. Raises StartError when Kafka cannot say, or not in time."""
    try:
        async with asyncio.timeout(COORDINATOR_WITHIN_S):
            return await stored_offsets(admin, group, partitions)
    except GroupAuthorizationFailedError as error:
        grant = f"grant this user DESCRIBE on group {group!r}"
        raise StartError(f"Kafka does not tell the offsets of group {group}", advice=grant) from error
    except (KafkaError, TimeoutError) as error:
        why = str(error) or f"its coordinator did not tell within {COORDINATOR_WITHIN_S:.0f} s"
        raise StartError(f"Kafka does not tell the offsets of group {group}", advice=why) from error


def behind(
    begin: Mapping[TopicPartition, int],
    end: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, int],
    *,
    from_earliest: bool,
) -> int:
    """Offsets between the committed ones and the end; without a commit, from where the lane would start.

    A partition without one, of a group that has some, is new: it is read from its beginning.
    """
    first = begin if from_earliest or committed else end
    return sum(max(0, end[tp] - max(committed.get(tp, first[tp]), begin[tp])) for tp in end)
