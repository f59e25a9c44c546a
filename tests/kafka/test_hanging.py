"""Records of a transaction that Kafka has ended without its markers: the partition's next owner ends it first.

Kafka writes no marker where a partition has no leader at that moment (KAFKA-20734), as after a lone broker's restart.
What the transaction wrote hangs in the partition, and the next commit of the same transactional id ends that too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from stream_app.errors import MembershipInterrupted
from stream_app.events import Outgoing
from stream_app.kafka import proven_end
from stream_app.kafka.connection import Connection
from stream_app.kafka.transactions import TransactionalOutput
from stream_app.settings import Kafka
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.kafka.running import owns, running, until

VERIFICATION = "transaction.partition.verification.enable"
VALUES = [str(number).encode() for number in range(100)]


@contextmanager
def unverified_partitions(bootstrap_servers: str):
    """The broker takes records for partitions that are not in the transaction: that makes them hang by hand."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})

    def alter(operation: AlterConfigOpType, value: str | None) -> None:
        entry = ConfigEntry(VERIFICATION, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()
        asked = ConfigResource(ResourceType.BROKER, "1")
        while True:  # the controller has answered; the broker follows
            (told,) = (future.result() for future in admin.describe_configs([asked]).values())
            if told[VERIFICATION].value == (value or "true"):
                break
            time.sleep(0.05)

    alter(AlterConfigOpType.SET, "false")
    try:
        yield
    finally:
        alter(AlterConfigOpType.DELETE, None)


async def leave_hanging(
    bootstrap_servers: str,
    source: str,
    target: str,
    group: str,
    *,
    offset: int | None,
    commit: bool = False,
    offset_hangs: bool = True,
) -> None:
    """The owner of `source`/0 copies all and dies; its transaction ends without markers where that counts."""
    settings = Kafka.model_validate({"bootstrap_servers": bootstrap_servers, "input_topic": source})
    producer = Connection(settings).transactional_producer(f"{group}:{source}:0")
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(target, b"never counts", partition=1)  # the coordinator knows of this one alone
        manager = producer._txn_manager
        manager._txn_partitions.add(TopicPartition(target, 0))
        for value in VALUES:
            await producer.send(target, value, partition=0)
        await producer.flush()
        if offset is not None:
            manager._txn_consumer_group = group if offset_hangs else None
            await producer.send_offsets_to_transaction(
                {TopicPartition(source, 0): OffsetAndMetadata(offset, "")}, group
            )
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


@pytest.mark.parametrize("offset", [None, 70])
async def test_what_hangs_of_the_last_owner_never_counts(stack, make_topic, unique_name, offset):
    """Every record is copied once, and the committed offset is the new owner's: what hangs does not come alive."""
    source, target, group = make_topic("in", partitions=1), make_topic("out", partitions=2), unique_name("group")
    servers = stack.bootstrap_servers
    await asyncio.to_thread(produce, servers, source, VALUES)
    await found(servers, source, target, group)
    await asyncio.to_thread(produce, servers, source, VALUES)
    with unverified_partitions(servers):
        await leave_hanging(servers, source, target, group, offset=offset)
    lane = CopyLane(servers, source, target, group)
    async with running(lane):
        await until(lambda: lane.copied == len(VALUES))
        await until(lambda: all(partition.lag == 0 for partition in lane.membership.owned))
    copies = Counter(message.value() for message in await asyncio.to_thread(read_all, servers, target))
    assert copies == Counter(VALUES * 2)
    committed, end = (await asyncio.to_thread(committed_and_end, servers, source, group))[0]
    assert committed == end


@pytest.mark.parametrize("offset_hangs", [False, True])
async def test_what_hangs_of_a_committed_transaction_counts(stack, make_topic, unique_name, offset_hangs):
    """Where its offset stands nobody does it again: what it wrote must come alive. Where that hangs too: both."""
    source, target, group = make_topic("in", partitions=1), make_topic("out", partitions=2), unique_name("group")
    servers = stack.bootstrap_servers
    await asyncio.to_thread(produce, servers, source, VALUES)
    await found(servers, source, target, group)
    await asyncio.to_thread(produce, servers, source, VALUES)
    end = (await asyncio.to_thread(committed_and_end, servers, source, group))[0][1]
    with unverified_partitions(servers):
        await leave_hanging(servers, source, target, group, offset=end, commit=True, offset_hangs=offset_hangs)
    lane = CopyLane(servers, source, target, group)
    async with running(lane):
        await until(lambda: owns(lane))
    assert lane.copied == 0
    copies = Counter(message.value() for message in await asyncio.to_thread(read_all, servers, target))
    assert copies == Counter(VALUES * 2) + Counter([b"never counts"])


class Opened(TransactionalOutput):
    """Counts how often a producer is opened."""

    times = 0

    async def open(self) -> None:
        Opened.times += 1
        await super().open()


async def test_a_lost_coordinator_puts_the_last_transaction_in_doubt(stack, make_topic, unique_name, monkeypatch):
    """Its markers may not have been written: another producer ends it before anything else is delivered."""
    monkeypatch.setattr(Opened, "times", 0)
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    lane = CopyLane(stack.bootstrap_servers, source, target, group, make_output=Opened)
    async with running(lane):
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, VALUES)
        await until(lambda: lane.copied == len(VALUES))
        (partition,) = lane.membership.owned
        await until(lambda: partition.lag == 0)
        assert Opened.times == 1
        partition._output._producer.client._conns[1, ConnectionGroup.COORDINATION].close()
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, VALUES)
        await until(lambda: lane.copied == 2 * len(VALUES))
    assert Opened.times == 2
    assert lane.losses == 0
    copies = Counter(
        message.value() for message in await asyncio.to_thread(read_all, stack.bootstrap_servers, target)
    )
    assert copies == Counter(VALUES * 2)


