"""Where a group begins that has committed nothing yet: at the beginnings or the ends, as `kafka.start` says.

That is committed for all partitions in one transaction, or for none, before the first record. So a start that is
repeated begins at the same place: with `latest` not at an end that has moved on, with `earliest` not behind records
that expired meanwhile. And a partition without a commit, in a group that has some, can only have been added later:
it is read from its beginning, and what was written to it before anybody noticed is not skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Literal, cast

from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from stream_app.kafka.group_offsets import ASK_AGAIN_S, stored_offsets
from stream_app.kafka.refusals import LOST

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import TopicPartition

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


async def found(
    producer: AIOKafkaProducer,
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    partitions: Collection[TopicPartition],
    start: Literal["earliest", "latest"],
) -> None:
    """Commits the present beginning or end of every partition, unless the group has committed anything by then.

    `producer` is not started; its transactional id is the group's one for this: of workers that begin at the same
    time each fences the last, and finds all of its commits or none. Raises KafkaError; the caller sets the deadline.
    """
    try:
        await producer.start()
        stored = await stored_offsets(admin, group, partitions)
        if all(told.offset < 0 for told in stored.values()):
            places = consumer.beginning_offsets if start == "earliest" else consumer.end_offsets
            first = await places(list(partitions))
            async with producer.transaction():
                offsets = {tp: OffsetAndMetadata(offset, "") for tp, offset in first.items()}
                await producer.send_offsets_to_transaction(cast("Any", offsets), group)
            log.info("group %s begins at the %s offsets: %s", group, start, first)
    except (*LOST, AssertionError):  # AssertionError: aiokafka's state table
        await asyncio.sleep(ASK_AGAIN_S)  # another worker is at it: its commits will be found
    finally:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await producer.stop()
