"""A `shunt` command that is struck down in its replay: python -m tests.cli.dlq_struck SIGNAL POINT NUMBER ARGS...

Points: `opened` (the producer is there), `sent` (records and receipts of the NUMBER-th transaction are acknowledged,
nothing is committed), `committing` (somewhere in its commit), `committed` (before anybody was told).
Transactions count from 0, which is the opening one. The variable WITHOUT takes safeguards out: `fence` (each process
has a transactional id of its own), `fence+pause` (and it takes no pause for too long) or `together` (receipts commit
after the records).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import uuid
from typing import TYPE_CHECKING

from stream_app.cli import dlq_sending, main
from stream_app.cli.sent_once import SendingOutput
from stream_app.kafka import proven_end

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiokafka.structs import OffsetAndMetadata, TopicPartition

    from stream_app.events import Outgoing
    from stream_app.kafka.connection import Connection
    from stream_app.kafka.topics import TopicFound

WITHOUT = os.environ.get("WITHOUT", "")
SIGNAL, POINT, NUMBER = signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])
COMMIT_TAKES_S = 0.005


def strike() -> None:
    os.kill(os.getpid(), SIGNAL)


class Struck(SendingOutput):
    """Sends the process the signal when it comes to the point."""

    number = -1

    def __init__(self, connection: Connection, name: str, about: str, topics: Collection[TopicFound]) -> None:
        super().__init__(connection, name, about, topics)
        if WITHOUT.startswith("fence"):
            self._producer = connection.transactional_producer(uuid.uuid4().hex)

    async def open(self) -> None:
        await super().open()
        if POINT == "opened":
            strike()

    async def deliver(self, outgoing: Sequence[Outgoing]) -> None:
        self.number += 1
        if WITHOUT == "together":
            await super().deliver([record for record in outgoing if not record.topic.endswith("-replays")])
            if POINT == "between" and self.number == NUMBER:
                strike()
            outgoing = [record for record in outgoing if record.topic.endswith("-replays")]
        await super().deliver(outgoing)
        if POINT == "committed" and self.number == NUMBER:
            strike()

    async def _send_offsets(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        await super()._send_offsets(offsets)
        if self.number == NUMBER and POINT == "sent":
            strike()
        if self.number == NUMBER and POINT == "committing":
            asyncio.get_running_loop().call_later(random.uniform(0, COMMIT_TAKES_S), strike)


proven_end.PROOF_S = {"fence": 1.0, "fence+pause": float("inf")}.get(WITHOUT, proven_end.PROOF_S)
dlq_sending.SendingOutput = Struck
dlq_sending.LETTERS_PER_TRANSACTION = 100
sys.exit(main(sys.argv[4:]))
