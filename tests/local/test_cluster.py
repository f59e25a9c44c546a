"""A cluster of three real brokers: any one may be killed or paused, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream_app.errors import StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import look_up
from stream_app.local.kafka_cluster import kafka_uuid
from stream_app.local.stack import Stack
from stream_app.settings import Kafka
from tests.beside import Beside
from tests.conftest import run_apart
from tests.kafka.coordinators import group_coordinator, leader_of, transaction_coordinator
from tests.kafka.reading import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BROKERS = {1, 2, 3}
QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three brokers. When the stack closes none of their processes is left, not even of one that is paused."""
    running = Stack(tmp_path_factory.mktemp("cluster"), triton=False, llm=False, brokers=3)
    run_apart(running.open())
    yield running
    pids = [running.kafka.broker(node_id).process.pid for node_id in BROKERS]
    running.pause_broker(2)
    run_apart(running.close())
    assert not [pid for pid in pids if pid is None or psutil.pid_exists(pid)]


@pytest.fixture
def replicated(cluster: Stack, unique_name: Callable[[str], str]) -> str:
    """A topic with three partitions, made with the cluster's own settings."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, **QUIET})
    topic = unique_name("replicated")
    admin.create_topics([NewTopic(topic, 3)])[topic].result()
    return topic


def replicas(cluster: Stack, topic: str) -> list[tuple[set[int], set[int]]]:
    """Replicas and in-sync replicas of each partition, as a client we did not write sees them."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, **QUIET})
    partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions.values()
    return [(set(each.replicas), set(each.isrs)) for each in partitions]


class Writing(Beside):
    """An idempotent producer with acks=all, at work in a thread; `acknowledged` holds what it may rely on."""

    def __init__(self, cluster: Stack, topic: str) -> None:
        super().__init__()
        self.acknowledged: list[bytes] = []
        self.errors: list[object] = []
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                **QUIET,
            }
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert self._producer.flush(30) == 0

    def _run(self) -> None:
        number = 0
        while not self._over.is_set():
            self._producer.produce(self._topic, b"%d" % number, partition=number % 3, on_delivery=self._note)
            self._producer.poll(0.002)
            number += 1

    def _note(self, error: object, message) -> None:
        if error is not None:
            self.errors.append(error)
        else:
            self.acknowledged.append(message.value())

    async def more(self, count: int = 100, within_s: float = 30.0) -> None:
        """Returns when `count` more records were acknowledged."""
        goal = len(self.acknowledged) + count
        async with asyncio.timeout(within_s):
            while len(self.acknowledged) < goal:
                await asyncio.sleep(0.02)


class Following(Beside):
    """A read_committed consumer in a group, at work in a thread."""

    def __init__(self, cluster: Stack, topic: str, group: str) -> None:
        super().__init__()
        self.values: list[bytes] = []
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "group.id": group,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                **QUIET,
            }
        )

    def _run(self) -> None:
        self._consumer.subscribe([self._topic])
        while not self._over.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and not message.error():
                self.values.append(message.value())
        self._consumer.close()

    async def all_of(self, values: list[bytes], within_s: float = 30.0) -> None:
        """Returns when every one of `values` was read."""
        async with asyncio.timeout(within_s):
            while not set(values) <= set(self.values):
                await asyncio.sleep(0.02)


def test_everything_has_three_copies(cluster: Stack, replicated: str) -> None:
    """A new topic is on all three brokers, and takes a record when two of them have it."""
    assert replicas(cluster, replicated) == [(BROKERS, BROKERS)] * 3
    for node_id in BROKERS:
        settings = (cluster.dir / f"kafka-{node_id}" / "server.properties").read_text()
        assert "min.insync.replicas=2\n" in settings
    assert len(cluster.bootstrap_servers.split(",")) == 3
    with pytest.raises(StartError, match="brokers 1 to 3, not 4"):
        cluster.pause_broker(4)


