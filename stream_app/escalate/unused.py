"""Answers that were paid for and not committed when their partition was taken away. Pure.

Such an answer is not in vain yet: it is kept in the cache, and where the partition comes back to this worker the
record is answered from there. In vain it is as soon as somebody else has finished the record, and when the
partition has stayed away for `SETTLE_S`. Both make the count an upper bound: a commit of our own whose end we
never heard of looks like somebody else's, and a partition may come back later still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiokafka.structs import TopicPartition

SETTLE_S = 60.0
"""Longer than a rebalance takes: session timeout and hand-over, and the opening of partitions."""


@dataclass(slots=True)
class Unused:
    """Paid answers in doubt, by partition and offset, each with when its doubt began."""

    _since_s: dict[TopicPartition, dict[int, float]] = field(default_factory=dict["TopicPartition", dict[int, float]])

    def note(self, partition: TopicPartition, offset: int, now_s: float) -> None:
        """That record's answer was paid for; the partition is gone, and the answer not committed."""
        self._since_s.setdefault(partition, {})[offset] = now_s

    def came_back(self, partition: TopicPartition, committed: int, finished: frozenset[int]) -> int:
        """The partition is owned again: how many of its answers are in vain, since their records are finished."""
        return sum(offset < committed or offset in finished for offset in self._since_s.pop(partition, ()))

    def settle(self, now_s: float) -> int:
        """How many answers are in vain, since their partition stayed away."""
        settled = 0
        for partition, since_s in list(self._since_s.items()):
            left = {offset: at_s for offset, at_s in since_s.items() if at_s > now_s - SETTLE_S}
            settled += len(since_s) - len(left)
            if left:
                self._since_s[partition] = left
            else:
                del self._since_s[partition]
        return settled

    def give_up(self) -> int:
        """The worker ends: how many answers are in vain with it."""
        left = sum(len(offsets) for offsets in self._since_s.values())
        self._since_s.clear()
        return left
