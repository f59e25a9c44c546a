"""Shares that are held in the stream: each partition's controllers, in its order, their state beside its offset."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from stream_app.kafka import finished
from stream_app.routing.holding import Held, hold, others
from stream_app.routing.share import level_is_sound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.classify.deciding import Verdicts
    from stream_app.classify.feed import Run
    from stream_app.kafka.owned import Committed
    from stream_app.routing.decide import TaskRouter

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(dict[str, float]).decode


def levels_in(committed: Committed, partition: int) -> dict[str, float]:
    """Task -> level, as the metadata beside a committed offset has them; none where it is not to be believed."""
    told = finished.decode(committed.metadata, committed.offset)
    if told.doubt is not None:
        log.warning(
            "partition %d: the shares it held begin anew, its metadata is not believed: %s", partition, told.doubt
        )
    if not told.extra:
        return {}
    try:
        levels = _decode(told.extra)
    except msgspec.DecodeError:
        log.warning("partition %d: the shares it held begin anew, its metadata cannot be read", partition)
        return {}
    return {task: level for task, level in levels.items() if level_is_sound(level)}


async def hold_shares(
    runs: Sequence[Run], places: Sequence[int], routers: Sequence[TaskRouter], verdicts: Verdicts
) -> Verdicts:
    """The verdicts with every share held: run by run, each when the earlier ones of its partition are settled.

    `places` has each event's place among the records of all runs. A run keeps what its controllers have come to.
    """
    if all(router.share is None for router in routers):
        return verdicts
    count = len(verdicts.accepted)
    held = tuple(None if router.share is None else Held.of(count) for router in routers)
    refused, first = sorted(verdicts.refused), 0
    for run in runs:
        begin, end = np.searchsorted(places, (first, first + run.count)).tolist()
        first += run.count
        await run.settles()
        rows = others(range(begin, end), refused)
        for router, routed, of_task in zip(routers, verdicts.routed, held, strict=True):
            if router.share is not None and of_task is not None:
                controller = router.share.controller(run.feed.levels.get(router.task))
                hold(router.share, controller, routed, rows, of_task)
                run.feed.levels[router.task] = controller.level
        run.settle()
    accepted = np.logical_and.reduce([routed.accepted for routed in verdicts.routed])
    accepted[refused] = False
    return replace(verdicts, accepted=accepted, held=held)