async def test_a_killed_leader_loses_nothing(cluster: Stack, replicated: str, unique_name) -> None:
    """kill -9 of a partition's leader: writing and reading go on, the killed broker rejoins every set of in-sync
    replicas at its old address, and each acknowledged record is there exactly once."""
    with (
        Following(cluster, replicated, unique_name("group")) as reader,
        Writing(cluster, replicated) as writer,
    ):
        await writer.more()
        leader = leader_of(cluster.bootstrap_servers, replicated, 0)
        await cluster.kill_broker(leader)
        assert cluster.ended() == [f"Kafka broker {leader}"]
        await until_changed(lambda: leader_of(cluster.bootstrap_servers, replicated, 0), leader)
        await writer.more(500)
        await reader.all_of(list(writer.acknowledged))
        await cluster.start_broker(leader)
        assert cluster.ended() == []
        assert replicas(cluster, replicated) == [(BROKERS, BROKERS)] * 3
        await writer.more()
        seen = list(writer.acknowledged)
        await reader.all_of(seen)
    assert writer.errors == []
    kept = [message.value() for message in read_all(cluster.bootstrap_servers, replicated)]
    assert sorted(kept) == sorted(writer.acknowledged)


async def test_a_paused_broker_is_given_up_and_comes_back(cluster: Stack, replicated: str) -> None:
    """SIGSTOP of a leader for longer than its session: another leads. Gone on, it is in sync when we say so."""
    leader = leader_of(cluster.bootstrap_servers, replicated, 1)
    cluster.pause_broker(leader)
    await until_changed(lambda: leader_of(cluster.bootstrap_servers, replicated, 1), leader)
    cluster.continue_broker(leader)
    await cluster.broker_in_sync(leader)
    assert replicas(cluster, replicated) == [(BROKERS, BROKERS)] * 3


async def test_coordinators_are_told_truly(cluster: Stack, replicated: str, unique_name) -> None:
    """The harness's own look-ups agree with Kafka's rule and with another client; when the coordinator is killed
    another one answers, with which the same transactional id goes on."""
    group, transactional_id = unique_name("group"), unique_name("transactional")
    with Following(cluster, replicated, group) as reader, Writing(cluster, replicated) as writer:
        await writer.more(5)
        await reader.all_of(list(writer.acknowledged))
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, **QUIET})
        described = await asyncio.to_thread(lambda: admin.describe_consumer_groups([group])[group].result())
        assert group_coordinator(cluster.bootstrap_servers, group) == described.coordinator.id
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": transactional_id, **QUIET}
    )
    await asyncio.to_thread(transact, producer, replicated)
    killed = transaction_coordinator(cluster.bootstrap_servers, transactional_id)
    partition = java_hash(transactional_id) % 8
    assert killed == leader_of(cluster.bootstrap_servers, "__transaction_state", partition)
    await cluster.kill_broker(killed)
    await until_changed(lambda: transaction_coordinator(cluster.bootstrap_servers, transactional_id), killed)
    await until_changed(lambda: group_coordinator(cluster.bootstrap_servers, group), killed)
    again = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": transactional_id, **QUIET})
    await asyncio.to_thread(transact, again, replicated)
    await cluster.start_broker(killed)


def transact(producer: Producer, topic: str) -> None:
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"in a transaction")
    producer.commit_transaction(30)


def java_hash(text: str) -> int:
    """String.hashCode with its sign taken off, as Kafka chooses the partition of __transaction_state."""
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return abs(signed) if signed != -(1 << 31) else 0


async def until_changed(ask: Callable[[], int], before: int, within_s: float = 20.0) -> None:
    """Returns when `ask` answers something else than `before`."""
    deadline_s = time.monotonic() + within_s
    while await asyncio.to_thread(ask) == before:
        assert time.monotonic() < deadline_s, f"still {before}"
        await asyncio.sleep(0.1)


async def test_topics_are_looked_up_while_a_broker_is_away(cluster, replicated):
    """A worker may start while one broker of three is away, though aiokafka asks one of them at random."""
    connection = Connection(Kafka(bootstrap_servers=cluster.bootstrap_servers))
    async with asyncio.timeout(20):  # the topic is new: until whoever is asked knows it
        while not all([await look_up(connection, [replicated]) for _ in range(9)]):
            await asyncio.sleep(0.1)
    await cluster.kill_broker(2)
    try:
        for _ in range(12):
            assert (await look_up(connection, [replicated]))[replicated].partitions == 3
    finally:
        await cluster.start_broker(2)


def test_a_cluster_id_is_no_option_to_kafkas_tools():
    """One uuid in 64 begins with a dash in base64: the formatting took it for an option and failed."""
    dashed, plain = uuid.UUID(bytes=b"\xf8" + bytes(15)), uuid.UUID(bytes=b"\x08" + bytes(15))
    drawn = iter([dashed, dashed, plain])
    assert kafka_uuid(lambda: next(drawn)) == "CA" + 20 * "A"
