"""Kafka goes away and comes back: a worker waits for it, ends when it is told to, and counts no loss."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import ClassVar

import aiokafka.errors as kafka_errors
import pytest

from stream_app.errors import DeliveryRefused, MembershipInterrupted, MembershipLost
from stream_app.kafka import opening
from stream_app.kafka.connection import Connection
from stream_app.kafka.opening import growing_pauses_s
from stream_app.kafka.transactions import TransactionalOutput, translate
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce, read_all
from tests.kafka.running import owns, running, until


@contextmanager
def kafka_stands_still(stack):
    """The broker is stopped where it stands (SIGSTOP): connections stay open, nobody answers."""
    stack.pause_broker(1)
    try:
        yield
    finally:
        stack.continue_broker(1)


class StopsKafka(Connection):
    """Stops the broker just before the consumer asks the group for its first assignment."""

    def __init__(self, kafka, stack, *, after_metadata: bool) -> None:
        super().__init__(kafka)
        self._stack = stack
        self._after_metadata = after_metadata
        self.stopped = asyncio.Event()

    def stop_it(self) -> None:
        self._stack.pause_broker(1)
        self.stopped.set()

    async def start(self, client) -> None:
        if not self._after_metadata:
            self.stop_it()
        else:
            wait_topics = client._wait_topics

            async def then_stop_it() -> None:
                await wait_topics()
                self.stop_it()

            client._wait_topics = then_stop_it
        await super().start(client)


@pytest.mark.parametrize("after_metadata", [False, True])
async def test_a_worker_told_to_stop_before_its_first_assignment_ends(stack, make_topic, unique_name, after_metadata):
    """SIGTERM while a worker waits for its first assignment, and Kafka is away: it ends promptly, with no error."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"))
    connection = lane.membership._connection = StopsKafka(
        lane.membership._connection.kafka, stack, after_metadata=after_metadata
    )
    stop = asyncio.Event()
    task = asyncio.create_task(lane.run(stop))
    try:
        await asyncio.wait_for(connection.stopped.wait(), 20)
        await asyncio.sleep(1)
        stop.set()
        done, _ = await asyncio.wait({task}, timeout=15)
    finally:
        stack.continue_broker(1)
    assert done
    task.result()
    assert not list(lane.membership.owned)


