"""What the slow lane knows of one owned partition: what waits, what is under way, what is done and not committed.

The commit point is the oldest unfinished offset; what is finished beyond it travels in the offset's metadata
(`stream_app.kafka.finished`), with the spend lease (`stream_app.escalate.budget`). No record is started further
than `span_max` offsets beyond the oldest unfinished one, so the metadata always fits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.kafka.connection import FetchBounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.escalate.outbox import Outcome
    from stream_app.kafka.finished import FinishedOffsets
    from stream_app.kafka.owned import OwnedPartition
    from stream_app.telemetry import Lane

    Record = ConsumerRecord[bytes | None, bytes | None]

WAITING_RECORDS_MAX = 1_000
WAITING_BYTES_MAX = 4_000_000
"""What all partitions of a worker may hold before their events are started. Above its share of either a partition is
paused; one fetch (`FETCH.records`) may still arrive. Below half of both shares it is resumed."""
FETCH = FetchBounds(records=500, partition_bytes=128 * 1024, response_bytes=1024 * 1024)
"""Events take turns one by one, so little is needed at once."""
SHARE_RECORDS_MIN = 32
RECORD_OVERHEAD_BYTES = 1_000
"""What a record costs in memory beside value and headers, roughly."""


def record_bytes(record: Record) -> int:
    """What a waiting record takes in memory."""
    headers = sum([len(value or b"") for _, value in record.headers])
    return len(record.value or b"") + headers + RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Item:
    """A record that waits for its turn. `deadline_s` is in running time; a parked record's, by the wall clock."""

    record: Record
    deadline_s: float


@dataclass(slots=True)
class PartitionWork:
    """One partition's work in one assignment."""

    partition: OwnedPartition
    finished: FinishedOffsets
    span_max: int
    owned: int = 1
    """How many partitions share the worker's bounds."""
    inherited: frozenset[int] = frozenset()
    """Offsets beyond the commit point that the last owner had finished."""
    waiting: deque[Item] = field(default_factory=deque[Item])
    waiting_bytes: int = 0
    running: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])
    outcomes: list[Outcome] = field(default_factory=list["Outcome"])
    paid: dict[int, bool] = field(default_factory=dict[int, bool])
    """Offsets whose LLM answer was paid for and is not committed; True where the cache has it too."""
    committer: asyncio.Task[None] | None = None
    delivering: bool = False
    closing: bool = False
    handed_over: bool = False
    something: asyncio.Event = field(default_factory=asyncio.Event)
    """There is something to commit."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """And it must not linger (a call waits for its lease; the partition is handed over)."""
    _flushes: list[asyncio.Future[None]] = field(default_factory=list["asyncio.Future[None]"])
    _began: int = 0

    def __post_init__(self) -> None:
        self._began = self.finished.base

    def was_finished(self, offset: int) -> bool:
        """True where the record was finished before this assignment."""
        return offset < self._began or offset in self.inherited

    @property
    def lane(self) -> Lane:
        """Its name in the metrics."""
        return "escalate"

    @property
    def number(self) -> int:
        """The partition's number."""
        return self.partition.number

    @property
    def held_records(self) -> int:
        """What is held here and not under way."""
        return len(self.waiting)

    @property
    def held_bytes(self) -> int:
        """The same in bytes."""
        return self.waiting_bytes

    @property
    def records_max(self) -> int:
        """Its share of the records that may wait."""
        return max(SHARE_RECORDS_MIN, WAITING_RECORDS_MAX // self.owned)

    @property
    def bytes_max(self) -> int:
        """Its share of the bytes that may wait."""
        return WAITING_BYTES_MAX // self.owned

    def arrived(self, records: Sequence[Record], deadline_s: Sequence[float]) -> int:
        """Takes records in, less those the last owner had finished; how many are left. Pauses when too much waits."""
        taken = 0
        for record, due_s in zip(records, deadline_s, strict=True):
            if self.finished.arrive(record.offset):
                self.waiting.append(Item(record, due_s))
                self.waiting_bytes += record_bytes(record)
                taken += 1
        if taken < len(records):
            self.something.set()
        self.pause_if_full()
        return taken

    def next_item(self) -> Item | None:
        """The next record to start, None if none may be started now."""
        if not self.waiting or self.closing:
            return None
        offset = self.waiting[0].record.offset
        if self.finished.span(offset) >= self.span_max:
            return None
        return self.take_first()

    def take_first(self) -> Item:
        """Takes the first record that waits; asks for more when there is room again."""
        item = self.waiting.popleft()
        self.waiting_bytes -= record_bytes(item.record)
        self.resume_if_room()
        return item

    def pause_if_full(self) -> None:
        """Asks for no more where a bound is reached."""
        if self.held_records >= self.records_max or self.held_bytes >= self.bytes_max:
            self.partition.pause()

    def resume_if_room(self) -> None:
        """Asks for more below half of both bounds."""
        if 2 * self.held_records <= self.records_max and 2 * self.held_bytes <= self.bytes_max:
            self.partition.resume()

    def finish(self, offset: int, outcome: Outcome) -> None:
        """A record's outcome is known; it is delivered with the next commit."""
        self.finished.finish(offset)
        self.outcomes.append(outcome)
        self.something.set()

    def rush(self) -> None:
        """Commit at once."""
        self.hurry.set()
        self.something.set()

    async def flushed(self) -> None:
        """Returns when all that was finished by now is committed. Never, where the partition is lost before."""
        if self.outcomes or self.delivering:
            flush = asyncio.get_running_loop().create_future()
            self._flushes.append(flush)
            self.rush()
            await flush

    def take_flushes(self) -> list[asyncio.Future[None]]:
        """Who waits for the outcomes that the next commit takes; to be told when they are committed."""
        flushes, self._flushes = self._flushes, []
        return flushes

    def take_outcomes(self) -> list[Outcome]:
        """What the next commit delivers."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    @property
    def idle_behind(self) -> bool:
        """Nothing is unfinished, and the commit point is behind the position (transaction markers)."""
        return not self.finished.unfinished and self.partition.position > self.partition.committed
