"""The hot path's encoder: many small finals at once, the same bytes as `encode_decision`.

Nearly all of a small final is the same from record to record: what differs is the id, a few numbers, the
source and the payload. So each combination of labels and grades gets one template, and a record costs one
formatting of bytes. Numbers are written for the whole batch in one call.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.codec.decisions import DECISION_TYPES, PROBABILITY_STEPS
from stream_app.codec.headers import (
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    JSON_CONTENT,
    KIND,
    SHUNT_SOURCE,
    TRACEPARENT,
)
from stream_app.codec.times import rfc3339
from stream_app.events import Cut, Event, Headers, Kind, Said, UncertifiedReason

_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY

TEMPLATES_MAX: Final = 4_096
"""About 4 MB. One label of each task makes a few dozen; sets of labels may differ from event to event."""
CODES_MAX: Final = 2**62


@dataclass(frozen=True, slots=True)
class Grade:
    """How a tier's answers to a task are taken: everything of them but the label and its numbers."""

    model: str
    threshold: Cut = field(hash=False)  # a map has no hash
    policy: str | None
    certified: bool
    uncertified_reason: UncertifiedReason | None = None


@dataclass(frozen=True, slots=True)
class SmallAnswers:
    """One task's accepted answers to n events, as columns.

    `label` (n) and `grade` (n) are indices into `labels` and `grades`; `probabilities` (n x labels) are
    calibrated and finite, and the confidence is that of the label. `cut` (n) is the threshold of each, where that
    is not the grade's. Where any label may be right `label` is an index into `sets`, and the confidence stands in
    `confidence` (n).
    """

    task: str
    labels: tuple[str, ...]
    grades: tuple[Grade, ...]
    label: NDArray[np.integer[Any]]
    grade: NDArray[np.integer[Any]]
    probabilities: NDArray[np.floating[Any]]
    cut: NDArray[np.floating[Any]] | None = None
    sets: tuple[tuple[str, ...], ...] = ()
    confidence: NDArray[np.floating[Any]] | None = None

    @property
    def choices(self) -> tuple[Said, ...]:
        """What `label` is an index into."""
        return self.labels if self.confidence is None else self.sets


