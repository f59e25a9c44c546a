"""A worker whose event loop stood still starts nothing before the group has confirmed it."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator

from stream_app.kafka.stalls import StallWatch
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce, read_all
from tests.kafka.running import owns, running, until


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Coordinator:
    """Answers heartbeats as the test says."""

    def __init__(self) -> None:
        self.well = True
        self.during = lambda: None

    async def _do_heartbeat(self) -> bool:
        self.during()
        return self.well


class Consumer:
    """What `listen` needs of a consumer."""

    def __init__(self) -> None:
        self._coordinator = Coordinator()


async def test_a_gap_is_doubted_until_a_later_heartbeat_is_answered_well():
    """Neither time, nor a heartbeat that fails, nor one sent before the gap, restores trust."""
    clock, consumer = Clock(), Consumer()
    watch = StallWatch(5.0, clock)
    watch.listen(consumer)
    coordinator = consumer._coordinator
    clock.s += 4.9
    assert not watch.in_doubt
    clock.s += 5.1
    assert watch.in_doubt
    clock.s += 1
    assert watch.in_doubt
    coordinator.well = False
    assert not await coordinator._do_heartbeat()
    assert watch.in_doubt
    coordinator.well = True

    def stand_still() -> None:
        clock.s += 20

    coordinator.during = stand_still
    assert await coordinator._do_heartbeat()
    assert watch.in_doubt
    coordinator.during = lambda: None
    assert await coordinator._do_heartbeat()
    assert not watch.in_doubt


@pytest.mark.parametrize("blocked_s", [3.5, 8.0])
async def test_a_blocked_worker_starts_nothing_before_a_heartbeat(
    stack, make_topic, unique_name, monkeypatch, blocked_s
):
    """After a gap of more than half the session no record arrives before a heartbeat; then all is copied once.

    Beyond the session (6 s) the worker has been expelled, and has joined again without a loss.
    """
    may_beat = asyncio.Event()
    may_beat.set()
    beat = GroupCoordinator._do_heartbeat

    async def held_beat(self) -> bool:
        await may_beat.wait()
        return await beat(self)

    monkeypatch.setattr(GroupCoordinator, "_do_heartbeat", held_beat)
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    arrivals = []
    arrived = lane.arrived
    lane.arrived = lambda partition, records: (arrivals.append(time.monotonic()), arrived(partition, records))
    async with running(lane) as task:
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        may_beat.clear()
        produce(stack.bootstrap_servers, source, [b"2"])
        time.sleep(blocked_s)
        known = len(arrivals)
        await asyncio.sleep(1)
        assert len(arrivals) == known
        may_beat.set()
        await until(lambda: lane.copied == 2)
        assert lane.membership.lost_count == 0
        assert not task.done()
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2"]


async def test_a_stalled_worker_opens_and_delivers_nothing_before_a_heartbeat(stack, make_topic, unique_name):
    """A partition given before the gap is not opened (that would fence its healthy owner), none delivered."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    watch = lane.membership._watch
    watch._trusted.clear()
    watch.listen = lambda _consumer: None
    async with running(lane):
        await until(lambda: bool(list(lane.membership.owned)))
        await asyncio.sleep(1)
        assert not owns(lane)
        watch._trusted.set()
        await until(lambda: owns(lane))
        (partition,) = lane.membership.owned
        watch._trusted.clear()
        delivering = asyncio.create_task(partition.deliver([], 0))
        await asyncio.sleep(1)
        assert not delivering.done()
        watch._trusted.set()
        await asyncio.wait_for(delivering, 10)
