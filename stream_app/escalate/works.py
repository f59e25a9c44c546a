"""The partitions that are worked on now, and whose turn it is. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.kafka.owned import OwnedPartition


class Works:
    """One `PartitionWork` for each owned partition; they take turns, one event each."""

    def __init__(self) -> None:
        self._by_partition: dict[OwnedPartition, PartitionWork] = {}
        self._turns: deque[PartitionWork] = deque()

    def __len__(self) -> int:
        return len(self._by_partition)

    def __iter__(self) -> Iterator[PartitionWork]:
        return iter(self._by_partition.values())

    def __contains__(self, work: PartitionWork) -> bool:
        """False once its partition was taken away, even where the same number is owned again."""
        return self._by_partition.get(work.partition) is work

    def __getitem__(self, partition: OwnedPartition) -> PartitionWork:
        return self._by_partition[partition]

    def numbered(self, number: int) -> PartitionWork | None:
        """The work of whichever assignment has that partition number now."""
        return next((work for work in self if work.number == number), None)

    def gain(self, work: PartitionWork) -> None:
        """One more, at the end of the line."""
        self._by_partition[work.partition] = work
        self._turns.append(work)

    def lose(self, partition: OwnedPartition) -> PartitionWork | None:
        """One less: it has no more turns."""
        work = self._by_partition.pop(partition, None)
        if work is not None:
            self._turns.remove(work)
        return work

    def next_item(self) -> tuple[PartitionWork, Item] | None:
        """The next event to start, with its partition's work; None where no partition may start one now."""
        for _ in range(len(self._turns)):
            work = self._turns[0]
            self._turns.rotate(-1)
            if (item := work.next_item()) is not None:
                return work, item
        return None
