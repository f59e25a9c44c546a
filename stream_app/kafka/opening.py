"""Opening one partition, however long Kafka is away meanwhile."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_app.errors import MembershipInterrupted
from stream_app.kafka.refusals import translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from stream_app.kafka.owned import Committed, OwnedPartition

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60.0
"""aiokafka retries a producer's start without limit: after this long a new producer tries."""
PAUSE_MIN_S = 0.5
PAUSE_MAX_S = 15.0


def growing_pauses_s() -> Iterator[float]:
    """0.5 s, 1 s, 2 s and so on to 15 s, without end: a coordinator may be away for minutes."""
    return (min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(tried, 10)) for tried in count())


async def open_partition(
    partition: OwnedPartition, read_committed: Callable[[OwnedPartition], Awaitable[Committed]]
) -> Committed:
    """Fences the previous owner, then reads where its work ended. Tries again for as long as Kafka is away.

    The group keeps its assignment meanwhile: joining anew would only disturb the partitions that are well.
    Raises MembershipLost (somebody else opens the same partition), DeliveryRefused, StartError.
    """
    place = f"{partition.tp.topic}/{partition.number}"
    for pause_s in growing_pauses_s():
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await partition.open_output()
                return await read_committed(partition)
        except TimeoutError:
            why = f"it took longer than {OPEN_TIMEOUT_S:.0f} s"
        except MembershipInterrupted as error:
            why = error.message
        except KafkaError as error:
            told = translate(error, f"opening {place}", partition.tp.topic)
            if not isinstance(told, MembershipInterrupted):
                raise told from error
            why = told.message
        log.warning("%s is not open yet (%s); trying again", place, why)
        await partition.renew_output()
        await asyncio.sleep(pause_s)
    raise AssertionError("the pauses never end")
