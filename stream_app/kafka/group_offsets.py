"""What a group has committed, and where it stands in a partition by that."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, NoError

from stream_app.errors import StartError
from stream_app.kafka.owned import Committed

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata, TopicPartition

log = logging.getLogger(__name__)

ASK_AGAIN_S = 0.5
ENDS_ASKED_MAX = 6
"""A new leader may tell an old end for a moment: an end is believed when it stands for 3 s."""


async def stored_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed of each of `partitions`, offset -1 where nothing; the caller sets the deadline.

    aiokafka looks past an error about the whole group (its coordinator is loading, or has moved): the answer
    then names no partition at all, which must not pass for a group that begins. And an error about a partition
    it raises as NoError.
    """
    wanted = list(partitions)
    while True:
        try:
            stored = await admin.list_consumer_group_offsets(group, partitions=wanted)
        except KafkaError as error:
            if not (error.retriable or isinstance(error, NoError)):
                raise
        else:
            if stored.keys() >= set(wanted):
                return stored
        log.warning("group %s: its coordinator does not tell its offsets yet", group)
        await asyncio.sleep(ASK_AGAIN_S)


async def standing(
    consumer: AIOKafkaConsumer, group: str, tp: TopicPartition, stored: OffsetAndMetadata
) -> Committed | None:
    """Where the group stands in `tp`; None where it has committed nothing. StartError if that offset is gone."""
    if stored.offset < 0:
        return None
    first = (await consumer.beginning_offsets([tp]))[tp]
    if stored.offset < first:
        raise StartError(
            f"group {group}: offset {stored.offset} of {tp.topic}/{tp.partition} has expired, "
            f"the topic begins at {first}",
            advice="records were deleted unread: set the group's offset by hand, knowing what is skipped",
        )
    if stored.offset > (end := await _end(consumer, tp, stored.offset)):
        raise StartError(
            f"group {group}: offset {stored.offset} of {tp.topic}/{tp.partition} lies beyond its end ({end})",
            advice="the topic was made anew, or its newest records were lost (unclean leader election): set the "
            "group's offset by hand, knowing what is skipped",
        )
    return Committed(stored.offset, stored.metadata or "")


async def _end(consumer: AIOKafkaConsumer, tp: TopicPartition, at_least: int) -> int:
    """The partition's end; one before `at_least` is asked for again some times."""
    end = -1
    for _ in range(ENDS_ASKED_MAX):
        end = (await consumer.end_offsets([tp]))[tp]
        if end >= at_least:
            break
        await asyncio.sleep(ASK_AGAIN_S)
    return end
