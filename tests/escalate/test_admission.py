"""The queue before the gate: fair, without polling, and no wait outlives its deadline."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_app.escalate.admission import Admission, NotAdmitted, PartitionClosing
from stream_app.escalate.budget import NANO
from stream_app.escalate.call_end import Counted
from stream_app.escalate.corrected_rate import CorrectedRate
from stream_app.escalate.endpoint_gate import EndpointGate
from stream_app.escalate.gate import Cost, Gate
from stream_app.escalate.token_bucket import Limits

FREE = Cost(1, 0)


class Lane:
    """An admission with two partitions, and a committer that grants every lease at once, or never."""

    def __init__(self, requests_per_minute=1e6, usd_per_hour=1000.0, commits=True, **gate) -> None:
        limits = Limits(requests_per_minute, 1e9)
        self.gate = Gate((EndpointGate(CorrectedRate(limits, 2)),), usd_per_hour, 10 * usd_per_hour, 2, **gate)
        self.wall_s, self.commits, self.leases = 1_000_000.0, commits, 0
        self.in_doubt = False
        self.admission = Admission(
            self.gate,
            now_s=time.monotonic,
            wall_s=lambda: self.wall_s,
            want_lease=self.commit,
            in_doubt=lambda: self.in_doubt,
        )
        for partition in (0, 1):
            self.admission.gain(partition, None)

    def commit(self, partitions) -> None:
        self.leases += 1
        if self.commits:
            for partition in partitions:
                budget = self.gate.budgets[partition]
                budget.committed(budget.authority_of(budget.lease(self.wall_s)))
            asyncio.get_running_loop().call_soon(self.admission.pump)

    async def reserve(self, partition=0, cost=FREE, within_s=5.0, first=False):
        return await self.admission.reserve(partition, [cost], self.admission.running_s + within_s, first=first)


async def test_calls_go_in_the_order_they_came_and_retries_first():
    """First in, first out; a retry stands at the head."""
    lane, order = Lane(requests_per_minute=1200), []  # ten a second and partition

    async def one(name: str, *, first: bool = False) -> None:
        await lane.reserve(first=first)
        order.append(name)

    await asyncio.sleep(0.11)
    tasks = [asyncio.create_task(one(str(number))) for number in range(12)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(one("retry", first=True)))
    await asyncio.gather(*tasks)
    started = order.index("retry")
    assert [name for name in order if name != "retry"] == [str(number) for number in range(12)]
    assert started <= 3


async def test_a_busy_partition_spends_what_the_others_do_not():
    """With two partitions owned, one alone gets the rate of both."""
    lane = Lane(requests_per_minute=61 * 20)  # ten a second and partition, twenty together
    began_s = time.monotonic()
    for _ in range(30):
        await lane.reserve(0)
    assert time.monotonic() - began_s < 2.9  # alone it would be three seconds


async def test_a_wait_ends_at_its_deadline():
    """Nobody waits longer than its deadline, wherever it stands in the queue."""
    lane = Lane(requests_per_minute=1)
    began_s = time.monotonic()
    found = await asyncio.gather(*(lane.reserve(within_s=0.3) for _ in range(5)), return_exceptions=True)
    assert [str(one) for one in found] == ["deadline"] * 5
    assert 0.29 < time.monotonic() - began_s < 10  # a turn would come after a minute
    with pytest.raises(NotAdmitted):
        await lane.reserve(within_s=0.0)


async def test_waiting_for_an_outage_by_choice_stops_the_deadlines():
    """With `on_outage = wait` an event waits as long as the outage lasts, its own time standing still."""
    lane = Lane()
    await lane.reserve()
    lane.gate.endpoints[0].breaker.failed(time.monotonic(), probe=False, at_once=True)
    waiting = asyncio.create_task(lane.reserve(within_s=0.3))
    await asyncio.sleep(0.6)
    assert not waiting.done()
    assert lane.admission.waits_for == "the LLM"
    grant = await waiting  # the probe, after the cool-down of one second
    assert grant.probe
    lane.gate.endpoints[0].breaker.answered()
    lane.admission.settle(grant, Counted(1), 0)
    assert lane.admission.waits_for is None


async def test_an_outage_that_is_not_waited_for_is_told_at_once():
    """With `on_outage = degrade` nobody waits for an endpoint that is away."""
    lane = Lane(on_outage="degrade")
    lane.gate.endpoints[0].breaker.failed(time.monotonic(), probe=False, at_once=True)
    with pytest.raises(NotAdmitted, match="outage"):
        await lane.reserve()


async def test_an_exhausted_budget_waits_for_the_next_hour_or_says_so():
    """`wait` goes on when the hour turns; `degrade` is told at once. Both spend their whole share first."""
    cost = Cost(1, NANO // 4)
    for when in ("wait", "degrade"):
        lane = Lane(usd_per_hour=1.0, on_budget=when)
        for _ in range(4):  # two calls of a quarter dollar in each partition's half dollar
            grant = await lane.reserve(cost=cost)
            lane.admission.settle(grant, Counted(1), cost.nusd)
        if when == "degrade":
            with pytest.raises(NotAdmitted, match="budget"):
                await lane.reserve(cost=cost)
            continue
        waiting = asyncio.create_task(lane.reserve(cost=cost, within_s=0.1))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert lane.admission.waits_for == "budget"
        lane.wall_s += 3_600
        lane.admission.pump()
        await asyncio.wait_for(waiting, 1)


async def test_no_call_starts_before_its_lease_is_committed():
    """The first call of a partition asks for a lease and waits for the commit."""
    lane = Lane(commits=False)
    waiting = asyncio.create_task(lane.reserve(cost=Cost(1, 1_000)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert lane.leases > 0
    lane.commits = True
    lane.commit((0, 1))
    await asyncio.wait_for(waiting, 1)


async def test_a_partition_that_closes_lets_nobody_through():
    """Waiters and those who sleep between two tries are told at once; other partitions go on."""
    lane = Lane(requests_per_minute=2)
    waiting = asyncio.create_task(lane.reserve(0))
    resting = asyncio.create_task(lane.admission.rest(0, 30))
    await asyncio.sleep(0.01)
    lane.admission.stop(0)
    for task in (waiting, resting):
        with pytest.raises(PartitionClosing):
            await asyncio.wait_for(task, 0.5)
    with pytest.raises(PartitionClosing):
        await lane.reserve(0)
    lane.admission.lose(0)
    with pytest.raises(NotAdmitted):  # still open, only slow
        await lane.reserve(1, within_s=0.05)


async def test_a_cancelled_waiter_gives_back_what_it_was_just_granted():
    """Cancelled between the grant and its use: nothing stays set aside."""
    lane = Lane(commits=True)
    task = asyncio.create_task(lane.reserve(cost=Cost(1, 5_000)))
    for _ in range(10):
        await asyncio.sleep(0)
        if any(budget.reserved_nusd for budget in lane.gate.budgets.values()):
            break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(budget.reserved_nusd for budget in lane.gate.budgets.values())
    assert lane.gate.endpoints[0].rate.shares.in_flight == 0


async def test_the_end_of_an_old_call_leaves_a_regained_partition_alone():
    """A partition lost and gained again has a new account; the old call settles with the old one."""
    lane = Lane()
    grant = await lane.reserve(cost=Cost(10, 5_000))
    for partition in (0, 1):
        lane.admission.lose(partition)
        lane.admission.gain(partition, None)
    lane.admission.settle(grant, Counted(0), 5_000)
    assert all(budget.reserved_nusd == 0 == budget.settled_hour_nusd for budget in lane.gate.budgets.values())


async def test_a_call_that_no_hour_could_pay_does_not_wait_for_one():
    """Even with `on_budget = wait`: it would wait for ever."""
    lane = Lane(usd_per_hour=1.0)
    with pytest.raises(NotAdmitted, match="budget"):
        await lane.reserve(cost=Cost(1, NANO))


async def test_nobody_gets_a_turn_while_membership_is_in_doubt():
    """After a stall the partitions may be another worker's: a call now would be paid in vain. Later it goes."""
    lane = Lane()
    lane.in_doubt = True
    waiting = asyncio.create_task(lane.reserve())
    await asyncio.sleep(0.5)
    assert not waiting.done()
    lane.in_doubt = False
    await asyncio.wait_for(waiting, 2)


