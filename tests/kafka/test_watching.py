"""What can go wrong inside aiokafka without a word is seen all the same."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from stream_app.errors import DeliveryRefused
from stream_app.kafka import membership as membership_module
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce, read_all
from tests.kafka.running import let_joins_hang, owns, running, until


async def test_a_group_error_is_seen_while_all_is_paused(stack, make_topic, unique_name):
    """The group refuses this worker while every partition is paused: within about a second it is known."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane) as task:
        await until(lambda: owns(lane))
        for partition in lane.membership.owned:
            partition.pause()
        await asyncio.sleep(1)

        async def refused() -> bool:
            raise GroupAuthorizationFailedError("group")

        lane.membership._consumer._coordinator._do_heartbeat = refused
        await until(task.done, within_s=5)  # a heartbeat is due within 1.2 s
        assert isinstance(task.exception(), DeliveryRefused)


@pytest.mark.parametrize("kind", [KafkaError, asyncio.CancelledError])
async def test_a_dead_coordination_is_seen_while_all_is_paused(stack, make_topic, unique_name, kind):
    """aiokafka's coordination dies, or is cancelled from within: the worker joins again and goes on."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane):
        await until(lambda: owns(lane))
        for partition in lane.membership.owned:
            partition.pause()
        await asyncio.sleep(1)
        coordinator = lane.membership._consumer._coordinator

        async def dies() -> None:
            raise kind

        coordinator.ensure_coordinator_known = dies
        coordinator.coordinator_dead()
        await until(lambda: lane.losses == 1, within_s=10)
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1"]


async def test_a_join_that_hangs_is_given_up(stack, make_topic, unique_name, monkeypatch):
    """A rebalance that aiokafka never ends is noticed by the clock: the worker joins with a new consumer."""
    monkeypatch.setattr(membership_module, "JOIN_SLACK_S", -9.0)
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    async with running(lane):
        await until(lambda: owns(lane))
        let_joins_hang(lane)
        await until(lambda: lane.losses == 1)
        monkeypatch.setattr(membership_module, "JOIN_SLACK_S", 60.0)
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        assert lane.membership.lost_count == 0


class SlowToOpen(TransactionalOutput):
    """Its coordinator takes seconds to answer."""

    async def open(self) -> None:
        await asyncio.sleep(3)
        await super().open()


async def test_an_opening_does_not_keep_the_broker_busy(stack, make_topic, unique_name):
    """While a partition without a committed offset opens, aiokafka does not ask for a position over and over."""
    source, target = make_topic("in"), make_topic("out")
    produce(stack.bootstrap_servers, source, [b"1"])
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), make_output=SlowToOpen)
    async with running(lane):
        await until(lambda: bool(list(lane.membership.owned)))
        coordinator = lane.membership._consumer._coordinator
        asked, ask = [], coordinator._do_fetch_commit_offsets

        async def counted(partitions):
            asked.append(partitions)
            return await ask(partitions)

        coordinator._do_fetch_commit_offsets = counted
        await until(lambda: lane.copied == 1)
    assert len(asked) <= 2


class RefusesToBeMade(TransactionalOutput):
    """Cannot even be made."""

    def __init__(self, *args) -> None:
        raise TypeError("told so by the test")


async def test_an_error_in_a_callback_ends_the_worker(stack, make_topic, unique_name):
    """aiokafka logs and drops what a rebalance callback raises: the worker must not idle on with nothing open."""
    lane = CopyLane(
        stack.bootstrap_servers,
        make_topic("in"),
        make_topic("out"),
        unique_name("group"),
        make_output=RefusesToBeMade,
    )
    async with running(lane) as task:
        await until(task.done, within_s=15)
        assert isinstance(task.exception(), TypeError)


async def test_a_worker_that_leaves_in_a_rebalance_says_so(stack, make_topic, unique_name):
    """Told to stop while its join hangs, a worker still leaves the group: the next need not wait for its session."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    first, second = (
        CopyLane(stack.bootstrap_servers, source, target, group, session_timeout_ms=60_000) for _ in range(2)
    )
    async with running(first):
        await until(lambda: owns(first))
        let_joins_hang(first)
        await until(lambda: not list(first.membership.owned))
    async with running(second):
        await until(lambda: owns(second), within_s=30)
