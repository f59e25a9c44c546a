"""The partitions that are worked on now, and whose turn it is. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from stream_app.escalate.audit_work import AuditWork
from stream_app.escalate.parked_work import ParkedWork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aiokafka.structs import TopicPartition

    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.kafka.owned import OwnedPartition


class Works:
    """One `PartitionWork` for each owned partition; those of each topic take turns, one event each."""

    def __init__(self) -> None:
        self._by_partition: dict[OwnedPartition, PartitionWork] = {}
        self._turns: deque[PartitionWork] = deque()
        self._parked: deque[ParkedWork] = deque()
        self._audits: deque[ParkedWork] = deque()

    def __iter__(self) -> Iterator[PartitionWork]:
        return iter(self._by_partition.values())

    def __contains__(self, work: PartitionWork) -> bool:
        """False once its partition was taken away, even where the same one is owned again."""
        return self._by_partition.get(work.partition) is work

    def __getitem__(self, partition: OwnedPartition) -> PartitionWork:
        return self._by_partition[partition]

    @property
    def escalated(self) -> Sequence[PartitionWork]:
        """Those of the escalation topic."""
        return self._turns

    @property
    def parked(self) -> Sequence[ParkedWork]:
        """Those of the parked topic."""
        return self._parked

    @property
    def audits(self) -> Sequence[ParkedWork]:
        """Those of the audits topic."""
        return self._audits

    @property
    def any_spare(self) -> bool:
        """True while a parked event or an audit waits or rests here."""
        return any(work.waiting or work.resting for work in (*self._parked, *self._audits))

    @property
    def busy(self) -> int:
        """How many may have something to commit at any moment: partitions of parked events and audits seldom have."""
        return len(self._turns) + sum(work.finished.unfinished > 0 for work in (*self._parked, *self._audits))

    def of(self, tp: TopicPartition) -> PartitionWork | None:
        """The work of whichever assignment has that partition now."""
        return next((work for work in self if work.partition.tp == tp), None)

    def gain(self, work: PartitionWork) -> None:
        """One more, at the end of its line."""
        self._by_partition[work.partition] = work
        if isinstance(work, ParkedWork):
            self._spare_of(work).append(work)
        else:
            self._turns.append(work)

    def lose(self, partition: OwnedPartition) -> PartitionWork | None:
        """One less: it has no more turns."""
        work = self._by_partition.pop(partition, None)
        if isinstance(work, ParkedWork):
            self._spare_of(work).remove(work)
        elif work is not None:
            self._turns.remove(work)
        return work

    def next_item(self) -> tuple[PartitionWork, Item] | None:
        """The next escalated event to start, with its partition's work; None where none may be started now."""
        for _ in range(len(self._turns)):
            work = self._turns[0]
            self._turns.rotate(-1)
            if (item := work.next_item()) is not None:
                return work, item
        return None

    def next_spare(
        self, now_s: float, payable: Callable[[int], bool], *, audits: bool = True
    ) -> tuple[ParkedWork, Item] | None:
        """The next parked event to try, else one of `audits`; only of partitions whose account is `payable` here."""
        for line in (self._parked, self._audits) if audits else (self._parked,):
            for _ in range(len(line)):
                work = line[0]
                line.rotate(-1)
                if payable(work.account) and (item := work.next_due(now_s)) is not None:
                    return work, item
        return None

    def _spare_of(self, work: ParkedWork) -> deque[ParkedWork]:
        return self._audits if isinstance(work, AuditWork) else self._parked