class Torn(TransactionalOutput):
    """Of its first transaction `hangs` gets no marker; the connection breaks as its second one begins."""

    hangs: TopicPartition
    transactions = 0

    async def _send(self, outgoing, futures) -> None:
        self.transactions += 1
        if self.transactions == 1:
            self._producer._txn_manager._txn_partitions.add(self.hangs)
        else:
            self._producer.client._conns[1, ConnectionGroup.COORDINATION].close()
        await super()._send(outgoing, futures)


async def test_nothing_is_added_to_a_transaction_while_the_last_one_may_hang(stack, make_topic, unique_name):
    """Its abort would end what hangs, and not as the coordinator has decided: the record would be lost."""
    target, group = make_topic("out", partitions=2), unique_name("group")
    source = TopicPartition(make_topic("in"), 0)
    connection = Connection(
        Kafka.model_validate({"bootstrap_servers": stack.bootstrap_servers, "input_topic": source.topic})
    )
    reach = [TopicPartition(target, number) for number in (0, 1)]

    def make() -> Torn:
        return Torn(lambda: connection.transactional_producer(f"{group}:{source.topic}:0"), group, 10, reach)

    def both(value: bytes) -> list[Outgoing]:
        return [Outgoing(target, number, None, value, ()) for number in (0, 1)]

    first, second = make(), make()
    first.hangs = reach[0]
    try:
        with unverified_partitions(stack.bootstrap_servers):
            await first.open()
            await first.commit(both(b"one"), source, 1, "")
        with pytest.raises(MembershipInterrupted):
            await first.commit(both(b"two"), source, 2, "")
        second.last_word = first.last_word
        await second.open()
    finally:
        await first.close()
        await second.close()
    found = await asyncio.to_thread(read_all, stack.bootstrap_servers, target)
    assert [message.value() for message in found] == [b"one", b"one"]


async def test_what_becomes_of_the_last_transaction_is_asked_where_no_other_follows(
    stack, make_topic, unique_name, monkeypatch
):
    """A broker may be fenced while nobody looks: what is not proven in time is in doubt, what is proven is not."""
    target, group, source = make_topic("out"), unique_name("group"), TopicPartition(make_topic("in"), 0)
    connection = Connection(
        Kafka.model_validate({"bootstrap_servers": stack.bootstrap_servers, "input_topic": source.topic})
    )
    monkeypatch.setattr(proven_end, "PROOF_S", 0.5)
    for ask_after_s, doubt in ((0.1, False), (9.0, True)):
        monkeypatch.setattr(proven_end, "ASK_AFTER_S", ask_after_s)
        output = TransactionalOutput(
            lambda: connection.transactional_producer(f"{group}:0"), group, 10, [TopicPartition(target, 0)]
        )
        try:
            await output.open()
            await output.commit([Outgoing(target, 0, None, b"one", ())], source, 1, "")
            assert not output.in_doubt
            await asyncio.sleep(0.7)
            assert output.in_doubt is doubt
        finally:
            await output.close()


