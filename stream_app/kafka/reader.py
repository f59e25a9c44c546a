"""Reading a topic without a group: committed records only, nothing is committed, nobody is disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from aiokafka import TopicPartition

from stream_app.errors import StartError
from stream_app.kafka.leaving import leave

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

POLL_MS = 500
BATCH_RECORDS_MAX = 2_000


async def partitions_of(connection: Connection, topic: str) -> list[TopicPartition]:
    """The topic's partitions. Raises StartError for a topic that does not exist."""
    facts = (await connection.topics([topic])).get(topic)
    if facts is None:
        raise StartError(f"there is no topic {topic!r}", advice="make the topics with `shunt topics create`")
    return [TopicPartition(topic, number) for number in range(facts.partitions)]


async def read_topic(
    connection: Connection,
    topic: str,
    *,
    begin: Literal["earliest", "latest"] | int = "earliest",
    since_ms: int | None = None,
    to_end: bool = False,
) -> AsyncGenerator[list[Record]]:
    """The topic's committed records as they come, in batches; an empty batch where none came for a while.

    `begin` is a place, or how many of the newest offsets of each partition to read; with `since_ms` it is not before
    the first record of that time (the record's own timestamp). With `to_end` it ends at the end that the topic has
    now, else never. Raises StartError for a topic that does not exist.
    """
    assigned = await partitions_of(connection, topic)
    consumer = connection.consumer(None, "shunt-reader")
    await connection.start(consumer)
    try:
        consumer.assign(assigned)
        end = await consumer.end_offsets(assigned)
        await _seek(consumer, assigned, begin, end)
        if since_ms is not None:
            await _seek_time(consumer, assigned, since_ms, end)
        while not (to_end and await _is_past(consumer, end)):
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS_MAX)
            batch = [record for records in found.values() for record in records]
            yield [record for record in batch if not to_end or record.offset < end[_place(record)]]
    finally:
        await leave(consumer)


async def true_ends(connection: Connection, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Where the partitions end now, what open transactions have written included.

    Read to there, committed records only, nothing is missed whose commit had been acknowledged before: the end that a
    committed reader is told may lie before it, at whatever older transaction is still open.
    """
    consumer = connection.consumer(None, "shunt-reader", committed=False)
    await connection.start(consumer)
    try:
        consumer.assign(list(places))
        return await consumer.end_offsets(list(places))
    finally:
        await leave(consumer)


async def read_span(
    connection: Connection, place: TopicPartition, begin: int, end: int
) -> AsyncGenerator[list[Record]]:
    """The committed records of a partition between two offsets, in batches; waits for transactions open there.

    Raises SpanExpired where the partition begins behind `begin` by now.
    """
    if begin >= end:
        return
    consumer = connection.consumer(None, "shunt-reader")
    await connection.start(consumer)
    try:
        consumer.assign([place])
        first = (await consumer.beginning_offsets([place]))[place]
        if first > begin:
            raise SpanExpired(place, first)
        consumer.seek(place, begin)
        while await consumer.position(place) < end:
            found = await consumer.getmany(place, timeout_ms=POLL_MS, max_records=BATCH_RECORDS_MAX)
            yield [record for record in found.get(place, []) if record.offset < end]
    finally:
        await leave(consumer)


class SpanExpired(Exception):  # noqa: N818 - named for what happened
    """Records that were to be read are gone: the partition begins at `first` now."""

    def __init__(self, place: TopicPartition, first: int) -> None:
        super().__init__(f"{place.topic}/{place.partition} begins at {first} by now")
        self.place, self.first = place, first


async def read_record(connection: Connection, topic: str, partition: int, offset: int) -> Record | None:
    """The record at that place; None where there is none (expired, a transaction marker, not yet written)."""
    return (await read_records(connection, topic, [(partition, offset)])).get((partition, offset))


async def read_records(
    connection: Connection, topic: str, places: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Record]:
    """The committed records at those places (partition, offset); those that are not there are left out."""
    facts = (await connection.topics([topic])).get(topic)
    wanted = sorted((number, offset) for number, offset in places if facts is not None and number < facts.partitions)
    if not wanted:
        return {}
    found: dict[tuple[int, int], Record] = {}
    assigned = [TopicPartition(topic, number) for number in {number for number, _ in wanted}]
    consumer = connection.consumer(None, "shunt-reader")
    await connection.start(consumer)
    try:
        consumer.assign(assigned)
        begin, end = await consumer.beginning_offsets(assigned), await consumer.end_offsets(assigned)
        for number, offset in wanted:
            place = TopicPartition(topic, number)
            if begin[place] <= offset < end[place]:
                record = await _record_at(consumer, place, offset)
                if record is not None:
                    found[number, offset] = record
    finally:
        await leave(consumer)
    return found


async def _record_at(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> Record | None:
    consumer.seek(place, offset)
    while await consumer.position(place) <= offset:
        fetched = await consumer.getmany(place, timeout_ms=POLL_MS, max_records=1)
        for record in fetched.get(place, []):
            return record if record.offset == offset else None
    return None


async def _seek(
    consumer: AIOKafkaConsumer,
    assigned: list[TopicPartition],
    begin: Literal["earliest", "latest"] | int,
    end: dict[TopicPartition, int],
) -> None:
    first = await consumer.beginning_offsets(assigned)
    for place in assigned:
        if begin == "earliest":
            consumer.seek(place, first[place])
        else:
            back = 0 if begin == "latest" else begin
            consumer.seek(place, max(first[place], end[place] - back))


async def _seek_time(
    consumer: AIOKafkaConsumer, assigned: list[TopicPartition], since_ms: int, end: dict[TopicPartition, int]
) -> None:
    """Forwards only: a partition without a record of that time or later is read from its end."""
    found = await consumer.offsets_for_times(dict.fromkeys(assigned, since_ms))
    for place in assigned:
        at = found.get(place)
        consumer.seek(place, max(await consumer.position(place), end[place] if at is None else at.offset))


async def _is_past(consumer: AIOKafkaConsumer, end: dict[TopicPartition, int]) -> bool:
    for place, offset in end.items():
        if await consumer.position(place) < offset:
            return False
    return True


def _place(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
