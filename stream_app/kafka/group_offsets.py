"""What a group has committed, and where a partition's work begins by it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from stream_app.errors import StartError
from stream_app.kafka.owned import Committed

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata, TopicPartition

log = logging.getLogger(__name__)

ASK_AGAIN_S = 0.5


async def stored_offset(admin: AIOKafkaAdminClient, group: str, tp: TopicPartition) -> OffsetAndMetadata:
    """What the group has committed of `tp`, offset -1 where nothing; the caller sets the deadline.

    aiokafka looks past an error about the whole group (its coordinator is loading, or has moved): the answer
    then names no partition at all, which must not pass for a group that begins.
    """
    while (stored := (await admin.list_consumer_group_offsets(group, partitions=[tp])).get(tp)) is None:
        log.warning("group %s: its coordinator does not tell the offset of %s yet", group, tp)
        await asyncio.sleep(ASK_AGAIN_S)
    return stored


async def standing(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, group: str, tp: TopicPartition
) -> Committed | None:
    """Where the group stands in `tp`; None where it has committed nothing. StartError if that offset is gone."""
    stored = await stored_offset(admin, group, tp)
    if stored.offset < 0:
        return None
    first = (await consumer.beginning_offsets([tp]))[tp]
    if stored.offset < first:
        raise StartError(
            f"group {group}: offset {stored.offset} of {tp.topic}/{tp.partition} has expired, "
            f"the topic begins at {first}",
            advice="records were deleted unread: set the group's offset by hand, knowing what is skipped",
        )
    return Committed(stored.offset, stored.metadata or "")
