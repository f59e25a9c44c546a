"""Exactly once on real Kafka: the membership and its transactions, with the smallest lane that uses them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest
from confluent_kafka import Producer

from stream_app.errors import DeliveryRefused, KafkaUnreachable, MembershipLost, MembershipLostTooOften, StartError
from stream_app.events import Outgoing
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.kafka.running import LoadingCoordinator, owns, running, until


async def test_every_record_is_copied_once_while_workers_join_and_leave(stack, make_topic, unique_name):
    """Rebalances neither lose nor duplicate a record, and keep the order of each partition."""
    source, target = make_topic("in", partitions=4), make_topic("out", partitions=4)
    group = unique_name("group")
    values = [str(number).encode() for number in range(20_000)]
    await asyncio.to_thread(produce, stack.bootstrap_servers, source, values[:10_000], partitions=4)
    lanes = [CopyLane(stack.bootstrap_servers, source, target, group) for _ in range(3)]
    async with running(lanes[0]) as first:
        await until(lambda: lanes[0].copied > 0)
        async with running(lanes[1]):
            await until(lambda: owns(lanes[1]))
            await asyncio.to_thread(produce, stack.bootstrap_servers, source, values[10_000:15_000], partitions=4)
            await until(lambda: lanes[1].copied > 0)
            async with running(lanes[2]):
                await until(lambda: owns(lanes[2]))
                await asyncio.to_thread(produce, stack.bootstrap_servers, source, values[15_000:], partitions=4)
                await until(lambda: sum(lane.copied for lane in lanes) >= 20_000)
        assert not first.done()
    copies = await asyncio.to_thread(read_all, stack.bootstrap_servers, target)
    assert Counter(message.value() for message in copies) == Counter(values)
    for number in range(4):
        own = [int(message.value()) for message in copies if message.partition() == number]
        assert own == sorted(own)


async def test_lag_reaches_zero_behind_transaction_markers(stack, make_topic, unique_name):
    """An input written by transactions, aborted ones among them, ends with a lag of exactly zero."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "transactional.id": unique_name("feeder")})
    producer.init_transactions(10)
    for abort in (False, True, False, True):
        producer.begin_transaction()
        for _ in range(5):
            producer.produce(source, value=b"aborted" if abort else b"kept")
        producer.flush()
        producer.abort_transaction() if abort else producer.commit_transaction()
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane):
        await until(lambda: lane.copied == 10)
        await until(lambda: all(partition.committed == partition.end > 0 for partition in lane.membership.owned))
    committed, end = (await asyncio.to_thread(committed_and_end, stack.bootstrap_servers, source, group))[0]
    assert committed == end
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"kept"] * 10


class UncheckedOutput(TransactionalOutput):
    """What aiokafka invites to: nobody looks at the sends' futures before the commit."""

    async def _check_sends(self, futures):
        await asyncio.gather(*futures, return_exceptions=True)


@pytest.mark.parametrize(("make_output", "survives"), [(UncheckedOutput, False), (TransactionalOutput, True)])
async def test_a_refused_produce_loses_nothing(stack, make_topic, unique_name, make_output, survives):
    """A record the broker refuses inside a transaction: without the check of sends its offset is committed and the
    record is gone (so the test sees it); with the check the transaction is aborted and the record stays unread."""
    source = make_topic("in", max_message_bytes=100_000)
    target = make_topic("out", max_message_bytes=2_000)
    group = unique_name("group")
    produce(stack.bootstrap_servers, source, [b"x" * 50_000])
    # Uncompressed, or fifty thousand equal letters would fit.
    lane = CopyLane(stack.bootstrap_servers, source, target, group, make_output=make_output, compression="none")
    async with running(lane) as task:
        await until(lambda: task.done() or lane.copied == 1 or bool(lane.failures))
    assert read_all(stack.bootstrap_servers, target) == []
    committed = committed_and_end(stack.bootstrap_servers, source, group)[0][0]
    if survives:
        assert isinstance(lane.failures[0], DeliveryRefused)
        assert "MessageSizeTooLarge" in lane.failures[0].one_line()
        assert "max.message.bytes" in lane.failures[0].one_line()
        assert committed < 1
    else:
        assert committed == 1


async def test_a_fenced_worker_delivers_nothing_and_joins_again(stack, make_topic, unique_name, caplog):
    """Whoever opens the same partition later fences the first: its work is dropped, the process lives on."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane) as task:
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        (old,) = list(lane.membership.owned)
        thief = TransactionalOutput(
            lambda: lane.membership._connection.transactional_producer(f"{group}:{source}:0"), group, 10
        )
        await thief.open()
        with pytest.raises(MembershipLost):
            await old.deliver([Outgoing(target, 0, b"k", b"stale", ())], 2)
        await thief.close()
        produce(stack.bootstrap_servers, source, [b"2"])
        await until(lambda: lane.copied == 2)
        assert lane.membership.lost_count == lane.losses == 1
        assert not task.done()
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2"]
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_losing_membership_too_often_ends_the_worker(stack, make_topic, unique_name):
    """Five losses in ten minutes: the worker hinders the group and ends with status 3."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane) as task:
        for _ in range(5):
            await until(lambda: task.done() or any(p.committed >= 0 for p in lane.membership.owned))
            for partition in list(lane.membership.owned):
                lane.membership.lose(MembershipLost("told so by the test"), partition)
            await asyncio.sleep(0.6)
        await until(task.done)
        error = task.exception()
    assert isinstance(error, MembershipLostTooOften)
    assert error.exit_status == 3


