"""Ends what an earlier transaction has left without an end, before its records can come alive.

A transaction coordinator takes a partition that has no leader at the moment for a deleted one: it writes no marker
there, and calls the transaction complete (KAFKA-20734, Kafka 4.x). So it goes after the restart of a broker that is
alone, for what the kill left without an end. The records hang: no `read_committed` reader passes them, and the next
marker of the same transactional id ends them, whatever the coordinator had decided. A commit makes aborted ones
count, although their offset was never committed and their input has been decided again; an abort takes committed
ones away. Nobody is told of it, and asking a partition for its open transactions takes a right to read it.

So a producer's first transaction is empty, names every partition that its owner may write to, and ends as the last
one of its id did (`last_transaction`). And each transaction must be proven ended before the next one names a
partition: the coordinator takes that only when the last one is complete; on the same connection it is the same
process; and within `PROOF_S` of the last one's end no broker can have been fenced and be back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import ProducerFenced

from stream_app.errors import MembershipInterrupted

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiokafka import AIOKafkaProducer
    from aiokafka.structs import TopicPartition

LOOK_EVERY_S = 0.005
PROOF_S = 2.5
"""A broker is fenced after `broker.session.timeout.ms` without a sign of life: 9 s by default, 3 s where Shunt starts
Kafka. Only then has a partition that it alone holds no leader."""


class CoordinatorLost(ProducerFenced):
    """The connection on which the last transaction ended is gone: this one must not begin.

    A ProducerFenced, because that is what ends aiokafka's sender without another word.
    """

    def __init__(self) -> None:
        super().__init__("the connection to the transaction coordinator was lost: the last transaction is in doubt")


async def end_what_hangs(
    producer: AIOKafkaProducer, reach: Collection[TopicPartition], group: str, *, commit: bool
) -> None:
    """Returns when nothing of this producer's transactional id is open in `reach`, nor in the offsets of `group`.

    What was is committed with `commit`, else aborted. `producer` is started and in no transaction; an empty `group`
    means no offsets. Raises MembershipInterrupted where it cannot be told, KafkaError or AssertionError as a
    transaction does; the caller sets the deadline.
    """
    if not reach and not group:
        return
    transactions = _Transactions(producer)
    await transactions.add(reach, group)
    before, began_s = coordinator_connection(producer), time.monotonic()
    await (producer.commit_transaction() if commit else producer.abort_transaction())
    await transactions.add((), group) if group else await transactions.add(list(reach)[:1], "")
    same = before is not None and coordinator_connection(producer) is before
    if not same or time.monotonic() - began_s > PROOF_S:
        raise MembershipInterrupted("the transaction coordinator was lost while an earlier transaction was ended")
    await (producer.commit_transaction() if commit else producer.abort_transaction())


class _Transactions:
    """The part of aiokafka's producer that has no public face: a transaction's partitions, without records."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = cast("Any", producer)
        self._manager = self._producer._txn_manager  # noqa: SLF001 - see above
        self._sender = self._producer._sender  # noqa: SLF001 - see above

    async def add(self, partitions: Collection[TopicPartition], group: str) -> None:
        """Begins a transaction that names `partitions` and the offsets of `group`."""
        await self._producer.begin_transaction()
        for tp in partitions:
            self._manager.maybe_add_partition_to_txn(tp)
        while self._manager.partitions_to_add():  # the sender's task adds them
            self._raise_failure()
            await asyncio.sleep(LOOK_EVERY_S)
        self._raise_failure()
        while group and not await self._sender._do_add_offsets_to_txn(group):  # noqa: SLF001 - see above
            self._raise_failure()
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raises what has failed the transaction, if anything has: a missing right, a newer owner."""
        ending = self._manager.wait_for_transaction_end()
        if ending is not None and ending.done():
            ending.result()


def coordinator_connection(producer: AIOKafkaProducer) -> object:
    """The connection to the transaction coordinator, None where there is none. Another one may be another process."""
    inside = cast("Any", producer)
    node_id = inside._sender._coordinators.get(CoordinationType.TRANSACTION)  # noqa: SLF001 - no public way
    connection = inside.client._conns.get((node_id, ConnectionGroup.COORDINATION))  # noqa: SLF001 - no public way
    return connection if connection is not None and connection.connected() else None
