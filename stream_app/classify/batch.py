"""One batch: its records are decoded, decided, and made into the records to produce."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stream_app.classify.auditing import audited_rows
from stream_app.classify.holding import hold_shares
from stream_app.classify.tally import Tally
from stream_app.codec import Cause
from stream_app.errors import ModelRetired, UnreadableRecord
from stream_app.events import Event, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.batch_size import BatchSize
    from stream_app.classify.deciding import Verdicts
    from stream_app.classify.feed import Run
    from stream_app.classify.in_force import Policing
    from stream_app.classify.outbox import Outbox
    from stream_app.codec import Codec
    from stream_app.telemetry import Metrics

    Record = ConsumerRecord[bytes | None, bytes | None]

log = logging.getLogger(__name__)

DECODE_CHUNK = 2_048
"""Records decoded before the event loop gets a turn: about 10 ms."""


@dataclass(slots=True)
class Decoded:
    """A batch's records as events, and where each stands. `out` has the record to produce for each."""

    records: list[Record]
    out: list[Outgoing | None]
    events: list[Event]
    places: list[int]
    tally: Tally


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What becomes of a batch: the record to produce for each of its records, and what `extra` has beside it.

    `extra` has provisional decisions and audits, by place.
    """

    out: list[Outgoing | None]
    extra: dict[int, list[Outgoing]]
    tally: Tally


class BatchWork:
    """Works batches, side by side. Tells `size` how long each took to decide."""

    def __init__(
        self,
        codec: Codec,
        policing: Policing,
        metrics: Metrics,
        size: BatchSize,
        now_ms: Callable[[], int],
    ) -> None:
        self._codec = codec
        self.policing = policing
        """The policy in force: the next batch is pinned to it."""
        self._metrics = metrics
        self._size = size
        self._now_ms = now_ms

    async def outcomes(self, runs: list[Run]) -> Outcomes:
        """What becomes of every record. Inputs and texts are let go here: delivery needs them no more."""
        decoded = await self._decode_all(runs)
        for run in runs:
            run.records = ()
        started_s = time.perf_counter()
        extra = await self._decide_by_policy(decoded, runs)
        self._size.took(len(decoded.records), time.perf_counter() - started_s)
        return Outcomes(decoded.out, extra, decoded.tally)

    def decode(self, record: Record) -> object:
        """One record alone. Raises UnreadableRecord."""
        return self._codec.decode(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.headers,
        )

    async def _decode_all(self, runs: list[Run]) -> Decoded:
        records = [record for run in runs for record in run.records]
        decoded = Decoded(records, [None] * len(records), [], [], Tally())
        decode, out, tally, outbox = self._codec.decode, decoded.out, decoded.tally, self.policing.outbox
        add_event, add_place = decoded.events.append, decoded.places.append
        for place, record in enumerate(records):
            if not place % DECODE_CHUNK:
                await asyncio.sleep(0)  # heartbeats get their turn
            topic, partition, offset, stamp_ms = record.topic, record.partition, record.offset, record.timestamp
            try:
                item = decode(topic, partition, offset, stamp_ms, record.key, record.value, record.headers)
            except UnreadableRecord as error:
                out[place] = outbox.unreadable(record, error)
                tally.dead[error.cause] += 1
                continue
            if type(item) is Event:  # the only other kind is a tombstone; this is asked for every record
                add_event(item)
                add_place(place)
            else:
                out[place] = outbox.tombstone(cast("Any", item))
                tally.tombstones += 1
        return decoded

    async def _decide_by_policy(self, decoded: Decoded, runs: Sequence[Run]) -> dict[int, list[Outgoing]]:
        """Pinned to the policy in force; once more to the next, where a model went with the policy that named it.

        Nothing of the batch has left by then.
        """
        while True:
            pinned = self.policing
            with pinned.pinned():
                try:
                    return await self._decide(decoded, runs, pinned)
                except ModelRetired as gone:
                    log.info("%d records are decided by the policy in force: %s", len(decoded.records), gone.message)

    async def _decide(self, decoded: Decoded, runs: Sequence[Run], by: Policing) -> dict[int, list[Outgoing]]:
        """Fills `decoded.out` for every event; gives provisional decisions and audits by place."""
        events, places, records = decoded.events, decoded.places, decoded.records
        if not events:
            return {}
        verdicts = await by.decider.decide([event.text for event in events])
        verdicts = await hold_shares(runs, places, by.decider.routers, verdicts)
        if by.drift is not None:
            by.drift.observe(by.decider.routers, verdicts)
        at_ms = self._now_ms()
        rows = np.flatnonzero(verdicts.accepted).tolist()
        behind = records if len(places) == len(records) else [records[place] for place in places]
        finals, tally = by.outbox.accepted(rows, events, behind, verdicts, at_ms)
        tally.dead += decoded.tally.dead
        tally.tombstones = decoded.tally.tombstones
        decoded.tally = tally
        if len(finals) == len(records):
            decoded.out[:] = finals  # nothing but finals: nearly every batch of an easy stream
        else:
            for row, final in zip(rows, finals, strict=True):
                decoded.out[places[row]] = final
        extra = self._not_accepted(decoded, verdicts, at_ms, by.outbox)
        self._audit(decoded, runs, verdicts, at_ms, by.outbox, extra)
        self._note_latency(decoded, rows, at_ms)
        return extra

    def _not_accepted(
        self, decoded: Decoded, verdicts: Verdicts, at_ms: int, outbox: Outbox
    ) -> dict[int, list[Outgoing]]:
        """Fills `decoded.out` for events that the small models are unsure of, and for those they refused."""
        extra: dict[int, list[Outgoing]] = {}
        events, places, records, tally = decoded.events, decoded.places, decoded.records, decoded.tally
        for row in np.flatnonzero(~verdicts.accepted).tolist():
            place = places[row]
            if row in verdicts.refused:
                cause = Cause("classify", "model_refused", "ModelRefused", verdicts.refused[row].message)
                decoded.out[place] = outbox.dead(records[place], cause)
                tally.dead["model_refused"] += 1
                continue
            escalated = outbox.escalated(row, events[row], records[place], verdicts, at_ms, tally)
            decoded.out[place] = escalated[0]
            if len(escalated) > 1:
                extra[place] = escalated[1:]
        return extra

    def _audit(
        self,
        decoded: Decoded,
        runs: Sequence[Run],
        verdicts: Verdicts,
        at_ms: int,
        outbox: Outbox,
        extra: dict[int, list[Outgoing]],
    ) -> None:
        """Adds the audits of what was drawn to `extra`. What became a dead letter has no answer to audit."""
        places, records = decoded.places, decoded.records
        for row in audited_rows(outbox.audit_draw, [run.count for run in runs], places, decoded.events):
            place = places[row]
            out = decoded.out[place]
            if row in verdicts.refused or out is None or outbox.is_dead(out):
                continue
            audit = outbox.audit(row, decoded.events[row], records[place], verdicts, at_ms)
            if audit is not None:
                extra.setdefault(place, []).append(audit)
                decoded.tally.audits += 1

    def _note_latency(self, decoded: Decoded, rows: Sequence[int], at_ms: int) -> None:
        events = decoded.events
        stamps = np.array([events[row].source.timestamp_ms for row in rows], np.float64)
        self._metrics.latencies("small", (at_ms - stamps) / 1000)
