"""Producers and openings that end badly leave nothing behind: no task at work, no partition that nobody opens."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiokafka.structs import TopicPartition

from stream_app.errors import MembershipLost
from stream_app.events import Outgoing
from stream_app.kafka import transactions
from stream_app.kafka.connection import Connection
from stream_app.kafka.owned import OwnedPartition
from stream_app.kafka.partition import PartitionStatus
from stream_app.kafka.transactions import TransactionalOutput
from stream_app.settings import Kafka
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce, read_all
from tests.kafka.running import running, until


async def test_a_producer_whose_sends_hang_leaves_no_sender_at_work(stack, topic, unique_name, monkeypatch):
    """aiokafka waits for its queue to empty when it stops; cut off there, its sender went on and connected anew."""
    monkeypatch.setattr(transactions, "CLOSE_TIMEOUT_S", 0.5)
    connection = Connection(Kafka(bootstrap_servers=stack.bootstrap_servers))
    name = unique_name("hangs")
    output = TransactionalOutput(lambda: connection.transactional_producer(name), name, 1.0)
    await output.open()
    producer = output._producer
    producer._sender._muted_partitions.add(TopicPartition(topic, 0))  # as if a request were never answered
    hanging = output.commit([Outgoing(topic, 0, b"k", b"v", ())], TopicPartition(topic, 0), 1, "")
    with contextlib.suppress(MembershipLost):
        await hanging
    await output.close()
    assert producer._sender.sender_task.done()
    assert not any(each.connected() for each in producer.client._conns.values())


class CancelledOnce(TransactionalOutput):
    """The first opening is cancelled from within, as by a connection that aiokafka tears down."""

    tries = 0

    async def open(self) -> None:
        CancelledOnce.tries += 1
        if CancelledOnce.tries == 1:
            raise asyncio.CancelledError
        await super().open()


class NoBrokerOnce(TransactionalOutput):
    """The first opening meets a broker that has just been suspended and tells of no broker that lives."""

    tries = 0

    async def open(self) -> None:
        NoBrokerOnce.tries += 1
        if NoBrokerOnce.tries == 1:
            self._producer.start = self._refuse
        await super().open()

    async def _refuse(self) -> None:
        raise AssertionError("Did we not perform bootstrap?")


@pytest.mark.parametrize("make_output", [CancelledOnce, NoBrokerOnce])
async def test_an_opening_that_ends_strangely_is_tried_again(
    stack, make_topic, unique_name, make_output, monkeypatch
):
    """Neither a partition that stays OPENING for ever, nor a worker that dies of it."""
    monkeypatch.setattr(make_output, "tries", 0)
    source, target = make_topic("in"), make_topic("out")
    produce(stack.bootstrap_servers, source, [b"1", b"2"])
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), make_output=make_output)
    async with running(lane) as task:
        await until(lambda: lane.copied == 2)
        assert not task.done()
        assert lane.membership.lost_count == 0
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2"]


class Owner:
    """A membership that is in doubt until told otherwise."""

    def __init__(self) -> None:
        self.trusted = asyncio.Event()

    async def trust(self, _partition: OwnedPartition) -> None:
        await self.trusted.wait()


async def test_a_partition_given_up_while_in_doubt_is_not_opened():
    """InitProducerId of a worker that was expelled would fence the rightful owner."""
    owner = Owner()
    partition = OwnedPartition(TopicPartition("in", 0), lambda: None, owner)
    opening = asyncio.create_task(partition.open_output())
    await asyncio.sleep(0)
    partition.life.move(PartitionStatus.CLOSING)
    owner.trusted.set()
    with pytest.raises(MembershipLost):
        await opening
