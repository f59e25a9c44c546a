"""Where a group begins that has committed nothing yet: at the beginnings or the ends, as `kafka.start` says.

That is committed for all partitions of all its topics in one transaction, or for none, before the first record. So a
start that is repeated begins at the same place: with `latest` not at an end that has moved on, with `earliest` not
behind records that expired meanwhile. And a partition without a commit, in a group that has some, can only have been
added later: it is read from its beginning, and what was written to it before anybody noticed is not skipped.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

from stream_app.errors import MembershipLost
from stream_app.kafka.group_offsets import ASK_AGAIN_S, stored_offsets

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import TopicPartition

    from stream_app.kafka.transactions import TransactionalOutput

log = logging.getLogger(__name__)


async def found(
    output: TransactionalOutput,
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    partitions: Collection[TopicPartition],
    start: Literal["earliest", "latest"],
) -> None:
    """Commits the present beginning or end of every partition, unless the group has committed anything by then.

    `output` is not opened, and is closed here; its transactional id is the group's one for this: of workers that
    begin at the same time each fences the last, and finds all of its commits or none. Returns also where it could
    not be done now: look again. Raises KafkaError or DeliveryRefused; the caller sets the deadline.
    """
    try:
        await output.open()
        stored = await stored_offsets(admin, group, partitions)
        if all(told.offset < 0 for told in stored.values()):
            places = consumer.beginning_offsets if start == "earliest" else consumer.end_offsets
            first = await places(list(partitions))
            await output.commit_offsets(first)
            log.info("group %s begins at the %s offsets: %s", group, start, first)
    except MembershipLost:
        await asyncio.sleep(ASK_AGAIN_S)  # another worker is at it, or Kafka was away
    finally:
        await output.close()
