"""A command that sends, each thing once, however often it is run, killed, or run twice at a time.

1. The producer opens. Its transactional id belongs to what is sent, so another run that still goes on is fenced from
   now on, and what it left open is aborted.
2. A first transaction writes opening records to the topic that tells what was sent before. Who reads that topic until
   they come knows all that was ever committed, and nobody else can commit more.
3. Each further transaction holds what is sent and the word that it was, so both count or neither.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stream_app.errors import MembershipInterrupted, MembershipLost, ShuntError
from stream_app.events import Outgoing
from stream_app.kafka.transactions import BATCH_BYTES_MAX, TransactionalOutput

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Sequence

    from aiokafka.structs import TopicPartition

    from stream_app.kafka.connection import Connection
    from stream_app.kafka.topics import TopicFound

OPEN_WITHIN_S = 60.0
"""An earlier run's transaction is aborted, and its markers written, before ours may begin."""
OPENED = b"opened"
"""Key of the records with which a run begins. Who reads the topic otherwise passes over them."""


class SendingOutput(TransactionalOutput):
    """A transactional producer that consumes nothing: what was sent stands on one of the topics, not in offsets.

    `sent` counts what the command tells as sent.
    """

    def __init__(self, connection: Connection, name: str, about: str, topics: Collection[TopicFound]) -> None:
        """`topics` are those that are written to; `name` is the transactional id, `about` what errors name."""
        self._about = about
        self.sent = 0
        batch_bytes_max = min([BATCH_BYTES_MAX, *(topic.message_bytes_max for topic in topics)])
        super().__init__(
            lambda: connection.transactional_producer(name, batch_bytes_max),
            "",
            connection.kafka.transaction_timeout_ms / 1000 * 2,
            [tp for topic in topics for tp in topic.each_partition],
        )

    async def begin(self, places: Iterable[TopicPartition]) -> bytes:
        """Opens, and writes an opening record to each of the places; gives the value of those.

        Raises as `open` and `publish` do, MembershipInterrupted where opening takes too long.
        """
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self.open()
        except TimeoutError as error:
            raise MembershipInterrupted(f"opening the producer took longer than {OPEN_WITHIN_S:.0f} s") from error
        opened = uuid.uuid4().hex.encode()
        await self.deliver([Outgoing(place.topic, place.partition, OPENED, opened, ()) for place in places])
        return opened

    async def deliver(self, outgoing: Sequence[Outgoing]) -> None:
        """All of `outgoing` or nothing. Raises as `publish` does."""
        await self.publish(outgoing, f"sending {len(outgoing)} records {self._about}")


@asynccontextmanager
async def sent_once(output: SendingOutput, another: str) -> AsyncGenerator[None]:
    """Closes the output, and says in words what ended it. `another` is what may have begun meanwhile.

    Raises ShuntError, which says what to do: another run took over, or Kafka was away.
    """
    try:
        yield
    except MembershipInterrupted as error:
        raise ShuntError(
            f"Kafka did not answer in time, after {output.sent:,} were sent ({error.message})",
            advice="run the same command again: nothing is sent twice",
        ) from error
    except MembershipLost as error:
        raise ShuntError(
            f"{another} has begun, or this one stood still for too long; it sent {output.sent:,}",
            advice="run the same command again when no other runs: nothing is sent twice",
        ) from error
    finally:
        await output.close()
