"""Counts LLM answers that were paid for in vain, since the partition of their record was taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.escalate.question import GotAnswer
from stream_app.escalate.unused import Unused

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.escalate.partition_work import PartitionWork
    from stream_app.escalate.question import NoAnswer
    from stream_app.escalate.works import Works
    from stream_app.telemetry import Metrics


class Waste:
    """Follows each paid answer from its call to its commit, or to the proof that it was for nothing (`unused`)."""

    def __init__(self, works: Works, metrics: Metrics, now_s: Callable[[], float]) -> None:
        self._works, self._metrics, self._now_s = works, metrics, now_s
        self._unused = Unused()

    def asked(self, work: PartitionWork, offset: int, result: GotAnswer | NoAnswer, *, cached: bool = True) -> None:
        """That record's question has ended: what it paid is in doubt until the record's outcome is committed.

        `cached`: the answer is kept for whoever asks the same.
        """
        kept = _paid_for(result)
        if kept is None:
            return
        kept = kept and cached
        if work in self._works:
            work.paid[offset] = kept
        else:
            self._note(work, {offset: kept})

    def uncommitted(self, work: PartitionWork) -> None:
        """No more is committed for this assignment: what it paid for and did not commit is in vain, or may be."""
        self._note(work, work.paid)

    def came_back(self, work: PartitionWork, committed: int) -> None:
        """The partition is owned again, at that offset."""
        in_vain = self._unused.came_back(work.partition.tp, committed, work.inherited)
        self._metrics.llm_wasted("rebalance", in_vain)

    def settle(self) -> None:
        """What stayed away too long is in vain."""
        self._metrics.llm_wasted("rebalance", self._unused.settle(self._now_s()))

    def give_up(self) -> None:
        """The worker ends: what was in doubt is in vain."""
        self._metrics.llm_wasted("shutdown", self._unused.give_up())

    def _note(self, work: PartitionWork, paid: dict[int, bool]) -> None:
        """In vain where the record is finished or the cache has no answer for it; else in doubt."""
        later = self._works.of(work.partition.tp) or work
        for offset, kept in paid.items():
            if not kept or later.was_finished(offset):
                self._metrics.llm_wasted("rebalance")
            elif later is work:
                self._unused.note(work.partition.tp, offset, self._now_s())
        paid.clear()


def _paid_for(result: GotAnswer | NoAnswer) -> bool | None:
    """Whether the answer is kept in the cache; None where this event paid for none."""
    if isinstance(result, GotAnswer):
        return None if result.usage.cached else True
    paid = result.reason in {"refused", "invalid_answer"} and result.usage is not None and result.usage.input_tokens
    return False if paid else None