class CutOff(TransactionalOutput):
    """The connection to the transaction coordinator breaks just after the abort that ends what hangs."""

    times = 0

    async def open(self) -> None:
        producer = self._producer
        abort = producer.abort_transaction

        async def aborting() -> None:
            await abort()
            if CutOff.times == 0:
                CutOff.times += 1
                producer.client._conns[1, ConnectionGroup.COORDINATION].close()

        producer.abort_transaction = aborting
        await super().open()


async def test_an_end_that_may_not_have_reached_the_partitions_is_made_again(
    stack, make_topic, unique_name, monkeypatch
):
    """A coordinator that restarts may end our empty transaction without its markers too: it does not count then."""
    monkeypatch.setattr(CutOff, "times", 0)
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    settings = Kafka.model_validate({"bootstrap_servers": stack.bootstrap_servers, "input_topic": source})
    connection = Connection(settings)
    for times in (0, 1):
        output = CutOff(
            lambda: connection.transactional_producer(f"{group}:{source}:0"), group, 10, [TopicPartition(target, 0)]
        )
        try:
            with pytest.raises(MembershipInterrupted) if times == 0 else nullcontext():
                await output.open()
        finally:
            await output.close()
    assert CutOff.times == 1


async def test_nothing_is_published_after_a_request_without_an_answer(stack, make_topic, unique_name):
    """It may still be handled, and end the next transaction of the same epoch: another producer must begin."""
    target = make_topic("out")
    connection = Connection(Kafka.model_validate({"bootstrap_servers": stack.bootstrap_servers, "input_topic": "in"}))
    output = TransactionalOutput(
        lambda: connection.transactional_producer(unique_name("id")), "", 10, [TopicPartition(target, 0)]
    )
    await output.open()
    try:
        await output.publish([Outgoing(target, 0, None, b"one", ())], "publishing one")
        output._unanswered = True
        with pytest.raises(MembershipInterrupted, match="publishing two"):
            await output.publish([Outgoing(target, 0, None, b"two", ())], "publishing two")
    finally:
        await output.close()
    found = await asyncio.to_thread(read_all, stack.bootstrap_servers, target)
    assert [message.value() for message in found] == [b"one"]


async def found(servers: str, source: str, target: str, group: str) -> None:
    """The group has owned the partition before, and committed."""
    lane = CopyLane(servers, source, target, group)
    async with running(lane):
        await until(lambda: lane.copied == len(VALUES))


async def test_a_renewal_ends_with_its_partition(stack, make_topic, unique_name, monkeypatch):
    """A producer that cannot be renewed while its coordinator is away does not hold up a drain."""
    monkeypatch.setattr(NeverAgain, "times", 0)
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    lane = CopyLane(
        stack.bootstrap_servers, source, target, group, make_output=NeverAgain, drain_timeout_s=10, handover_s=1
    )
    loop = asyncio.get_running_loop()
    async with running(lane):
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, VALUES)
        await until(lambda: lane.copied == len(VALUES))
        (partition,) = lane.membership.owned
        await until(lambda: partition.lag == 0)
        partition._output._producer.client._conns[1, ConnectionGroup.COORDINATION].close()
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, VALUES)
        await until(lambda: NeverAgain.times == 2)
        began_s = loop.time()
    assert loop.time() - began_s < 15
    assert lane.copied == len(VALUES)


class NeverAgain(TransactionalOutput):
    """Opens once; every other opening takes for ever."""

    times = 0

    async def open(self) -> None:
        NeverAgain.times += 1
        if NeverAgain.times > 1:
            await asyncio.Event().wait()
        await super().open()
