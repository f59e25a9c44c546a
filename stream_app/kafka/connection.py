"""How this worker speaks to Kafka: one place that makes consumers, producers and the admin client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError

from stream_app.errors import KafkaUnreachable, StartError
from stream_app.kafka.together import assignor
from stream_app.kafka.transactions import BATCH_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from stream_app.settings import Kafka

Answer = TypeVar("Answer")

HEARTBEATS_PER_SESSION = 5
"""Kafka asks for at least three; five survive a slow one."""
ASK_WITHIN_S = 20.0
"""How long a cluster that lacks a broker may take to answer; a stalled one is noticed after ten."""
CONTROLLER_WITHIN_S = 10.0
ASK_PAUSE_S = 0.3
METADATA_MAX_AGE_MS = 10_000
"""How late a partition that was added is noticed (Kafka's default is five minutes)."""


@dataclass(frozen=True, slots=True)
class FetchBounds:
    """What a consumer takes at a time.

    `records` are handed to the lane at once. `partition_bytes` are fetched ahead of each partition, as they come
    over the wire (compressed); a larger batch comes whole. `response_bytes` bound one answer of a broker over all
    partitions, which stands in memory four times while it is read and taken apart.
    """

    records: int = 8_192
    partition_bytes: int = 512 * 1024
    response_bytes: int = 4 * 1024 * 1024


FULL_FETCHES = FetchBounds()
"""For who must keep up with a topic. Twice as much is no faster and takes 15 MB more (`benchmarks/overload.py`)."""


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a topic is: how many partitions, and the largest record batch it takes (`max.message.bytes`)."""

    name: str
    partitions: int
    message_bytes_max: int


class Connection:
    """Makes clients for one cluster, with the settings that the guarantee needs."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka

    def consumer(
        self,
        group: str | None,
        client_id: str,
        fetch: FetchBounds = FULL_FETCHES,
        lead: str | None = None,
        *,
        committed: bool = True,
    ) -> AIOKafkaConsumer:
        """A read-committed consumer that never commits by itself and never jumps to another offset by itself.

        `lead`: of several topics, the one that the others follow (`together`). Without `committed` it sees what
        transactions that are still open have written.
        """
        session_ms = self.kafka.session_timeout_ms
        return AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            client_id=client_id,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed" if committed else "read_uncommitted",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // HEARTBEATS_PER_SESSION,
            rebalance_timeout_ms=session_ms + int(self.kafka.handover_s * 1000) + 5_000,
            max_poll_interval_ms=2**31 - 1,  # a stalled LLM is no reason to leave the group: progress is watched
            partition_assignment_strategy=cast("Any", (assignor(lead),)),
            fetch_max_wait_ms=200,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            max_partition_fetch_bytes=fetch.partition_bytes,
            fetch_max_bytes=fetch.response_bytes,
        )

    def transactional_producer(
        self, transactional_id: str, batch_bytes_max: int = BATCH_BYTES_MAX
    ) -> AIOKafkaProducer:
        """An idempotent, transactional producer, not started. No topic it writes to takes smaller batches."""
        return AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=self.kafka.transaction_timeout_ms,
            max_batch_size=batch_bytes_max,
            request_timeout_ms=max(self.kafka.transaction_timeout_ms, 10_000),
            acks="all",
            linger_ms=0,
            compression_type=None if self.kafka.compression == "none" else self.kafka.compression,
        )

    async def start(self, client: AIOKafkaConsumer) -> None:
        """Starts a consumer; KafkaUnreachable when no broker answers."""
        try:
            await client.start()
        except (KafkaConnectionError, OSError) as error:
            raise self._unreachable() from error

    def _unreachable(self) -> KafkaUnreachable:
        return KafkaUnreachable(
            f"no Kafka broker answers at {self.kafka.bootstrap_servers}",
            advice="start Kafka, or correct [kafka] bootstrap_servers",
        )

    @asynccontextmanager
    async def admin(self) -> AsyncGenerator[AIOKafkaAdminClient]:
        """An admin client; KafkaUnreachable when no broker can be reached."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers, request_timeout_ms=10_000)
        try:
            try:
                await client.start()
                async with asyncio.timeout(CONTROLLER_WITHIN_S):
                    await _controller_known(client)
            except (KafkaError, OSError, ValueError) as error:
                raise self._unreachable() from error
            yield client
        finally:
            await client.close()

    async def ask(self, question: Callable[[AIOKafkaAdminClient], Awaitable[Answer]]) -> Answer:
        """The cluster's answer. aiokafka asks one broker at random: while that one is away, asks again.

        Raises KafkaUnreachable where none answers at all, or none did within `ASK_WITHIN_S`.
        """
        loop = asyncio.get_running_loop()
        late_s = loop.time() + ASK_WITHIN_S
        while True:
            try:
                async with self.admin() as admin:
                    return await question(admin)
            except KafkaError as error:
                if not error.retriable:
                    raise
                if loop.time() > late_s:
                    raise self._unreachable() from error
            await asyncio.sleep(ASK_PAUSE_S)

    async def topics(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """The facts of those topics that exist. Raises StartError where Kafka hides a topic's settings."""
        wanted = list(dict.fromkeys(names))

        async def facts(admin: AIOKafkaAdminClient) -> dict[str, TopicFacts]:
            described = await admin.describe_topics()  # all: asking for one by name would create it
            counts = {
                topic["topic"]: len(topic["partitions"])
                for topic in cast("list[dict[str, Any]]", described)
                if topic["topic"] in wanted and not topic["error_code"]
            }
            limits = await self._message_bytes_max(admin, list(counts)) if counts else {}
            return {name: TopicFacts(name, counts[name], limits[name]) for name in wanted if name in limits}

        return await self.ask(facts)

    @staticmethod
    async def _message_bytes_max(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found: dict[str, int] = {}
        for response in cast("list[Any]", await admin.describe_configs(resources)):
            for code, _message, _kind, name, entries in response.resources:
                if code == TopicAuthorizationFailedError.errno:  # every setting would pass for its default
                    raise StartError(
                        f"Kafka does not tell the settings of topic {name!r}",
                        advice=f"grant this worker's user DESCRIBE_CONFIGS on topic {name!r}",
                    )
                if code:
                    continue  # this broker does not know the topic yet, or not any more
                values = {entry[0]: entry[1] for entry in entries}
                found[name] = int(values.get("max.message.bytes") or 1_048_588)
        return found


async def _controller_known(client: AIOKafkaAdminClient) -> None:
    """A broker that has just stood still knows of no broker, itself included: aiokafka fails on that with a bug."""
    inside = cast("Any", client)._client  # noqa: SLF001 - no public way leads to it
    while inside.cluster.controller is None:
        await inside.force_metadata_update()
        await asyncio.sleep(ASK_PAUSE_S)