async def test_a_joined_worker_told_to_stop_while_kafka_is_away_ends(stack, make_topic, unique_name):
    """The same for a worker that owns partitions and has a transaction in flight: within its drain time."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), drain_timeout_s=10.0)
    produce(stack.bootstrap_servers, source, [b"1"])
    stop = asyncio.Event()
    task = asyncio.create_task(lane.run(stop))
    await until(lambda: lane.copied == 1)
    with kafka_stands_still(stack):
        (partition,) = lane.membership.owned
        lane.tasks[partition] = asyncio.create_task(lane._commit_position(partition))
        await asyncio.sleep(1)
        began = time.monotonic()
        stop.set()
        done, _ = await asyncio.wait({task}, timeout=20)
        took_s = time.monotonic() - began
    assert done
    task.result()
    assert took_s < 12


async def test_an_outage_is_no_lost_membership(stack, make_topic, unique_name):
    """Kafka stands still for longer than transactions and the session may take: the worker goes on, uncounted."""
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), transaction_timeout_ms=2_000)
    async with running(lane) as task:
        produce(stack.bootstrap_servers, source, [b"1"])
        await until(lambda: lane.copied == 1)
        with kafka_stands_still(stack):
            (partition,) = lane.membership.owned
            with pytest.raises(MembershipInterrupted):
                await partition.deliver([], partition.position)
            await asyncio.sleep(5)
        await asyncio.to_thread(produce, stack.bootstrap_servers, source, [b"2"])
        await until(lambda: lane.copied == 2, within_s=60)
        assert lane.losses >= 1
        assert lane.membership.lost_count == 0
        assert not task.done()
    assert [message.value() for message in read_all(stack.bootstrap_servers, target)] == [b"1", b"2"]


class NoCoordinator(TransactionalOutput):
    """Its coordinator is away for the first openings: it says so, or says nothing."""

    away: ClassVar = ["hangs", "refuses", "refuses", "refuses", "refuses", "hangs", "refuses"]

    async def open(self) -> None:
        if self.away:
            if self.away.pop() == "hangs":
                await asyncio.Event().wait()
            raise translate(kafka_errors.CoordinatorNotAvailableError(), "opening")
        await super().open()


async def test_an_opening_outlives_its_coordinators_absence(stack, make_topic, unique_name, monkeypatch):
    """A partition whose coordinator is away is tried again, within the same membership, for as long as it takes."""
    monkeypatch.setattr(opening, "OPEN_TIMEOUT_S", 0.3)
    monkeypatch.setattr(opening, "PAUSE_MAX_S", 0.5)
    source, target = make_topic("in"), make_topic("out")
    produce(stack.bootstrap_servers, source, [b"1"])
    lane = CopyLane(stack.bootstrap_servers, source, target, unique_name("group"), make_output=NoCoordinator)
    async with running(lane):
        await until(lambda: owns(lane) or lane.losses > 0 or not NoCoordinator.away)
        monkeypatch.setattr(opening, "OPEN_TIMEOUT_S", 60)
        await until(lambda: lane.copied == 1)
        assert not NoCoordinator.away
        assert lane.losses == lane.membership.lost_count == 0
        assert lane.membership._epoch == 1


def wrapped(cause: Exception) -> kafka_errors.KafkaError:
    """What aiokafka's sender makes of an answer that it did not expect."""
    error = kafka_errors.KafkaError("Unexpected error during batch delivery")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka_errors.ProducerFenced(), MembershipLost),
        (kafka_errors.InvalidProducerEpoch(), MembershipLost),
        (kafka_errors.InvalidTxnState(), MembershipLost),
        (kafka_errors.UnknownMemberIdError(), MembershipLost),
        (kafka_errors.IllegalOperation(), MembershipLost),
        (AssertionError(), MembershipLost),
        (kafka_errors.CoordinatorNotAvailableError(), MembershipInterrupted),
        (kafka_errors.CoordinatorLoadInProgressError(), MembershipInterrupted),
        (kafka_errors.NotCoordinatorError(), MembershipInterrupted),
        (kafka_errors.KafkaConnectionError(), MembershipInterrupted),
        (kafka_errors.KafkaTimeoutError(), MembershipInterrupted),
        (kafka_errors.RequestTimedOutError(), MembershipInterrupted),
        (kafka_errors.NotEnoughReplicasError(), MembershipInterrupted),
        (kafka_errors.KafkaError("GroupLoadInProgressError()"), MembershipInterrupted),
        (wrapped(kafka_errors.CoordinatorLoadInProgressError()), MembershipInterrupted),
        (wrapped(ConnectionResetError()), MembershipInterrupted),
        (wrapped(kafka_errors.InvalidTxnState()), MembershipLost),
        (wrapped(kafka_errors.InvalidProducerIdMapping()), MembershipLost),
        (wrapped(KeyError("a bug")), MembershipLost),
        (wrapped(kafka_errors.OffsetMetadataTooLargeError()), DeliveryRefused),
        (kafka_errors.InvalidSessionTimeoutError(), DeliveryRefused),
        (kafka_errors.InconsistentGroupProtocolError(), DeliveryRefused),
        (kafka_errors.TopicAuthorizationFailedError(), DeliveryRefused),
    ],
)
def test_only_fencing_and_expulsion_count_as_losses(error, expected):
    """A broker or coordinator that is away counts for nothing; who was fenced or expelled counts."""
    assert type(translate(error, "testing")) is expected


def test_pauses_grow_and_are_bounded():
    """Half a second at first, a quarter of a minute at last."""
    pauses = growing_pauses_s()
    assert [next(pauses) for _ in range(8)] == [0.5, 1, 2, 4, 8, 15, 15, 15]
