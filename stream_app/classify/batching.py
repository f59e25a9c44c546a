"""When the next batch is formed, and of which records: full where much waits, soon where little does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_app.classify.feed import Feed, Run

if TYPE_CHECKING:
    from stream_app.classify.batch_size import BatchSize
    from stream_app.kafka.owned import OwnedPartition
    from stream_app.settings import Settings

BATCH_BYTES_MAX = 2_250_000
"""The values of a batch. A record under way costs about eight times its value: the record, its text, the request to
Triton, the decision, the batch for Kafka. 11,000 records of 200 bytes still fit. 2.5 MB are 3 % less CPU a record
and 65 MB more of memory (`benchmarks/hot_path.py`)."""
WAITING_BYTES_MAX = 2 * BATCH_BYTES_MAX
"""The values that all partitions of a worker may hold before they are decided: the next batch, and one to come while
it is made. Twice `batch_records_max` records is the other bound, at about 500 bytes each beside their values. Above
its share of either a partition is paused; one fetch of it may still arrive."""
SHARE_RECORDS_MIN, SHARE_BYTES_MIN = 512, 128 * 1024
"""No partition's share is less, however many are owned: a share is what one transaction carries, and their number a
second is bounded, so that 96 partitions at 50 transactions/s can take 25,000 records/s."""
FULL_BATCH_WITHIN_S = 0.1


class Batching:
    """Forms batches of what waits in `feeds`, which the lane keeps: a queue for each partition it owns."""

    def __init__(self, settings: Settings, size: BatchSize, feeds: dict[OwnedPartition, Feed]) -> None:
        self._limits = settings.classify
        self._transactions_per_s_max = settings.kafka.transactions_per_s_max
        self._size = size
        self._feeds = feeds
        self._ripe = asyncio.Event()
        self._next_start_s = 0.0
        self._turn = 0

    def open(self, partition: OwnedPartition, owned: int, levels: dict[str, float]) -> None:
        """A queue for the partition, with its share of what may wait where `owned` partitions are owned.

        `levels`: what its controllers had come to.
        """
        records_max = max(SHARE_RECORDS_MIN, 2 * self._limits.batch_records_max // owned)
        bytes_max = max(SHARE_BYTES_MIN, WAITING_BYTES_MAX // owned)
        self._feeds[partition] = Feed(partition, records_max, bytes_max, levels=levels)

    def wake(self) -> None:
        """Something has changed: records arrived, or a run has ended."""
        self._ripe.set()

    async def changed(self) -> None:
        """Returns when something has changed since the last call."""
        await self._ripe.wait()
        self._ripe.clear()

    async def linger(self) -> None:
        """Waits a little for more records, and no less than transactions need to follow each other."""
        loop = asyncio.get_running_loop()
        linger_s = 0.0 if self._full() else self._limits.linger_ms / 1000
        pause_s = max(linger_s, self._next_start_s - loop.time())
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        if self._behind():
            await self._until_full()

    def take(self) -> list[Run]:
        """Runs of all that waits, whole partitions at a time, those first that had none for longest.

        Full runs are what makes transactions cheap: a little of each of 96 partitions would be as many transactions.
        """
        ready = [feed for feed in self._feeds.values() if feed.can_run]
        # As if all were of one size, as in `Feed.take`.
        value_bytes = sum(feed.value_bytes for feed in ready)
        fits = sum(feed.waiting for feed in ready) * BATCH_BYTES_MAX // max(1, value_bytes)
        room = min(self._size.records, max(1, fits))
        runs: list[Run] = []
        for feed in sorted(ready, key=lambda feed: feed.ran_at):
            self._turn += 1
            feed.ran_at = self._turn
            runs.append(feed.take(room))
            room -= runs[-1].count
            if room <= 0:
                break
        if runs:
            # A transaction costs about 1 ms of CPU, so their number a second is bounded.
            pause_s = len(runs) / self._transactions_per_s_max
            self._next_start_s = asyncio.get_running_loop().time() + pause_s
        if any(feed.can_run for feed in self._feeds.values()):
            self.wake()
        return runs

    def _full(self) -> bool:
        """As much waits as one batch takes."""
        feeds = self._feeds.values()
        records, value_bytes = sum(feed.waiting for feed in feeds), sum(feed.value_bytes for feed in feeds)
        return records >= self._size.records or value_bytes >= BATCH_BYTES_MAX

    def _behind(self) -> bool:
        """More than a batch is still on the broker: then records are cheaper in full batches, and none is late."""
        ahead = sum(max(0, feed.partition.end - feed.partition.position) for feed in self._feeds.values())
        return ahead > self._size.records

    async def _until_full(self) -> None:
        """Returns when a full batch waits, or after `FULL_BATCH_WITHIN_S`."""
        try:
            async with asyncio.timeout(FULL_BATCH_WITHIN_S):
                while not self._full() and self._more_comes():
                    self._ripe.clear()
                    await self._ripe.wait()
        except TimeoutError:
            return

    def _more_comes(self) -> bool:
        """The broker has more of a partition that is not paused."""
        partitions = [feed.partition for feed in self._feeds.values()]
        return any(partition.wanted and partition.end > partition.position for partition in partitions)
