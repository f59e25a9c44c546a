"""How the last transaction of a transactional id ended, asked of its coordinator just before a producer opens.

Opening itself (InitProducerId) wipes that out, so the question goes first. aiokafka knows neither the question
(DescribeTransactions, KIP-664) nor a place for it: hence its private names here (`noqa: SLF001`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

RETRY_AFTER_S = 0.1
ENDED = frozenset({"CompleteCommit", "CompleteAbort"})
COMMITTED = frozenset({"PrepareCommit", "CompleteCommit"})
"""A prepared one is completed before another producer can open."""


class DescribedTransactions(Response):
    """DescribeTransactions response, version 0."""

    API_KEY = 65  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]  # as aiokafka's do
    API_VERSION = 0  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("timeout_ms", Int32),
                ("start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeTransactionsStruct(RequestStruct):
    """DescribeTransactions request, version 0."""

    FLEXIBLE_VERSION = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = DescribedTransactions
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString("utf-8"))), ("tags", TaggedFields))


class DescribeTransactions(Request[DescribeTransactionsStruct]):
    """Asks a coordinator for the state of one transactional id (KIP-664)."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[DescribeTransactionsStruct]) -> DescribeTransactionsStruct:
        """The only version there is."""
        return request_struct_class([self._transactional_id], {})


@dataclass(slots=True)
class LastWord:
    """What the coordinator last said of a transactional id, kept from one try to open it to the next."""

    committed: bool = False
    """It has taken the last transaction for committed. False where that could not be told."""
    epoch: int = -1
    """Of the producer that was opened since, and has not yet ended that transaction for certain; -1 for none."""


class LastTransaction:
    """Asks when `producer` starts, each time before it sends InitProducerId; made before the start.

    `word` is what earlier tries were told; it is brought up to date.
    """

    def __init__(self, producer: AIOKafkaProducer, word: LastWord) -> None:
        self._word = word
        self._producer = producer
        self._sender = cast("Any", producer)._sender  # noqa: SLF001
        self._open = self._sender._do_init_pid  # noqa: SLF001
        self._sender._do_init_pid = self._ask_and_open  # noqa: SLF001

    async def _ask_and_open(self, node_id: int) -> bool:
        """False where aiokafka must look for the coordinator again, as its own step says."""
        try:
            state, epoch = await told_of(self._producer, node_id)
        except IncompatibleBrokerVersion:
            return await self._open(node_id)
        except KafkaError:
            self._sender._coordinator_dead(CoordinationType.TRANSACTION)  # noqa: SLF001
            await asyncio.sleep(RETRY_AFTER_S)
            return False
        # What an earlier try of ours did since says nothing, nor does "Empty": that try's answer may have been lost.
        if state != "Empty" and (epoch != self._word.epoch or epoch < 0):
            self._word.committed = state in COMMITTED
        opened = await self._open(node_id)
        if opened:
            self._word.epoch = self._sender._txn_manager.producer_epoch  # noqa: SLF001
        return opened


async def told_of(producer: AIOKafkaProducer, node_id: int) -> tuple[str, int]:
    """The state of a producer's transactional id and its epoch, by the coordinator on that node.

    Empty and -1 where it knows none, or will not tell us. Raises KafkaError.
    """
    inside = cast("Any", producer)
    question = DescribeTransactions(inside._txn_manager.transactional_id)  # noqa: SLF001
    answer = await inside.client.send(node_id, question, group=ConnectionGroup.COORDINATION)
    code, _, state, _, _, _, epoch, *_ = answer.transactions[0]
    if code and cast("KafkaError", for_code(code)).retriable:
        raise for_code(code)
    return (state or "", -1 if code else epoch)
