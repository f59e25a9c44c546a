"""A request that was given up and sent again, and that the broker handles all the same, in the next transaction.

aiokafka closes a connection whose answer is late, and repeats the request on a new one. What stood in the old
connection may be handled later still: it carries the producer's id and epoch, which the next transaction has too.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.transaction import EndTxnRequest, TxnOffsetCommitRequest

from stream_app.errors import MembershipInterrupted
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import committed_and_end, produce, read_all
from tests.kafka.running import running, until


class Late(TransactionalOutput):
    """The first request of one kind gets stuck, and comes through in the middle of a later transaction."""

    kind: type = EndTxnRequest
    stuck = None
    came = 0
    """How often it came."""

    def _listen(self) -> None:
        client = self._producer.client
        send = client.send

        async def sending(node_id, request, **rest):
            if isinstance(request, Late.kind) and Late.stuck is None:
                Late.stuck = (request, rest)
                raise RequestTimedOutError
            return await send(node_id, request, **rest)

        client.send = sending
        super()._listen()

    async def _send_offsets(self, offsets) -> None:
        due = Late.stuck is not None and not Late.came
        if due and Late.kind is EndTxnRequest:  # the records are there, their offset is not, and then it breaks
            await self._comes()
            raise MembershipInterrupted("the connection broke")
        await super()._send_offsets(offsets)
        if due and Late.kind is TxnOffsetCommitRequest:
            await self._comes()

    async def _comes(self) -> None:
        Late.came += 1
        request, rest = Late.stuck
        await self._producer.client.send(1, request, **rest)


@pytest.mark.parametrize("kind", [EndTxnRequest, TxnOffsetCommitRequest])
async def test_a_late_request_of_one_transaction_does_nothing_to_the_next(
    stack, make_topic, unique_name, monkeypatch, kind
):
    """A late commit would end the next transaction before its offset; a late offset would replace the next one's."""
    monkeypatch.setattr(Late, "kind", kind)
    monkeypatch.setattr(Late, "stuck", None)
    monkeypatch.setattr(Late, "came", 0)
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    values = [str(number).encode() for number in range(200)]
    lane = CopyLane(stack.bootstrap_servers, source, target, group, make_output=Late)
    async with running(lane):
        for begin in (0, 100):
            await asyncio.to_thread(produce, stack.bootstrap_servers, source, values[begin : begin + 100])
            await until(lambda least=begin + 100: lane.copied >= least, within_s=60)
    assert Late.came == 1
    async with running(CopyLane(stack.bootstrap_servers, source, target, group)):  # from what was committed

        def at_rest() -> bool:
            return all(
                committed == end
                for committed, end in committed_and_end(stack.bootstrap_servers, source, group).values()
            )

        while not await asyncio.to_thread(at_rest):
            await asyncio.sleep(0.2)
    copies = [message.value() for message in await asyncio.to_thread(read_all, stack.bootstrap_servers, target)]
    assert Counter(copies) == Counter(values)
