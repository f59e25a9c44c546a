"""The outcomes of a batch are delivered, each partition's in a transaction that commits its offset.

Runs of a partition go in order (`Run.turn`), and one that fails ends its partition for this membership.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, cast

from stream_app.errors import MembershipLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stream_app.classify.batch import Outcomes
    from stream_app.classify.feed import Run
    from stream_app.events import Outgoing
    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)


class Delivering:
    """Delivers runs, and calls `wake` after each: its partition may have another."""

    def __init__(self, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._metrics = metrics
        self._wake = wake

    async def deliver_all(self, runs: list[Run], outcomes: Outcomes) -> None:
        """Every partition's part in a transaction of its own, side by side."""
        out, extra = outcomes.out, outcomes.extra
        deliveries: list[Coroutine[Any, Any, None]] = []
        extra_places = sorted(extra)
        start = 0
        for run in runs:
            end = start + run.count
            outgoing = cast("list[Outgoing]", out[start:end])
            if extra:
                beside = extra_places[bisect_left(extra_places, start) : bisect_left(extra_places, end)]
                outgoing = outgoing + [one for place in beside for one in extra[place]]
            deliveries.append(self.deliver(run, outgoing))
            start = end
        out.clear()  # each part is let go as soon as it stands in batches
        await asyncio.gather(*deliveries)

    async def deliver(self, run: Run, outgoing: Sequence[Outgoing]) -> None:
        """Once its turn has come, unless a run before it failed. A lost partition's records are dropped."""
        feed, partition = run.feed, run.feed.partition
        if run.turn is not None:
            await run.turn
        if feed.broken:
            return
        started_s = time.perf_counter()
        try:
            await partition.deliver(outgoing, run.next_offset, run.metadata)
        except MembershipLost as loss:
            log.info("%d records of partition %d are dropped: %s", run.count, partition.number, loss)
            self._metrics.transaction("classify", "fenced", time.perf_counter() - started_s)
            return
        feed.finish(run, delivered=True)
        self._wake()
        self._metrics.transaction("classify", "committed", time.perf_counter() - started_s)
        self._metrics.committed("classify", partition.number, run.next_offset)

    async def commit(self, mark: Run) -> None:
        """A position behind transaction markers, as a run without records."""
        try:
            await self.deliver(mark, ())
        finally:
            mark.feed.finish(mark, delivered=False)
