"""A group's offsets are told whole, or asked for again: half an answer must not pass for a group that begins."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    GroupAuthorizationFailedError,
    NoError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream_app.kafka import group_offsets
from stream_app.kafka.admin import lane_lag
from stream_app.kafka.group_offsets import stored_offsets
from stream_app.settings import Kafka
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce
from tests.kafka.running import LoadingCoordinator, running, until

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)
WHOLE = {FIRST: OffsetAndMetadata(7, "noted"), SECOND: OffsetAndMetadata(-1, "")}


class Admin:
    """Gives one answer after the other, as aiokafka's admin client does in a failover."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    async def list_consumer_group_offsets(self, group, partitions):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_half_an_answer_is_asked_for_again(monkeypatch):
    """An empty answer, one partition missing, a coordinator that loads, an error raised as none: asked again."""
    monkeypatch.setattr(group_offsets, "ASK_AGAIN_S", 0)
    admin = Admin({}, CoordinatorLoadInProgressError(), {FIRST: WHOLE[FIRST]}, NoError("of a partition"), WHOLE)
    assert await stored_offsets(admin, "group", [FIRST, SECOND]) == WHOLE
    assert admin.answers == []


async def test_a_right_that_is_missing_is_not_asked_for_again():
    """What will not pass is raised at once."""
    with pytest.raises(GroupAuthorizationFailedError):
        await stored_offsets(Admin(GroupAuthorizationFailedError()), "group", [FIRST])


async def test_a_lag_is_never_read_off_half_an_answer(stack, make_topic, unique_name):
    """While the coordinator loads, a lane that has done all is not shown as one that has done nothing."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    produce(stack.bootstrap_servers, source, [b"1", b"2", b"3"])
    lane = CopyLane(stack.bootstrap_servers, source, target, f"{group}-copy")
    async with running(lane):
        await until(lambda: lane.copied == 3)
    connection = LoadingCoordinator(Kafka(bootstrap_servers=stack.bootstrap_servers, group=group, input_topic=source))
    async with asyncio.timeout(30):
        told = await lane_lag(connection, "copy", source, 1)
    assert (told.records, told.started) == (0, True)