async def test_a_spare_call_goes_when_nobody_else_waits_and_the_bucket_is_full():
    """Parked events take what would run over: whoever comes next finds all but that one call."""
    lane = Lane(requests_per_minute=61 * 20)  # ten a second and partition: the bucket holds twenty
    waiting = [asyncio.create_task(spare(lane)) for _ in range(40)]
    await asyncio.sleep(1.5)
    gone = sum(task.done() for task in waiting)
    assert 1 <= gone <= 15
    coming = [asyncio.create_task(lane.reserve()) for _ in range(15)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert all(task.done() for task in coming)
    for task in waiting:
        task.cancel()


async def test_a_spare_call_goes_behind_all_others_however_long_it_waits():
    """It was there first, and goes last; a retry of its own stands before its like only."""
    lane, order = Lane(requests_per_minute=1200), []

    async def one(name: str, *, spare: bool) -> None:
        await lane.admission.reserve(0, [FREE], lane.admission.running_s + 5, first=False, spare=spare)
        order.append(name)

    tasks = [asyncio.create_task(one("spare", spare=True))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(one(str(number), spare=False)) for number in range(12)]
    await asyncio.gather(*tasks)
    assert order == [*map(str, range(12)), "spare"]


async def test_a_spare_call_never_waits_for_an_outage_or_for_budget():
    """It has another time; so it stops no clock, and what others wait for is told as before."""
    lane = Lane(usd_per_hour=1.0)
    with pytest.raises(NotAdmitted, match="budget"):
        await spare(lane, Cost(1, NANO))
    lane.gate.endpoints[0].breaker.failed(time.monotonic(), probe=False, at_once=True)
    with pytest.raises(NotAdmitted, match="outage"):
        await spare(lane)
    assert not lane.admission.queued


async def test_a_spare_call_of_a_partition_that_closes_is_told_at_once():
    """As all others are: its next owner asks."""
    lane = Lane(requests_per_minute=2)
    waiting = asyncio.create_task(spare(lane))
    await asyncio.sleep(0.01)
    assert lane.admission.owns(0)
    lane.admission.stop(0)
    assert not lane.admission.owns(0)
    with pytest.raises(PartitionClosing):
        await asyncio.wait_for(waiting, 0.5)


async def test_spare_calls_that_wait_give_way_when_they_are_told():
    """Those for parked events end as at their deadline, and hold nothing any more; the others wait on."""
    lane = Lane(requests_per_minute=2)
    parked = [asyncio.create_task(spare(lane)) for _ in range(3)]
    other = asyncio.create_task(lane.reserve())
    await asyncio.sleep(0)
    lane.admission.give_way()
    for task in parked:
        with pytest.raises(NotAdmitted, match="deadline"):
            await asyncio.wait_for(task, 0.5)
    assert not other.done()
    other.cancel()


async def spare(lane: Lane, cost: Cost = FREE):
    return await lane.admission.reserve(0, [cost], lane.admission.running_s + 5, first=False, spare=True)
