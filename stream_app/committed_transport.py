"""Faust's Kafka transport, reading committed records only.

Faust reads uncommitted records unless it produces in transactions itself: a user's agent on the decisions topic
would see the decisions of a transaction that was aborted, and count an event twice.
"""

from __future__ import annotations

from typing import Any, cast

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

READ_COMMITTED = "read_committed"


class CommittedThread(AIOKafkaConsumerThread):
    """Makes the consumer; its isolation level is fixed before it starts, when aiokafka reads it."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = cast("Any", super()._create_worker_consumer(transport))
        consumer._isolation_level = READ_COMMITTED  # noqa: SLF001 - Faust has no setting for it
        return consumer


class CommittedConsumer(Consumer):
    """Faust's consumer on such a thread."""

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """Faust's transport with such a consumer."""

    Consumer = cast("Any", CommittedConsumer)
