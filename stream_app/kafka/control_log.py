"""The control topic, read whole by every worker, and written to by workers and by who swaps a policy."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_app.errors import MembershipInterrupted, ShuntError, StartError, UnreadableRecord
from stream_app.events import Outgoing
from stream_app.kafka.leaving import leave
from stream_app.kafka.transactions import TransactionalOutput
from stream_app.routing.control import Control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import AIOKafkaConsumer

    from stream_app.kafka.connection import Connection

log = logging.getLogger(__name__)

POLL_MS = 500
AGAIN_S = 1.0
OPEN_WITHIN_S = 60.0
SAY_WITHIN_S = 20.0
DESCRIBE_WITHIN_S = 20.0


class ControlLog:
    """Follows the topic with a consumer of no group. `state` is what it says, once `caught_up` is set.

    `changed` is set with every batch of records: who waits for it clears it.
    """

    def __init__(self, connection: Connection) -> None:
        self.state = Control()
        self.caught_up = asyncio.Event()
        self.changed = asyncio.Event()
        self._connection = connection
        self._place = TopicPartition(connection.kafka.names.control, 0)

    async def follow(self) -> None:
        """Reads for ever; begins anew where Kafka was away. `state` changes only once its end was reached."""
        while True:
            try:
                await self._follow()
            except (KafkaError, StartError) as error:
                log.warning("the control topic cannot be read: %s; trying again", error)
            await asyncio.sleep(AGAIN_S)

    async def _follow(self) -> None:
        consumer = self._connection.consumer(None, "shunt-control")
        await self._connection.start(consumer)
        try:
            consumer.assign([self._place])
            state, begin, end = Control(), await self._bound(consumer, 0), await self._bound(consumer, 1)
            consumer.seek(self._place, begin)
            while True:
                found = await consumer.getmany(timeout_ms=POLL_MS)
                for record in found.get(self._place, []):
                    _fold(state, record)
                if self.state is not state and await consumer.position(self._place) >= end:
                    self.state = state
                    found = {self._place: []}
                if self.state is state and found:
                    self.caught_up.set()
                    self.changed.set()
        finally:
            await leave(consumer)

    async def _bound(self, consumer: AIOKafkaConsumer, which: int) -> int:
        ask = (consumer.beginning_offsets, consumer.end_offsets)[which]
        return (await ask([self._place]))[self._place]


def _fold(state: Control, record: Any) -> None:
    try:
        state.fold(record.key, record.value)
    except (UnreadableRecord, ShuntError) as error:
        log.warning("offset %d of the control topic is passed over: %s", record.offset, error.one_line())


class ControlVoice:
    """A worker's word on the control topic: one record at a time, tried again for as long as Kafka is away."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._topic = connection.kafka.names.control

    async def say(self, key: bytes, value: bytes | None) -> None:
        """Writes one record. A worker has something to say a few times in its life: no producer is kept for it."""
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._connection.kafka.bootstrap_servers,
                client_id="shunt-control",
                acks="all",
                enable_idempotence=True,
            )
            try:
                async with asyncio.timeout(SAY_WITHIN_S):
                    await producer.start()
                    await producer.send_and_wait(self._topic, key=key, value=value, partition=0)
            except (KafkaError, TimeoutError) as error:
                log.warning("the control topic cannot be written: %s; trying again", error)
            else:
                return
            finally:
                await producer.stop()
            await asyncio.sleep(AGAIN_S)


class ControlOutput(TransactionalOutput):
    """The one who may swap: whoever opens it next fences this one, so that two swaps never mix."""

    def __init__(self, connection: Connection) -> None:
        topic = connection.kafka.names.control
        self._topic = topic
        super().__init__(
            lambda: connection.transactional_producer(f"{connection.kafka.group}-swap:{topic}"),
            "",
            connection.kafka.transaction_timeout_ms / 1000 * 2,
            [TopicPartition(topic, 0)],
        )

    async def begin(self) -> None:
        """Fences any other; MembershipInterrupted where Kafka does not let it in time."""
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self.open()
        except TimeoutError as error:
            raise MembershipInterrupted(f"opening the producer took longer than {OPEN_WITHIN_S:.0f} s") from error

    async def write(self, records: Mapping[bytes, bytes | None]) -> None:
        """All of the records or none. Raises as `publish` does."""
        outgoing = [Outgoing(self._topic, 0, key, value, ()) for key, value in records.items()]
        await self.publish(outgoing, f"writing to {self._topic}")


async def live_clients(connection: Connection, group: str) -> set[str]:
    """The client ids of the group's members now. Asked again while its coordinator is not there."""

    async def ask() -> set[str] | None:
        async with connection.admin() as admin:
            for response in cast("list[Any]", await admin.describe_consumer_groups([group])):
                for code, name, _state, _type, _protocol, members, *_rest in response.groups:
                    if name == group and code == 0:
                        return {member[1] for member in members}
        return None

    try:
        async with asyncio.timeout(DESCRIBE_WITHIN_S):
            while True:
                try:
                    if (found := await ask()) is not None:
                        return found
                except KafkaError as error:
                    log.warning("group %s: %s; asking again", group, error)
                await asyncio.sleep(AGAIN_S)
    except TimeoutError as error:
        raise StartError(
            f"Kafka does not tell who is in group {group}", advice="look at the brokers' logs"
        ) from error
