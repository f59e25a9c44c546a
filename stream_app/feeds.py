"""The feeds worker: reads what the lanes publish, as a consumer of the user's would, for the live page.

A group-less, read-committed reader and not a Faust table: the page needs figures over sliding windows by the
time of the decision, nothing of it must survive a restart, and a consumer without a group has nobody it could
hold up. After a restart the page is filled from the last hour of the topics.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from stream_app.codec.dead_letters import decode_dead_letter
from stream_app.codec.decisions import decode_decision
from stream_app.errors import ShuntError, StartError, UnreadableRecord
from stream_app.kafka.admin import behind
from stream_app.kafka.group_offsets import stored_offsets
from stream_app.kafka.leaving import leave
from stream_app.web.seconds import HOUR_S

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.connection import Connection
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics
    from stream_app.web.live import LiveView

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

POLL_MS = 250
LAG_EVERY_S = 1.0
LAG_WITHIN_S = 10.0
"""How long the group's coordinator may be away before the page says that the lag is not known."""
STAND_IN = "shunt-stand-in"
"""Who owns the models of the stand-in LLM, by its own word."""


class Feeds:
    """Reads decisions, escalations and dead letters into a `LiveView`, and the lanes' lags beside them."""

    def __init__(self, settings: Settings, connection: Connection, view: LiveView, metrics: Metrics) -> None:
        self._settings = settings
        self._names = settings.kafka.names
        self._connection = connection
        self._view = view
        self._metrics = metrics

    async def run(self, stopping: asyncio.Event) -> None:
        """Read until `stopping`. Raises StartError where Kafka or a topic is missing."""
        partitions = await self._partitions()
        addresses = [endpoint.base_url for endpoint in self._settings.llm.endpoints]
        self._view.stand_in = any(await asyncio.gather(*map(is_stand_in, addresses)))
        consumer = self._connection.consumer(None, "shunt-feeds")
        await self._connection.start(consumer)
        try:
            consumer.assign([place for topic in self._read_topics for place in partitions[topic]])
            await self._seek_an_hour_back(consumer)
            self._metrics.partitions_owned("feeds", len(consumer.assignment()))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._read(consumer)),
                    group.create_task(self._watch_lag(consumer, partitions)),
                ]
                await stopping.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await leave(consumer)

    @property
    def _read_topics(self) -> tuple[str, ...]:
        return (self._names.decisions, self._names.escalations, self._names.dlq)

    async def _partitions(self) -> dict[str, list[TopicPartition]]:
        """The partitions of every topic the page speaks of."""
        wanted = (self._names.input, *self._read_topics)
        facts = await self._connection.topics(wanted)
        missing = [name for name in wanted if name not in facts]
        if missing:
            raise StartError(
                f"topic {missing[0]!r} does not exist", advice="make the topics with `shunt topics create`"
            )
        return {name: [TopicPartition(name, n) for n in range(facts[name].partitions)] for name in wanted}

    async def _seek_an_hour_back(self, consumer: AIOKafkaConsumer) -> None:
        assigned = list(consumer.assignment())
        since_ms = int((time.time() - HOUR_S) * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(assigned, since_ms))
        ends = await consumer.end_offsets(assigned)
        for place in assigned:
            stands = found.get(place)
            consumer.seek(place, ends[place] if stands is None else stands.offset)

    async def _skip_what_expired(self, consumer: AIOKafkaConsumer) -> None:
        assigned = list(consumer.assignment())
        begins, ends = await consumer.beginning_offsets(assigned), await consumer.end_offsets(assigned)
        for place in assigned:
            if not begins[place] <= await consumer.position(place) <= ends[place]:
                consumer.seek(place, begins[place])

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                found = await consumer.getmany(timeout_ms=POLL_MS, max_records=2_000)
            except (OffsetOutOfRangeError, NoOffsetForPartitionError):
                log.warning("records expired before they were read; the page goes on with the oldest there are")
                await self._skip_what_expired(consumer)
                continue
            except KafkaError as error:
                log.warning("the topics cannot be read: %s", error)
                await asyncio.sleep(LAG_EVERY_S)
                continue
            for place, records in found.items():
                for record in records:
                    self._fold(place.topic, record)
                self._metrics.records("feeds", len(records))
            await asyncio.sleep(0)  # a full buffer answers at once: the page gets its turn between batches

    def _fold(self, topic: str, record: Record) -> None:
        try:
            if topic == self._names.escalations:
                self._view.escalated(record.timestamp)
            elif topic == self._names.dlq:
                self._view.dead(decode_dead_letter(tuple(record.headers)), record.timestamp)
            elif record.value is None:
                self._view.tombstone()
            else:
                self._view.decided(decode_decision(record.value))
        except UnreadableRecord as error:
            log.warning("%s/%s/%s is not ours: %s", topic, record.partition, record.offset, error)

    async def _watch_lag(self, consumer: AIOKafkaConsumer, partitions: dict[str, list[TopicPartition]]) -> None:
        lanes = {"classify": self._names.input, "escalate": self._names.escalations}
        while True:
            try:
                async with self._connection.admin() as admin:
                    while True:
                        for lane, topic in lanes.items():
                            end = await consumer.end_offsets(partitions[topic])
                            begin = await consumer.beginning_offsets(partitions[topic])
                            async with asyncio.timeout(LAG_WITHIN_S):
                                group = f"{self._settings.kafka.group}-{lane}"
                                stored = await stored_offsets(admin, group, partitions[topic])
                            committed = {at: told.offset for at, told in stored.items() if told.offset >= 0}
                            from_earliest = self._settings.kafka.start == "earliest"
                            self._view.lag[lane] = behind(begin, end, committed, from_earliest=from_earliest)
                            if lane == "classify":
                                self._view.input_rate.add(int(time.time() * 1000), sum(end.values()))
                        await asyncio.sleep(LAG_EVERY_S)
            except (KafkaError, ShuntError, TimeoutError) as error:
                log.warning("the lanes' lags cannot be read: %s", error or "the coordinator does not tell them")
                self._view.lag.update(dict.fromkeys(lanes, None))
                await asyncio.sleep(LAG_EVERY_S)


async def is_stand_in(base_url: str) -> bool:
    """Whether a stand-in LLM answers there. Only this machine is asked: nobody else runs one."""
    if urlsplit(base_url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        return False
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session,
            session.get(f"{base_url.rstrip('/')}/models") as answer,
        ):
            listed = await answer.json()
            return any(model.get("owned_by") == STAND_IN for model in listed["data"])
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        return False
