"""What waits of one partition, and the order in which its batches leave. Pure state, no I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from stream_app.kafka import finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.owned import OwnedPartition

    Record = ConsumerRecord[bytes | None, bytes | None]


class Run:
    """Consecutive records of one partition inside a batch, committed as `next_offset`.

    `turn` comes when all before it in the partition have ended. `count` stays when the records are let go. Where a
    share is held, the run is *settled* once its records are decided: only then may the next one's be.
    """

    __slots__ = ("_levels", "before", "count", "done", "feed", "next_offset", "records", "settled")

    def __init__(self, feed: Feed, records: Sequence[Record], next_offset: int, before: Run | None) -> None:
        self.feed = feed
        self.records = records
        self.count = len(records)
        self.next_offset = next_offset
        self.before = before
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._levels = dict(feed.levels)

    @property
    def turn(self) -> asyncio.Future[None] | None:
        """Comes when all before it in the partition have ended; None where there are none."""
        return None if self.before is None else self.before.done

    @property
    def metadata(self) -> str:
        """What is committed beside its offset: what the controllers had come to at its end; empty without any."""
        if not self._levels:
            return ""
        return finished.encode(self.next_offset, frozenset(), msgspec.json.encode(self._levels).decode())

    async def settles(self) -> None:
        """Returns when the run before it is settled, or has ended."""
        if self.before is not None:
            await asyncio.shield(self.before.settled)

    def settle(self) -> None:
        """Its records are decided: `feed.levels` are what its end is committed with."""
        self._levels = dict(self.feed.levels)
        self.end_settling()

    def end_settling(self) -> None:
        """Lets the next run of the partition be settled."""
        if not self.settled.done():
            self.settled.set_result(None)


class Feed:
    """One partition's queue: bounded by records and bytes, at most `runs_max` runs under way.

    Above either bound the partition is paused, below half of both it is resumed. One fetch may still arrive when
    it is paused already: nothing is ever dropped.
    """

    def __init__(
        self,
        partition: OwnedPartition,
        records_max: int,
        bytes_max: int,
        runs_max: int = 2,
        levels: dict[str, float] | None = None,
    ) -> None:
        self.partition = partition
        self.levels = levels or {}
        """Task -> what the controller of its share has come to (`stream_app.classify.holding`)."""
        self.closing = False
        self.ran_at = 0
        """The turn of its last run: whose is lowest comes first."""
        self.broken = False
        """A run of this partition was not delivered: none after it may be, or the commit would pass it."""
        self._records_max, self._bytes_max, self._runs_max = records_max, bytes_max, runs_max
        self._waiting: deque[Record] = deque()
        self._value_bytes = 0
        self._runs = 0
        self._last: Run | None = None

    def put(self, records: Sequence[Record]) -> None:
        """Takes fetched records, and asks for no more once the bound is reached."""
        self._waiting.extend(records)
        self._value_bytes += sum([len(record.value or b"") for record in records])
        if self.waiting >= self._records_max or self._value_bytes >= self._bytes_max:
            self.partition.pause()

    @property
    def waiting(self) -> int:
        """Records that are not in a run yet."""
        return len(self._waiting)

    @property
    def value_bytes(self) -> int:
        """What their values take."""
        return self._value_bytes

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self._waiting and not self._runs

    @property
    def can_run(self) -> bool:
        """A run may be taken now."""
        return bool(self._waiting) and self._runs < self._runs_max and not (self.closing or self.broken)

    def peek(self, count: int) -> list[Record]:
        """The first `count` waiting records, left where they are."""
        return [record for record, _ in zip(self._waiting, range(count), strict=False)]

    def take(self, count: int) -> Run:
        """The next run, of at most `count` records."""
        waiting = len(self._waiting)
        count = min(count, waiting)
        next_record = self._waiting.popleft
        records = [next_record() for _ in range(count)]
        # As if all were of one size: this bounds memory, it does not account for it.
        self._value_bytes -= self._value_bytes * count // waiting
        if 2 * self.waiting <= self._records_max and 2 * self._value_bytes <= self._bytes_max:
            self.partition.resume()
        return self._line_up(records, records[-1].offset + 1)

    def mark(self, position: int) -> Run:
        """A run without records, to commit a position that moved over transaction markers."""
        return self._line_up((), position)

    def _line_up(self, records: Sequence[Record], next_offset: int) -> Run:
        run = self._last = Run(self, records, next_offset, self._last)
        self._runs += 1
        return run

    def finish(self, run: Run, *, delivered: bool) -> None:
        """The run has ended: the next one's turn comes. Only the first call for a run counts."""
        if run.done.done():
            return
        self.broken = self.broken or not delivered
        self._runs -= 1
        run.done.set_result(None)
        run.end_settling()
        run.before = None  # or every run would hold all that were before it

    def close(self) -> None:
        """Takes nothing more, and forgets what waits: it was never committed."""
        self.closing = True
        self._waiting.clear()
        self._value_bytes = 0

    async def drained(self) -> None:
        """Returns when every run under way has ended."""
        if self._last is not None:
            await asyncio.shield(self._last.done)