async def test_an_expired_offset_is_never_jumped_over(stack, make_topic, unique_name):
    """Records deleted before they were read stop the worker with the way out; nothing is skipped silently."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"1", b"2", b"3"])
    lane = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(lane):
        await until(lambda: lane.copied == 3)
    produce(stack.bootstrap_servers, source, [b"4", b"5", b"6"])
    async with lane.membership._connection.admin() as admin:
        from aiokafka.admin.records_to_delete import RecordsToDelete
        from aiokafka.structs import TopicPartition

        await admin.delete_records({TopicPartition(source, 0): RecordsToDelete(before_offset=5)})
    again = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(again) as task:
        await until(task.done)
        error = task.exception()
    assert isinstance(error, StartError)
    assert "offset 3" in error.one_line()
    assert again.copied == 0


@pytest.mark.parametrize(("start", "expected"), [("earliest", [b"old", b"new"]), ("latest", [b"new"])])
async def test_a_first_start_begins_where_the_setting_says(stack, make_topic, unique_name, start, expected):
    """Without a committed offset, `kafka.start` decides."""
    source, target = make_topic("in"), make_topic("out")
    produce(stack.bootstrap_servers, source, [b"old"])
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), start=start)
    async with running(lane):
        await until(lambda: any(partition.committed >= 0 for partition in lane.membership.owned))
        produce(stack.bootstrap_servers, source, [b"new"])
        await until(lambda: lane.copied == len(expected))
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == expected


async def test_a_latest_start_counts_from_the_first_start(stack, make_topic, unique_name):
    """With `start = latest`, what arrives while the worker is away is read, even if it had read nothing before."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"old"])
    first = CopyLane(stack.bootstrap_servers, source, target, group, start="latest")
    async with running(first):
        await until(lambda: owns(first))
    produce(stack.bootstrap_servers, source, [b"while away"])
    second = CopyLane(stack.bootstrap_servers, source, target, group, start="latest")
    async with running(second):
        await until(lambda: second.copied == 1, within_s=10)
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"while away"]


async def test_a_loading_coordinator_is_no_first_start(stack, make_topic, unique_name):
    """A coordinator that does not tell the offsets yet is asked again: nothing is copied a second time."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"1", b"2", b"3"])
    first = CopyLane(stack.bootstrap_servers, source, target, group)
    async with running(first):
        await until(lambda: first.copied == 3)
    produce(stack.bootstrap_servers, source, [b"4"])
    second = CopyLane(stack.bootstrap_servers, source, target, group)
    second.membership._connection = LoadingCoordinator(second.membership._connection.kafka)
    async with running(second):
        await until(lambda: second.copied >= 1)
    assert second.membership._connection.silent == 0
    copies = read_all(stack.bootstrap_servers, target)
    assert [message.value() for message in copies] == [b"1", b"2", b"3", b"4"]


class SlowToClose(TransactionalOutput):
    """Its producer takes seconds to close, as one does whose broker is away."""

    async def close(self) -> None:
        await asyncio.sleep(6)
        await super().close()


async def test_a_leaving_worker_opens_nothing(stack, make_topic, unique_name):
    """A rebalance while a worker leaves gives it partitions again: it opens none, since nobody would drop them."""
    source, target, group = make_topic("in", partitions=2), make_topic("out"), unique_name("group")
    leaving = CopyLane(stack.bootstrap_servers, source, target, group, make_output=SlowToClose)
    staying = CopyLane(stack.bootstrap_servers, source, target, group)
    stop = asyncio.Event()
    task = asyncio.create_task(leaving.run(stop))
    await until(lambda: owns(leaving))
    joined = leaving.membership._epoch
    stop.set()
    await until(lambda: not list(leaving.membership.owned))
    async with running(staying):
        await asyncio.wait({task}, timeout=40)
    task.result()
    assert leaving.membership._epoch > joined
    assert not list(leaving.membership.owned)


async def test_a_dead_fetch_task_is_noticed(stack, make_topic, unique_name):
    """When aiokafka's task that fetches dies, the worker joins again, and goes on where it was."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane):
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        lane.membership._consumer._fetcher._get_actions_per_node = None  # its next turn fails
        await until(lambda: lane.losses == 1)
        produce(stack.bootstrap_servers, source, [b"2"])
        await until(lambda: lane.copied == 2)
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2"]


async def test_no_broker_is_said_in_one_line(unique_name):
    """A worker that finds no broker at its start says where it looked."""
    lane = CopyLane("127.0.0.1:1", "in", "out", unique_name("group"))
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1"):
        await lane.run(asyncio.Event())
