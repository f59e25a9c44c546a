"""A worker with one safeguard taken out: `SHUNT_TEST_WITHOUT=fencing python -m tests.faults.unguarded run classify`.

The ordinary command line, with a subclass put in where the real class stood; with nothing named it guards all.
It can also be asked to stop itself at a step of the protocol (SIGSTOP; a file `<worker>.<step>` in the working
folder, which it takes away), and not to go on opening while `<worker>.hold-opening` is there: what a fault does at
a moment that the harness names. Both hold for the guarded worker and the unguarded one alike.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from stream_app.classify import start as classify_start
from stream_app.cli import main
from stream_app.errors import MembershipLost
from stream_app.escalate import service as escalate_service
from stream_app.escalate import start as escalate_start
from stream_app.kafka import assignment
from stream_app.kafka.connection import Connection
from stream_app.kafka.finished import FinishedOffsets, encode
from stream_app.kafka.membership import Membership
from stream_app.kafka.owned import OwnedPartition
from stream_app.kafka.transactions import TransactionalOutput, translate

WITHOUT = "SHUNT_TEST_WITHOUT"
WORKER = "SHUNT_TEST_WORKER"
BEFORE_COMMIT, AFTER_COMMIT, HOLD_OPENING = "before-commit", "after-commit", "hold-opening"


def asking(folder: Path, worker: str, step: str) -> Path:
    """The file by which the harness asks."""
    return folder / f"{worker}.{step}"


def stop_if_asked(step: str) -> None:
    asked = asking(Path(), os.environ[WORKER], step)
    if asked.exists():
        asked.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)


class Steps(TransactionalOutput):
    """The real thing, whose steps the harness can stop at."""

    async def open(self) -> None:
        while asking(Path(), os.environ[WORKER], HOLD_OPENING).exists():
            await asyncio.sleep(0.02)
        await super().open()

    async def _send_offsets(self, offsets: Any) -> None:
        await super()._send_offsets(offsets)
        stop_if_asked(BEFORE_COMMIT)

    async def _transaction(self, *what: Any) -> None:
        await super()._transaction(*what)
        stop_if_asked(AFTER_COMMIT)


# The check of sends


class Unchecked(Steps):
    """Waits for the sends, as a commit would, and does not look at what became of them."""

    async def _check_sends(self, futures: list[Any]) -> None:
        await asyncio.gather(*futures, return_exceptions=True)


# Offsets in the transaction


class OffsetsAfterwards(Steps):
    """Commits the outcomes in a transaction, and then the offset as any consumer does."""

    def __init__(self, *what: Any, commit: Any) -> None:
        super().__init__(*what)
        self._commit_plainly = commit
        self._offsets: Any = {}

    async def _send_offsets(self, offsets: Any) -> None:
        self._offsets = offsets

    async def _transaction(self, *what: Any) -> None:
        await super()._transaction(*what)
        await self._commit_plainly(self._offsets)


class CommitsPlainly(Membership):
    """Its partitions' offsets are committed by the consumer."""

    def __init__(self, *what: Any, make_output: Any, **more: Any) -> None:
        super().__init__(*what, make_output=partial(make_output, commit=self._commit_plainly), **more)

    async def _commit_plainly(self, offsets: Any) -> None:
        if self._consumer is None:
            raise MembershipLost("the consumer is gone")
        try:
            await self._consumer.commit(offsets)
        except KafkaError as error:
            raise translate(error, "committing offsets") from error


# Fencing


class NameOfItsOwn(Connection):
    """Every producer has a transactional id that nobody else has: it fences nobody."""

    def transactional_producer(self, transactional_id: str, *what: Any) -> Any:
        return super().transactional_producer(f"{transactional_id}:{uuid.uuid4().hex[:8]}", *what)


# The READY gate


class ReadyBeforeItsFence(OwnedPartition):
    """Is read from where the group stands while the previous owner is still being fenced; delivers afterwards."""

    async def open_output(self) -> None:
        self._fencing = asyncio.create_task(super().open_output())

    async def deliver(self, *what: Any) -> None:
        await asyncio.shield(self._fencing)
        await super().deliver(*what)

    async def close_output(self) -> None:
        if hasattr(self, "_fencing"):
            self._fencing.cancel()
            await asyncio.wait({self._fencing})
        await super().close_output()


# The epoch: a life for every assignment


class NumberOnly(OwnedPartition):
    """Work knows its partition by number: it is delivered by whatever assignment has that number by then."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self._turn = asyncio.Lock()

    async def deliver(self, *what: Any) -> None:
        current = self._owner._assignment.owned.get(self.tp, self)
        await asyncio.wait({current.opening})
        async with current._turn:
            await OwnedPartition.deliver(current, *what)


# What is finished beyond the committed offset (the slow lane)


class Forgetful(FinishedOffsets):
    """Writes no map into the offset's metadata."""

    __slots__ = ()

    def metadata(self, extra: str = "") -> str:
        return encode(self.base, set(), extra)


@dataclass(frozen=True)
class Parts:
    """The classes that a worker is made of."""

    output: Any = Steps
    membership: type[Membership] = Membership
    connection: type[Connection] = Connection
    partition: type[OwnedPartition] = OwnedPartition
    finished: type[FinishedOffsets] = FinishedOffsets


PARTS = {
    "": Parts(),
    "sends": Parts(output=Unchecked),
    "offsets": Parts(output=OffsetsAfterwards, membership=CommitsPlainly),
    "fencing": Parts(connection=NameOfItsOwn),
    "gate": Parts(partition=ReadyBeforeItsFence),
    "epoch": Parts(partition=NumberOnly),
    "finished": Parts(finished=Forgetful),
}


def install(parts: Parts) -> None:
    """Puts the classes in where the lanes look for them."""
    for start in (classify_start, escalate_start):
        start.Membership = partial(parts.membership, make_output=parts.output)
        start.Connection = parts.connection
    assignment.OwnedPartition = parts.partition
    escalate_service.FinishedOffsets = parts.finished


if __name__ == "__main__":
    install(PARTS[os.environ.get(WITHOUT, "")])
    sys.exit(main())
