"""Whether the last transaction of a producer has ended with its markers (`hanging`), before the next one begins.

The next one's first request is refused by the coordinator until the last one is complete, so whoever sends it soon
enough on the same connection has the proof with the answer. Where no next one comes soon, the coordinator is asked
by itself. And no request that adds to a transaction leaves on another connection: even an abort would then end what
the last one has left.

aiokafka shows nobody its coordinators, and asks nobody before a request leaves: hence its private names here
(`noqa: SLF001`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from aiokafka.client import CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest, AddPartitionsToTxnRequest

from stream_app.kafka.hanging import PROOF_S, CoordinatorLost, coordinator_connection
from stream_app.kafka.last_transaction import ENDED, told_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

ASK_AFTER_S = 1.2
"""Without a next transaction for so long the coordinator is asked: rarely where partitions are busy."""
ADDING = (AddPartitionsToTxnRequest, AddOffsetsToTxnRequest)


class ProvenEnd:
    """Watches the ends of one opened producer's transactions; made when the one that opened it is proven ended."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._inside = cast("Any", producer)
        self._sender = self._inside._sender  # noqa: SLF001
        self._ended_on = coordinator_connection(producer)
        self._began_s = time.monotonic()
        self._proven = True
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._guard()

    @property
    def in_doubt(self) -> bool:
        """True where no further transaction may begin."""
        return self.late or not self._same

    @property
    def late(self) -> bool:
        """There was no proof in time, not even an answer to the question: this process stood still, or Kafka did."""
        return not self._proven and time.monotonic() - self._began_s > PROOF_S

    @property
    def _same(self) -> bool:
        connection = coordinator_connection(self._producer)
        return connection is not None and connection is self._ended_on

    def next_begins(self) -> None:
        """Another transaction begins, whose first answer is the proof."""
        if self._timer is not None:
            self._timer.cancel()

    def begins(self) -> None:
        """The transaction's end is asked for now."""
        self._look_at_connection()
        self._began_s = time.monotonic()
        self._proven = False

    def answered(self) -> None:
        """The coordinator has said that it will end it."""
        self._look_at_connection()
        self._timer = asyncio.get_running_loop().call_later(ASK_AFTER_S, self._ask)

    def _look_at_connection(self) -> None:
        """One that has changed meanwhile proves nothing any more, even if it should be there again."""
        if not self._same:
            self._ended_on = None

    def _ask(self) -> None:
        self._asking = asyncio.create_task(self._prove())

    async def _prove(self) -> None:
        began_s = self._began_s
        node_id = self._sender._coordinators.get(CoordinationType.TRANSACTION)  # noqa: SLF001
        if node_id is None or not self._same:
            return
        try:
            state, _ = await told_of(self._producer, node_id)
        except KafkaError:
            return  # it stays in doubt
        soon = time.monotonic() - began_s < PROOF_S
        if state in ENDED and soon and self._same and began_s == self._began_s:
            self._proven = True

    def _guard(self) -> None:
        """Lets nothing that adds to a transaction leave on another connection."""
        find, send = self._sender._find_coordinator, self._inside.client.send  # noqa: SLF001
        manager = self._inside._txn_manager  # noqa: SLF001

        async def finding(kind: CoordinationType, key: str) -> int:
            ending = manager.needs_transaction_commit() is not None
            if kind == CoordinationType.TRANSACTION and not ending and not self._same:
                raise CoordinatorLost
            return await find(kind, key)

        async def sending(node_id: int, request: object, **rest: object) -> object:
            if isinstance(request, ADDING) and not self._same:  # nothing is awaited between here and its leaving
                raise CoordinatorLost
            return await send(node_id, request, **rest)

        self._sender._find_coordinator = finding  # noqa: SLF001
        self._inside.client.send = sending

    def close(self) -> None:
        """Asks nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
