"""An independent look at Kafka: confluent-kafka, which shares no code with the project."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

LOADING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TIMED_OUT,  # librdkafka's own word for any of these that lasts
}
READ_WITHIN_S = 60.0
"""How long no record may come before a reader gives up: a transaction that hangs holds readers back."""


def produce(
    bootstrap_servers: str,
    topic: str,
    values: list[bytes | None],
    *,
    partitions: int = 1,
    keys: list[bytes] | None = None,
) -> None:
    """Writes `values`, value i to partition i modulo `partitions`."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "message.max.bytes": 20_000_000})
    for number, value in enumerate(values):
        key = keys[number] if keys else str(number).encode()
        producer.produce(topic, value=value, key=key, partition=number % partitions)
        producer.poll(0)
    assert producer.flush(30) == 0


def read_all(bootstrap_servers: str, topic: str, isolation: str = "read_committed") -> list:
    """Every record of the topic up to its end at the time of the call, as confluent messages, by partition."""
    found = list(each_message(bootstrap_servers, topic, isolation))
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def each_message(bootstrap_servers: str, topic: str, isolation: str = "read_committed") -> Iterator[Message]:
    """The records of a topic to its end at the time of the call, one by one: in order within a partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"count-{uuid.uuid4().hex[:8]}",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.max.bytes": 60_000_000,
            "queued.max.messages.kbytes": 65_536,
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        ended, deadline = set(), time.monotonic() + READ_WITHIN_S
        while len(ended) < len(partitions) and time.monotonic() < deadline:
            for message in consumer.consume(2_000, 0.5):
                deadline = time.monotonic() + READ_WITHIN_S
                if not message.error():
                    yield message
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        assert len(ended) == len(partitions), "the end of the topic was not reached"
    finally:
        consumer.close()


def committed_and_end(bootstrap_servers: str, topic: str, group: str) -> dict[int, tuple[int, int]]:
    """Per partition the group's committed offset and the topic's end."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "isolation.level": "read_committed",
            "log_level": 1,
        }
    )
    try:
        numbers = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        committed = _committed(consumer, [TopicPartition(topic, number) for number in numbers])
        return {
            each.partition: (each.offset, consumer.get_watermark_offsets(TopicPartition(topic, each.partition))[1])
            for each in committed
        }
    finally:
        consumer.close()


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """A fresh broker is not the coordinator yet while it loads the offsets topic: ask again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return consumer.committed(partitions, timeout=10)
        except KafkaException as error:
            if time.monotonic() > deadline or error.args[0].code() not in LOADING:
                raise
            time.sleep(0.2)
