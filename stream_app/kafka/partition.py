"""The life of one owned partition, and the gate that its records pass. Pure.

    OPENING ──► READY ──► CLOSING ──► LOST
       └──────────┴───────────────────►┘

OPENING: assigned; its producer is being started, which fences the previous owner. READY: records are accepted.
CLOSING: being revoked; what is in flight may still be delivered. LOST: nothing of it may be delivered any more.
"""

from __future__ import annotations

from enum import Enum, auto


class PartitionStatus(Enum):
    """Where a partition is in its life."""

    OPENING = auto()
    READY = auto()
    CLOSING = auto()
    LOST = auto()


LEGAL_MOVES: dict[PartitionStatus, frozenset[PartitionStatus]] = {
    PartitionStatus.OPENING: frozenset({PartitionStatus.READY, PartitionStatus.CLOSING, PartitionStatus.LOST}),
    PartitionStatus.READY: frozenset({PartitionStatus.CLOSING, PartitionStatus.LOST}),
    PartitionStatus.CLOSING: frozenset({PartitionStatus.LOST}),
    PartitionStatus.LOST: frozenset(),
}


class IllegalMove(RuntimeError):  # noqa: N818 - named for what happened
    """A programming error: the partition cannot go from where it is to there."""


class PartitionLife:
    """Status and watermark of one partition in one assignment.

    Every assignment makes a life of its own, so nothing of an earlier one can pass. A record is accepted only in
    READY, and from `next_offset` on: aiokafka hands out records during callbacks, and from a position older than
    the fence (both gave thousands of duplicates when measured).
    """

    __slots__ = ("next_offset", "status")

    def __init__(self) -> None:
        self.status = PartitionStatus.OPENING
        self.next_offset = 0

    def move(self, to: PartitionStatus) -> None:
        """Goes to `to`; IllegalMove if the table does not allow it."""
        if to not in LEGAL_MOVES[self.status]:
            raise IllegalMove(f"{self.status.name} -> {to.name}")
        self.status = to

    def ready(self, next_offset: int) -> None:
        """Opens the gate: records from `next_offset` on are accepted."""
        self.move(PartitionStatus.READY)
        self.next_offset = next_offset

    def admit(self, first_offset: int, last_offset: int) -> int | None:
        """The offset from which a fetched run of records is accepted, None if none of it is.

        Moves the watermark behind the run.
        """
        if self.status is not PartitionStatus.READY or last_offset < self.next_offset:
            return None
        accepted_from = max(first_offset, self.next_offset)
        self.next_offset = last_offset + 1
        return accepted_from

    @property
    def may_deliver(self) -> bool:
        """True while outcomes may still be delivered."""
        return self.status in {PartitionStatus.READY, PartitionStatus.CLOSING}
