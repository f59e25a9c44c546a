"""Reading the dead-letter topic, and the receipts of what was sent back from it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.cli.dlq_selection import letter_of
from stream_app.cli.sent_once import OPENED
from stream_app.codec.replays import decode_receipt, decode_receipt_key
from stream_app.errors import ShuntError, UnreadableRecord
from stream_app.kafka.leaving import leave
from stream_app.kafka.reader import partitions_of, read_record, read_topic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiokafka.structs import ConsumerRecord

    from stream_app.cli.dlq_selection import Letter
    from stream_app.codec.replays import Receipt
    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

Receipts = dict[tuple[int, int], "Receipt"]
"""By the letter's partition and offset."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """First offset and end of each partition of a topic."""

    first: dict[int, int]
    end: dict[int, int]

    @property
    def offsets(self) -> int:
        """How many offsets lie between."""
        return sum(self.end.values()) - sum(self.first.values())


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters, in order within a partition. `foreign`: how many records beside them are no dead letters.

    `read` counts the offsets that are behind us, this page included.
    """

    letters: list[Letter]
    foreign: int
    read: int


def replays_topic(dlq: str) -> str:
    """The topic that holds the receipts of a dead-letter topic."""
    return f"{dlq}-replays"


async def bounds(connection: Connection, topic: str) -> Bounds:
    """Where the topic's partitions begin and end. Raises StartError for a topic that does not exist."""
    assigned = await partitions_of(connection, topic)
    consumer = connection.consumer(None, "shunt-dlq")
    await connection.start(consumer)
    try:
        consumer.assign(assigned)
        first, end = await consumer.beginning_offsets(assigned), await consumer.end_offsets(assigned)
    finally:
        await leave(consumer)
    return Bounds({tp.partition: at for tp, at in first.items()}, {tp.partition: at for tp, at in end.items()})


async def read_letters(connection: Connection, topic: str, begin: Bounds) -> AsyncGenerator[Page]:
    """The letters from the beginning of the topic to the end that it has now."""
    reached = dict(begin.first)
    async with aclosing(read_topic(connection, topic, to_end=True)) as batches:
        async for batch in batches:
            letters, foreign = [], 0
            for record in batch:
                reached[record.partition] = record.offset + 1
                try:
                    letters.append(letter_of(record))
                except UnreadableRecord:
                    foreign += 1
            if batch:
                yield Page(letters, foreign, sum(reached.values()) - sum(begin.first.values()))


async def read_letter(connection: Connection, topic: str, partition: int, offset: int) -> Letter:
    """The letter at that place. Raises ShuntError where there is none."""
    record = await read_record(connection, topic, partition, offset)
    if record is None:
        raise ShuntError(f"there is no record {partition}/{offset} in {topic}", advice="see `shunt dlq list`")
    try:
        return letter_of(record)
    except UnreadableRecord as error:
        raise ShuntError(f"{topic}/{partition}/{offset} is no dead letter: {error.message}") from error


async def read_receipts(connection: Connection, topic: str, opened: bytes | None = None) -> Receipts:
    """The receipts on `topic` to the end that it has now; none where it does not exist.

    With `opened`, until the opening record of that value has come: then nothing that was committed before it is
    missing, whatever end a new leader tells; raises StartError where the topic is not found. The caller sets the
    deadline.
    """
    if opened is None and topic not in await connection.topics([topic]):
        return {}
    found: Receipts = {}
    async with aclosing(read_topic(connection, topic, to_end=opened is None)) as batches:
        async for batch in batches:
            for record in batch:
                if record.key != OPENED:
                    _take(found, record)
                elif record.value == opened:
                    return found
    return found


def _take(found: Receipts, record: Record) -> None:
    try:
        if record.value is None:
            found.pop(decode_receipt_key(record.key), None)
        else:
            place, receipt = decode_receipt(record.key, record.value)
            found[place] = receipt
    except UnreadableRecord as error:
        raise ShuntError(
            f"{record.topic}/{record.partition}/{record.offset} is no receipt of a replay: {error.message}",
            advice="something else writes to this topic: take its right to, and delete what it wrote",
        ) from error
