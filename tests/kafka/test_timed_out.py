"""Transactions that outlast `transaction_timeout_ms`: membership lost and joined again, nothing lost or doubled."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.copy_lane import CopyLane
from tests.kafka.reading import produce, read_all
from tests.kafka.running import running, until


class HeldUp(TransactionalOutput):
    """Its second and third transactions are held up between the sends and the offsets."""

    hold_s = 0.0
    begun = 0

    async def _send_offsets(self, offsets) -> None:
        HeldUp.begun += 1
        if HeldUp.begun in {2, 3}:
            await asyncio.sleep(self.hold_s)
        await super()._send_offsets(offsets)


@pytest.mark.parametrize(("hold_s", "counted"), [(1.9, 2), (5.0, 0)])
async def test_a_transaction_that_times_out_loses_and_doubles_nothing(
    stack, make_topic, unique_name, monkeypatch, hold_s, counted
):
    """The broker ends a transaction after 1 s. Held up for less than our own 2 s, its refusal is a loss that counts.

    Held up for longer, we give the transaction up ourselves. Either way every record is copied once, in order.
    """
    monkeypatch.setattr(HeldUp, "hold_s", hold_s)
    monkeypatch.setattr(HeldUp, "begun", 0)
    source, target = make_topic("in"), make_topic("out")
    lane = CopyLane(
        *(stack.bootstrap_servers, source, target, unique_name("group")),
        make_output=HeldUp,
        transaction_timeout_ms=1_000,
    )
    values = [str(number).encode() for number in range(400)]
    async with running(lane) as task:
        for begin in range(0, 400, 100):
            await asyncio.to_thread(produce, stack.bootstrap_servers, source, values[begin : begin + 100])
            await until(lambda least=begin: lane.copied > least, within_s=60)
        await until(lambda: lane.copied == 400, within_s=60)
        assert lane.losses == 2
        assert lane.membership.lost_count == counted
        assert not task.done()
    copies = [message.value() for message in await asyncio.to_thread(read_all, stack.bootstrap_servers, target)]
    assert Counter(copies) == Counter(values)
    assert [int(value) for value in copies] == sorted(int(value) for value in copies)
