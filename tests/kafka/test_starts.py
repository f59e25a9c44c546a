"""Where a partition's work begins: its committed offset, the first start, its beginning if added; never elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from stream_app.errors import StartError
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.kafka.running import owns, running, until


@asynccontextmanager
async def admin_of(stack):
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def commit(stack, group: str, topic: str, offset: int) -> None:
    """An offset committed by hand."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": group})
    try:
        consumer.commit(offsets=[Place(topic, 0, offset)], asynchronous=False)
    finally:
        consumer.close()


async def delete_before(stack, topic: str, offset: int) -> None:
    async with admin_of(stack) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})


async def test_records_deleted_under_a_running_worker_end_it(stack, make_topic, unique_name):
    """Records deleted while they wait behind a pause: the worker says so and ends, it does not jump."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane) as task:
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        (partition,) = lane.membership.owned
        partition.pause()
        await asyncio.sleep(1)
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"2", b"3", b"4"])
        await delete_before(stack, source, 3)
        partition.resume()
        await until(task.done)
        error = task.exception()
    assert isinstance(error, StartError)
    assert "offset 1" in error.one_line()
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1"]


async def test_an_offset_beyond_the_end_ends_the_worker(stack, make_topic, unique_name):
    """A group that stands beyond the end (topic made anew, records lost): an error, never a wait for ever."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"1", b"2"])
    await asyncio.to_thread(commit, stack, group, source, 100)
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane) as task:
        await until(task.done)
        error = task.exception()
    assert isinstance(error, StartError)
    assert "offset 100" in error.one_line()
    assert "beyond its end (2)" in error.one_line()
    assert lane.copied == 0


async def test_a_log_cut_short_under_a_running_worker_ends_it(stack, make_topic, unique_name):
    """The end falls back behind the position (unclean leader election): the worker says so, and does not wait."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane) as task:
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        lane.membership._consumer.seek(TopicPartition(source, 0), 100)  # what the broker then answers is the same
        await until(task.done)
        assert isinstance(task.exception(), StartError)


async def test_a_topic_made_anew_begins_anew(stack, make_topic, unique_name):
    """Kafka drops the offsets of a topic that is deleted: of the one made in its place every record is read."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"1", b"2", b"3"])
    first = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(first):
        await until(lambda: first.copied == 3)
    async with admin_of(stack) as admin:
        await admin.delete_topics([source])
    await asyncio.sleep(2)
    await asyncio.to_thread(make_topic, name=source)
    await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"4"])
    second = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(second):
        await until(lambda: second.copied == 1)
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_an_added_partition_is_read_from_its_beginning(stack, make_topic, unique_name, start):
    """A partition that is added while a group runs is picked up, with what was written before it was noticed."""
    source, target, group = make_topic("in"), make_topic("out", partitions=2), unique_name("group")
    lane = CopyLane(stack.bootstrap_servers, source, target, group, start=start)
    async with running(lane):
        await until(lambda: owns(lane))
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        async with admin_of(stack) as admin:
            await admin.create_partitions({source: NewPartitions(2, None)})
        await asyncio.sleep(1)
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"2", b"3"], partitions=2)
        await until(lambda: lane.copied == 3)
    copies = read_all(stack.bootstrap_servers, target)
    assert sorted(message.value() for message in copies) == [b"1", b"2", b"3"]


async def test_a_partition_added_while_no_worker_ran_is_read_from_its_beginning(stack, make_topic, unique_name):
    """The same where the whole group was down, and had read nothing yet."""
    source, target, group = make_topic("in"), make_topic("out", partitions=2), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"before"])
    first = CopyLane(stack.bootstrap_servers, source, target, group, start="latest")
    async with running(first):
        await until(lambda: owns(first))
    async with admin_of(stack) as admin:
        await admin.create_partitions({source: NewPartitions(2, None)})
    await asyncio.sleep(1)
    await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"1", b"2"], partitions=2)
    second = CopyLane(stack.bootstrap_servers, source, target, group, start="latest")
    async with running(second):
        await until(lambda: second.copied == 2)
    copies = read_all(stack.bootstrap_servers, target)
    assert sorted(message.value() for message in copies) == [b"1", b"2"]


class SlowFirstOpening(TransactionalOutput):
    """Some partitions open seconds later than others, as where a coordinator is slow."""

    opened = 0

    async def open(self) -> None:
        SlowFirstOpening.opened += 1
        if SlowFirstOpening.opened % 2:
            await asyncio.sleep(3)
        await super().open()


async def test_workers_that_found_a_group_together_begin_at_one_end(stack, make_topic, unique_name):
    """`start = latest`, three workers at once, partitions that open late: nothing old is read, all new is."""
    source, target, group = make_topic("in", partitions=6), make_topic("out", partitions=6), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"old"] * 12, partitions=6)
    lanes = [
        CopyLane(stack.bootstrap_servers, source, target, group, start="latest", make_output=SlowFirstOpening)
        for _ in range(3)
    ]
    async with running(lanes[0]), running(lanes[1]), running(lanes[2]):
        await until(lambda: any(owns(lane) for lane in lanes))
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"new"] * 12, partitions=6)
        await until(lambda: sum(lane.copied for lane in lanes) >= 12, within_s=60)
        await asyncio.sleep(1)
        assert sum(lane.membership.lost_count for lane in lanes) == 0
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"new"] * 12
    offsets = await asyncio.to_thread(committed_and_end, stack.bootstrap_servers, source, group)
    assert all(committed == end for committed, end in offsets.values())


async def test_where_a_group_began_is_committed_before_its_first_record(stack, make_topic, unique_name):
    """Records that expire between the first start and the first commit are not jumped over by the next start."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane):
        await until(lambda: owns(lane))
    await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"1", b"2", b"3"])
    await delete_before(stack, source, 2)
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane) as task:
        await until(task.done)
        error = task.exception()
    assert isinstance(error, StartError)
    assert "offset 0" in error.message
