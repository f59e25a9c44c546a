"""Kafka as far as one input partition sees it, with the face of a producer. For model tests.

One thing happens at a time, and only when the test says so: every request waits in its worker's queue until
`Process.go_on` hands it to the broker with a `Fate`. Modelled as measured on Kafka 4.3 and aiokafka 0.14:

* InitProducerId ends the last transaction of that transactional id and raises its epoch; older epochs are refused;
* whoever has the newest epoch may commit offsets, a member of the group or not (no KIP-447);
* a transaction whose produce was refused still commits, if nobody looks at the send's future;
* what a coordinator ended without markers hangs, until the next end of the same transactional id is its end too;
* records are handed out in every state, also from a position older than the committed one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced, RequestTimedOutError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

TP = TopicPartition("in", 0)


class Fate(Enum):
    """What becomes of a request."""

    DONE = auto()
    REFUSED = auto()
    """A produce: the broker does not take the batch."""
    LOST = auto()
    """It never reached the broker."""
    UNHEARD = auto()
    """It was done, and the answer never reached the worker."""


@dataclass(frozen=True, slots=True)
class Record:
    """An input record."""

    offset: int
    value: bytes = b"text"
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Delivered:
    """An outcome as it leaves a worker: of which record, accepted in which assignment."""

    offset: int
    assignment: int


@dataclass(slots=True)
class Transaction:
    """An open transaction."""

    produced: list[Delivered] = field(default_factory=list)
    offset: OffsetAndMetadata | None = None


class Broker:
    """One input partition, its group's committed offset, one transactional id, and what was delivered for good."""

    fences = True

    def __init__(self) -> None:
        self.log: list[bool] = []
        """True is a record, False a transaction marker or a compacted hole."""
        self.committed = OffsetAndMetadata(-1, "")
        self.epoch = 0
        self.open: dict[ModelProducer, Transaction] = {}
        self.hanging: list[Transaction] = []
        self.delivered: list[Delivered] = []
        self._outcomes: Counter[int] = Counter()
        self.strays: list[Delivered] = []
        """Accepted in one assignment, delivered by the producer of another."""
        self.commits = 0
        self.tampered = False
        """A foreign tool wrote the committed offset last."""
        self.skipped: set[int] = set()
        """Records without an outcome that a foreign tool's offset has passed."""
        self.allowed: dict[int, int] = {}
        """Offset -> how many outcomes it may have, where a foreign tool makes it more than one."""

    def records(self, start: int, count: int) -> list[Record]:
        """At most `count` records from `start` on."""
        found = [offset for offset in range(max(0, start), len(self.log)) if self.log[offset]]
        return [Record(offset) for offset in found[:count]]

    def outcomes(self, offset: int) -> int:
        """How many outcomes a record has."""
        return self._outcomes[offset]

    # Requests

    def init_producer(self, producer: ModelProducer) -> None:
        if self.fences:
            self.open.clear()  # aborted
            self.epoch += 1
        producer.epoch = self.epoch

    def _check(self, producer: ModelProducer) -> None:
        if producer.epoch != self.epoch:
            raise ProducerFenced

    def produce(self, producer: ModelProducer, batch: list[Delivered]) -> None:
        self._check(producer)
        self.open.setdefault(producer, Transaction()).produced += batch

    def add_offset(self, producer: ModelProducer, offset: OffsetAndMetadata) -> None:
        self._check(producer)
        self.open.setdefault(producer, Transaction()).offset = offset

    def end(self, producer: ModelProducer, *, commit: bool) -> None:
        self._check(producer)
        ended = [*self.hanging, self.open.pop(producer, Transaction())]
        self.hanging.clear()
        for transaction in ended if commit else ():
            self.strays += [each for each in transaction.produced if each.assignment != producer.assignment]
            self.delivered += transaction.produced
            self._outcomes.update(each.offset for each in transaction.produced)
            if transaction.offset is not None:
                self.commit_offset(transaction.offset)

    def commit_offset(self, offset: OffsetAndMetadata) -> None:
        self.committed = offset
        self.commits += 1
        self.tampered = False

    def read_committed(self) -> OffsetAndMetadata:
        if self.tampered:
            behind = {each.offset for each in self.delivered if each.offset >= self.committed.offset}
            self.allowed |= {offset: self.outcomes(offset) + 1 for offset in behind}
        return self.committed

    # Faults

    def time_out_transactions(self) -> None:
        """The coordinator aborts what is open and raises the epoch."""
        self.open.clear()
        self.epoch += 1

    def time_out_without_markers(self) -> None:
        """The same, while the partitions have no leader."""
        self.hanging += self.open.values()
        self.time_out_transactions()

    def tamper(self, offset: int, metadata: str) -> None:
        """A foreign tool writes the committed offset."""
        self.committed = OffsetAndMetadata(offset, metadata)
        self.tampered = True
        self.skipped |= {record.offset for record in self.records(0, len(self.log)) if record.offset < offset}
        self.skipped -= {each.offset for each in self.delivered}


