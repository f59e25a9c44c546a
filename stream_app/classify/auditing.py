"""The rows of a batch that are audited, found without a look at the others."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.events import Event
    from stream_app.routing.audit_draw import AuditDraw

GAPS_MAX = 4
"""Of a partition whose offsets lie wider apart than this, each record's own offset is drawn: a compacted topic."""


def audited_rows(draw: AuditDraw, counts: Sequence[int], places: Sequence[int], events: Sequence[Event]) -> list[int]:
    """The rows of `events` that are drawn, rising.

    `counts` are the records of each run, one partition's in their order; `places` (rising) where each event stands
    among the records of all runs.
    """
    if draw.share <= 0:
        return []
    rows = list[int]()
    begin = 0
    for records in accumulate(counts):
        end = bisect_left(places, records, begin)
        if begin < end:
            rows += _of_partition(draw, events, begin, end)
        begin = end
    return rows


def _of_partition(draw: AuditDraw, events: Sequence[Event], begin: int, end: int) -> list[int]:
    first, last = events[begin].source, events[end - 1].source
    if last.offset - first.offset >= GAPS_MAX * (end - begin):
        offsets = np.array([event.source.offset for event in events[begin:end]], np.int64)
        return (begin + np.flatnonzero(draw.drawn(first.topic, first.partition, offsets))).tolist()
    rows = list[int]()
    whole = last.offset - first.offset == end - 1 - begin  # nearly always: then a row's place is known
    for offset in draw.between(first.topic, first.partition, first.offset, last.offset):
        row = begin + offset - first.offset if whole else bisect_left(events, offset, begin, end, key=_offset)
        if _offset(events[row]) == offset:  # else a marker, or a record that is no event
            rows.append(row)
    return rows


def _offset(event: Event) -> int:
    return event.source.offset
