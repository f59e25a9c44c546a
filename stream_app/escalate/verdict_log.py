"""Reads the verdicts topic, without a group: for each parked partition of this worker the partition of its number."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from stream_app.codec import decode_verdict
from stream_app.errors import StartError, UnreadableRecord
from stream_app.kafka.leaving import leave

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import ConsumerRecord

    from stream_app.escalate.verdict_queue import VerdictQueue
    from stream_app.events import Verdict
    from stream_app.kafka.connection import Connection

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

POLL_MS = 500
AGAIN_S = 1.0


@dataclass(slots=True)
class _Followed:
    """A partition from the moment on that somebody follows it."""

    queue: VerdictQueue
    position: int | None = None


class VerdictLog:
    """One consumer for all that is followed. `topic` has `partitions`."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self._connection, self._topic, self._partitions = connection, topic, partitions
        self._followed: dict[int, _Followed] = {}
        self._changed = asyncio.Event()

    def follow(self, number: int, queue: VerdictQueue) -> None:
        """Fills the queue from the partition, all of it from its beginning. One that is not there is empty."""
        if number >= self._partitions:
            queue.begins(0)
            queue.arrived((), 0)
            return
        self._followed[number] = _Followed(queue)
        self._changed.set()

    def leave(self, number: int) -> None:
        """No more of it."""
        self._followed.pop(number, None)
        self._changed.set()

    async def run(self) -> None:
        """Reads for ever; begins anew where Kafka was away."""
        while True:
            try:
                await self._read()
            except (KafkaError, StartError) as error:
                log.warning("the verdicts cannot be read: %s; trying again", error)
            await asyncio.sleep(AGAIN_S)

    async def _read(self) -> None:
        consumer = self._connection.consumer(None, "shunt-verdicts")
        await self._connection.start(consumer)
        try:
            assigned: dict[int, _Followed] = {}
            while True:
                self._changed.clear()
                if self._followed != assigned or not assigned:
                    assigned = dict(self._followed)
                    await self._assign(consumer, assigned)
                if not assigned:
                    await self._changed.wait()
                    continue
                await self._poll(consumer, assigned)
        finally:
            await leave(consumer)

    async def _assign(self, consumer: AIOKafkaConsumer, followed: dict[int, _Followed]) -> None:
        places = [TopicPartition(self._topic, number) for number in followed]
        consumer.assign(places)
        first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            one = followed[place.partition]
            if one.position is None and not one.queue.begins(end[place]):
                log.warning("%s/%d was made anew: it is read from its beginning", self._topic, place.partition)
            consumer.seek(place, max(first[place], one.position or 0))

    async def _poll(self, consumer: AIOKafkaConsumer, assigned: dict[int, _Followed]) -> None:
        found = await consumer.getmany(timeout_ms=POLL_MS)
        for number, followed in assigned.items():
            place = TopicPartition(self._topic, number)
            position = await consumer.position(place)
            records = found.get(place, [])
            if self._followed.get(number) is followed and (records or position != followed.position):
                followed.position = position
                followed.queue.arrived(list(self._verdicts(records)), position)

    def _verdicts(self, records: Sequence[Record]) -> Iterator[tuple[int, Verdict]]:
        for record in records:
            try:
                yield record.offset, decode_verdict(record.value)
            except UnreadableRecord:  # such as the one with which `shunt feedback` begins
                log.debug("%s/%d/%d is no verdict", self._topic, record.partition, record.offset)