class Process:
    """A worker process as Kafka sees it: its requests wait here until the test lets them go on."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.requests: deque[asyncio.Future[Fate]] = deque()
        self.ended = False

    @property
    def waits(self) -> bool:
        """A request is on its way."""
        while self.requests and self.requests[0].done():
            self.requests.popleft()
        return bool(self.requests)

    def go_on(self, fate: Fate = Fate.DONE) -> None:
        """The oldest request meets its fate."""
        if self.waits:
            self.requests.popleft().set_result(fate)

    async def ask(self, action: Callable[[], Any], *, refusable: bool = False) -> Any:
        """A request to the broker, at a moment of the test's choice."""
        request: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self.requests.append(request)
        fate = await request
        if fate is Fate.REFUSED and refusable:
            raise MessageSizeTooLargeError
        if fate in {Fate.LOST, Fate.REFUSED}:
            raise RequestTimedOutError
        answer = action()
        if fate is Fate.UNHEARD:
            raise RequestTimedOutError
        return answer


class Batch(list[Delivered]):
    """aiokafka's batch builder: takes everything."""

    def append(self, *, value: Any, **_rest: Any) -> bool:  # type: ignore[override]
        super().append(value)
        return True


class ModelProducer:
    """The face of AIOKafkaProducer that `TransactionalOutput` uses."""

    def __init__(self, process: Process, assignment: int) -> None:
        self.process, self.broker, self.assignment = process, process.broker, assignment
        self.epoch = -1
        self._txn_manager, self._message_accumulator, self._sender = self, self, self
        self._batches: dict[Any, Any] = {}
        self.client = self
        self._coordinators = {CoordinationType.TRANSACTION: 1}
        self._conns = {(1, ConnectionGroup.COORDINATION): self}
        self._empties = 0

    async def send(self, node_id: int, request: object, **rest: object) -> Any:
        """What is sent goes through `Process.ask` here, which loses answers for good: none is repeated.

        Only how a transaction ended is asked like this.
        """
        return SimpleNamespace(transactions=[(0, "id", "CompleteCommit", 0, 0, 0, self.epoch, [])])

    async def _find_coordinator(self, kind: CoordinationType, key: str) -> int:
        """Never moves."""
        return 1

    def needs_transaction_commit(self) -> None:
        """Not asked: nothing looks for a coordinator here."""

    def wait_for_transaction_end(self) -> None:
        return None

    async def start(self) -> None:
        await self.process.ask(lambda: self.broker.init_producer(self))

    async def stop(self) -> None:
        """An open transaction stays open, as with a process that is gone."""

    async def begin_transaction(self) -> None:
        """Nothing is sent."""

    async def _do_init_pid(self, node_id: int) -> bool:
        """The sender's step; `start` stands for it here, and nothing that hangs was committed."""
        return True

    def connected(self) -> bool:
        return True

    def partitions_to_add(self) -> tuple[()]:
        """The one output partition is added with the group."""
        return ()

    async def _do_add_offsets_to_txn(self, group: str) -> bool:
        """An empty transaction: two begin a producer's life, and no connection breaks here between them."""
        del group
        self._empties += 1
        return True

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Task[None]:
        del topic, partition
        return asyncio.ensure_future(self.process.ask(lambda: self.broker.produce(self, batch), refusable=True))

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, OffsetAndMetadata], group: str) -> None:
        del group
        await self.process.ask(lambda: self.broker.add_offset(self, offsets[TP]))

    async def commit_transaction(self) -> None:
        await self.process.ask(lambda: self.broker.end(self, commit=True))

    async def abort_transaction(self) -> None:
        if self._empties == 2:  # it proves the first, and does nothing
            self._empties = 0
            return
        await self.process.ask(lambda: self.broker.end(self, commit=False))
