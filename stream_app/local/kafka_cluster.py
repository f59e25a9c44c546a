"""The brokers of one Kafka cluster on this machine, one or several: their ports, their ids, who is in sync."""

from __future__ import annotations

import asyncio
import base64
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import StartError
from stream_app.local.kafka_server import READY_DEADLINE_S, KafkaServer, Node, Place
from stream_app.local.ports import ClaimedPort, claim_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stream_app.local.jars import Progress

KAFKA_PORT = 9092
HEAP_MB = 512
HEAP_OF_MANY_MB = 384
ASK_TIMEOUT_MS = 2_000


class KafkaCluster:
    """Kafka with `brokers` brokers, each a controller too; their state and logs are under `folder`.

    One broker has `folder/kafka` and the log `kafka.log`, as many have `kafka-1`, `kafka-1.log` and so on. The ports
    are chosen once and kept over restarts, since clients know them.
    """

    def __init__(
        self, folder: Path, *, brokers: int, properties: Mapping[str, str], progress: Progress | None = None
    ) -> None:
        self._folder = folder
        self._properties = properties
        self._claims: list[tuple[ClaimedPort, ClaimedPort]] = []
        self._many = brokers > 1
        self.brokers = [self._make(node_id, progress) for node_id in range(1, brokers + 1)]

    def _make(self, node_id: int, progress: Progress | None) -> KafkaServer:
        stem = f"kafka-{node_id}" if self._many else "kafka"
        return KafkaServer(
            f"Kafka broker {node_id}" if self._many else "Kafka",
            self._folder / stem,
            self._folder / f"{stem}.log",
            partial(self._place, node_id),
            heap_mb=HEAP_OF_MANY_MB if self._many else HEAP_MB,
            progress=progress,
        )

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of every broker, with commas between, once started."""
        if not self._claims:
            raise StartError("Kafka was not started")
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes())

    def broker(self, node_id: int) -> KafkaServer:
        """The broker with that id, from 1 on. Raises `StartError` where there is none."""
        if not 1 <= node_id <= len(self.brokers):
            raise StartError(f"this Kafka has the brokers 1 to {len(self.brokers)}, not {node_id}")
        return self.brokers[node_id - 1]

    async def start(self) -> None:
        """Start all brokers side by side: several need each other to get ready. Raises `StartError`."""
        await asyncio.gather(*(broker.start() for broker in self.brokers))

    async def start_broker(self, node_id: int) -> None:
        """Start one broker and return when it is back in the cluster (`in_sync`). Raises `StartError`."""
        await self.broker(node_id).start()
        await self.in_sync(node_id)

    async def stop(self) -> None:
        """Stop all brokers, each in order (5 s for three: the last ones find no majority of controllers)."""
        await asyncio.gather(*(broker.process.stop() for broker in self.brokers))

    async def kill(self) -> None:
        """Kill all brokers at once (SIGKILL)."""
        await asyncio.gather(*(broker.process.kill() for broker in self.brokers))

    async def in_sync(self, node_id: int) -> None:
        """Returns when the broker is alive for the cluster, and in sync for every partition it keeps.

        Every broker that runs is asked, and all that answer must say so, one beside the broker itself among them:
        what a broker knows when it goes on after a pause is old. Raises `StartError` when that takes too long.
        """
        enough = min(2, len(self.brokers))

        async def they_say_so() -> bool:
            ports = [node.port for node in self._nodes() if self.broker(node.id).process.running]
            told = await asyncio.gather(*(_in_sync(node_id, port) for port in ports))
            return False not in told and told.count(True) >= enough

        await self.broker(node_id).process.wait_ready(they_say_so, deadline_s=READY_DEADLINE_S)

    def release_ports(self) -> None:
        """Let others have the ports; for a cluster that is not started again."""
        for pair in self._claims:
            for claim in pair:
                claim.release()
        self._claims = []

    def _place(self, node_id: int) -> Place:
        nodes = self._nodes()
        return Place(nodes[node_id - 1], nodes, self._cluster_id(), self._properties)

    def _nodes(self) -> list[Node]:
        """All nodes at once: each broker must know where the others' controllers are."""
        while len(self._claims) < len(self.brokers):
            self._claims.append((claim_port(KAFKA_PORT), claim_port()))
        return [
            Node(number, port.number, controller_port.number)
            for number, (port, controller_port) in enumerate(self._claims, 1)
        ]

    def _cluster_id(self) -> str:
        """The id that every broker is formatted with, kept in a file: some may be formatted in a later start."""
        kept = self._folder / "kafka-cluster-id"
        if not kept.exists():
            kept.write_text(kafka_uuid(uuid.uuid4), encoding="utf-8")
        return kept.read_text(encoding="utf-8")


def kafka_uuid(draw: Callable[[], uuid.UUID]) -> str:
    """An id as Kafka writes them: 16 bytes in URL-safe base64 without padding.

    Never one that begins with a dash (one in 64 would): Kafka's own tools take it for an option, and Kafka draws
    again as well (`org.apache.kafka.common.Uuid.randomUuid`).
    """
    while (written := base64.urlsafe_b64encode(draw().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return written


async def _in_sync(node_id: int, port: int) -> bool | None:
    """Whether the broker at `port` holds `node_id` for alive and in sync; None when it does not answer."""
    try:
        connection = await create_conn("127.0.0.1", port, request_timeout_ms=ASK_TIMEOUT_MS)
        try:
            answer = cast("Any", await connection.send(cast("Any", MetadataRequest()))).to_object()
        finally:
            connection.close()
    except (KafkaError, OSError):  # OSError: a TimeoutError too
        return None
    alive = any(broker["node_id"] == node_id for broker in answer["brokers"])
    partitions = [partition for topic in answer["topics"] for partition in topic["partitions"]]
    return alive and all(node_id in each["isr"] for each in partitions if node_id in each["replicas"])