class FinalEncoder:
    """Makes finals of accepted events under one policy. `recommend` gives the labels' action, or None."""

    def __init__(
        self, policy: str | None, recommend: Callable[[Sequence[Said]], str | None], ce_source: bytes
    ) -> None:
        self._policy = policy
        self._recommend = recommend
        self._templates: dict[tuple[object, ...], bytes] = {}
        self._shared = (
            (CE_SPECVERSION, b"1.0"),
            (CE_TYPE, DECISION_TYPES[Kind.FINAL]),
            (CE_SOURCE, ce_source),
            (CONTENT_TYPE, JSON_CONTENT),
            (KIND, Kind.FINAL.value.encode()),
        )

    def encode(
        self, events: Sequence[Event], tasks: Sequence[SmallAnswers], decided_at_ms: int
    ) -> Iterator[tuple[bytes, Headers]]:
        """Value and headers of each event's final, revision 0, in order.

        The columns of `tasks` are as long as `events`; `answers` keeps the order of `tasks`.
        """
        decided_at = rfc3339(decided_at_ms)
        specversion, ce_type, ce_source, content, kind = self._shared
        ce_time = (CE_TIME, decided_at)
        templates = self._templates_of(tasks)
        numbers, width = _numbers(tasks)
        topic, partition, prefix, told, stamp_ms, stamp = "", -1, b"", b"", -1, rfc3339(-1)
        at = 0
        for event, template in zip(events, templates, strict=True):
            source = event.source
            if source.partition != partition or source.topic != topic:
                topic, partition = source.topic, source.partition
                prefix = f"{topic}/{partition}/".encode()
                told = b'{"topic":%b,"partition":%d,"offset":' % (orjson.dumps(topic), partition)
            if source.timestamp_ms != stamp_ms:
                stamp_ms = source.timestamp_ms
                stamp = rfc3339(stamp_ms)
            event_id = event.id
            ref = b"%b%d" % (prefix, source.offset)
            value = template % (
                orjson.dumps(event_id),
                *numbers[at : at + width],
                told,
                source.offset,
                stamp,
                decided_at,
                event.payload,
            )
            at += width
            headers = (
                specversion,
                (CE_ID, ref + b"#0"),
                (CE_SUBJECT, event_id.encode()),
                ce_type,
                ce_source,
                ce_time,
                content,
                kind,
                (SHUNT_SOURCE, ref),
            )
            trace = event.traceparent
            yield value, headers if trace is None else (*headers, (TRACEPARENT, trace))

    def _templates_of(self, tasks: Sequence[SmallAnswers]) -> list[bytes]:
        """Each row's template."""
        made: dict[int, bytes] = {}
        codes = _codes(tasks)
        found, rows = np.unique(codes, return_index=True)
        for code, row in zip(found.tolist(), rows.tolist(), strict=True):
            chosen = [(task, task.grades[task.grade[row]], task.choices[task.label[row]]) for task in tasks]
            key = tuple((task.task, task.labels, grade, said, task.cut is None) for task, grade, said in chosen)
            template = self._templates.get(key)
            if template is None:
                if len(self._templates) >= TEMPLATES_MAX:
                    self._templates.clear()
                template = self._templates[key] = self._template(chosen)
            made[code] = template
        return [made[code] for code in codes.tolist()]

    def _template(self, chosen: Sequence[tuple[SmallAnswers, Grade, Said]]) -> bytes:
        """What is the same in every final with these labels and grades."""
        labels = [said for _, _, said in chosen]
        answers = b",".join(
            b"%b:%b" % (_constant(task.task), self._answer(task, grade, said)) for task, grade, said in chosen
        )
        return b"".join(
            (
                b'{"id":%b,"kind":"final","revision":0,"replaces":null,"pending":[],"decided_by":"small","policy":',
                _constant(self._policy),
                b',"certified":',
                _constant(all(grade.certified for _, grade, _ in chosen)),
                b',"degraded":false,"degraded_reason":null,"answers":{',
                answers,
                b'},"enrichment":{},"usage":null,"recommended_action":',
                _constant(self._recommend(labels)),
                b',"source":%b%d,"timestamp":"%b"},"decided_at":"%b","payload":%b}',
            )
        )

    def _answer(self, task: SmallAnswers, grade: Grade, said: Said) -> bytes:
        probabilities = b",".join(_constant(name) + b":%b" for name in task.labels)
        reason = grade.uncertified_reason
        return b"".join(
            (
                b'{"label":',
                _constant(said),
                b',"confidence":%b,"probabilities":{',
                probabilities,
                b'},"threshold":',
                _constant(grade.threshold) if task.cut is None else b"%b",
                b',"decided_by":"small","model":',
                _constant(grade.model),
                b',"certified":',
                _constant(grade.certified),
                b',"escalated_because":null,"policy":',
                _constant(grade.policy),
                b"}" if reason is None else b',"uncertified_reason":' + _constant(reason) + b"}",
            )
        )


def _codes(tasks: Sequence[SmallAnswers]) -> NDArray[np.int64]:
    """A number for each row, the same for rows whose labels and grades are."""
    codes, choices = np.zeros(len(tasks[0].label), dtype=np.int64), 1
    for task in tasks:
        here = len(task.grades) * len(task.choices)
        if choices * here > CODES_MAX:  # sets of labels are many: those that occur are numbered anew
            _, codes = np.unique(codes, return_inverse=True)
            choices = len(codes)
        codes = (codes * len(task.grades) + task.grade) * len(task.choices) + task.label
        choices *= here
    return codes


def _constant(value: object) -> bytes:
    """JSON that stands in a template, where a percent sign is written twice."""
    return orjson.dumps(value).replace(b"%", b"%%")


def _numbers(tasks: Sequence[SmallAnswers]) -> tuple[list[bytes], int]:
    """Each row's numbers as JSON, one row after another, and how many a row has."""
    columns: list[NDArray[np.float64]] = []
    for task in tasks:
        shares = np.asarray(task.probabilities, dtype=np.float64)
        if task.confidence is None:
            confidence = np.take_along_axis(shares, np.asarray(task.label)[:, None], axis=1)
        else:
            confidence = np.asarray(task.confidence, dtype=np.float64)[:, None]
        columns += [confidence, shares]
        if task.cut is not None:
            columns.append(np.asarray(task.cut, dtype=np.float64)[:, None])
    table = np.ascontiguousarray(np.rint(np.hstack(columns) * PROBABILITY_STEPS) / PROBABILITY_STEPS)
    return orjson.dumps(table.ravel(), option=_NUMPY)[1:-1].split(b","), table.shape[1]
