"""What people said of events, as their file has it: rows of `shunt sample` that were filled in, or decisions. Pure.

A row's labels stand in `labels` (task -> label, null where nobody said anything), or in `label` for one task. Of a
task of which any label may be right that is a list of those that apply, or a map of each to true or false. Its event
is named by `source`, as `shunt sample` and every decision have it, or by `id` alone. Where `why` is `audit` the
event was drawn among those accepted, so its label tests what the policy promises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from stream_app.codec import timestamp_ms
from stream_app.events import each_label, in_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from stream_app.events import Said as Label


@dataclass(frozen=True, slots=True)
class Said:
    """One label for one task of an event. `place` is the row's, `ref` the event's source where the row names it."""

    place: str
    ref: str | None
    id: str | None
    text: str | None
    task: str
    label: Label
    source_ms: int | None = None
    audit: bool = False
    """The event was drawn among those accepted (`shunt sample --for audit`)."""

    @property
    def about(self) -> str:
        """The event, in the words of the row."""
        return self.ref or self.id or self.place


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row, or one of its labels, that cannot be sent, and why."""

    place: str
    why: str


def said_in(
    rows: Iterable[tuple[int, str, dict[str, object]]],
    tasks: Mapping[str, frozenset[str]],
    only: str | None,
    any_of: Collection[str] = (),
) -> tuple[list[Said], list[Unusable]]:
    """Every label that is filled in, of the task `only` or of all, and what is wrong with the others.

    `rows` are number, place and object (`training.rows.json_objects`); `tasks` has each task's labels, empty where
    the settings do not name them, and `any_of` those of which any label may be right. Of two rows that say the same
    only one is kept; two that differ are both unusable.
    """
    found: dict[tuple[str, str], Said] = {}
    wrong: list[Unusable] = []
    clashing: set[tuple[str, str]] = set()
    for _, place, fields in rows:
        for said in _of_row(place, fields, tasks, only, any_of):
            if isinstance(said, Unusable):
                wrong.append(said)
                continue
            key = (said.about, said.task)
            other = found.setdefault(key, said)
            if set(each_label(other.label)) != set(each_label(said.label)):
                clashing.add(key)
                here, there = in_words(said.label), in_words(other.label)
                wrong.append(Unusable(place, f"{said.task} is {here} here and {there} at {other.place}: which?"))
    return [said for key, said in found.items() if key not in clashing], wrong


def _of_row(
    place: str,
    fields: Mapping[str, object],
    tasks: Mapping[str, frozenset[str]],
    only: str | None,
    any_of: Collection[str],
) -> Iterator[Said | Unusable]:
    labels = _labels(fields, tasks, only)
    if isinstance(labels, str):
        yield Unusable(place, labels)
        return
    ref, source_ms = _source(fields.get("source"))
    event_id, text = fields.get("id"), fields.get("text")
    name = str(event_id) if isinstance(event_id, str | int) and not isinstance(event_id, bool) else None
    for task, told in labels.items():
        if told is None or (only is not None and task != only):
            continue
        label = several(told) if task in any_of else told
        if (problem := _problem(task, label, tasks, any_of)) is not None:
            yield Unusable(place, problem)
        elif ref is None and not name:
            yield Unusable(place, "it names no event: neither source nor id")
        else:
            said = text if isinstance(text, str) and text.strip() else None
            audit = fields.get("why") == "audit"
            yield Said(place, ref, name, said, task, cast("Label", label), source_ms, audit)


def several(told: object) -> object:
    """Those of several labels that apply, where all of `told` says so; else as it was told.

    A map must say true or false of each: what is null there, nobody has looked for.
    """
    if isinstance(told, list):
        return tuple(cast("list[object]", told))
    if not isinstance(told, dict):
        return told
    marks = cast("dict[str, object]", told)
    if not all(isinstance(value, bool | int) and value in {0, 1} for value in marks.values()):
        return told
    return tuple(label for label, value in marks.items() if value)


def _labels(
    fields: Mapping[str, object], tasks: Mapping[str, frozenset[str]], only: str | None
) -> dict[str, object] | str:
    """Task -> what stands there, or what is wrong."""
    many = fields.get("labels")
    if isinstance(many, dict):
        return cast("dict[str, object]", many)
    if "label" not in fields:
        return "it has neither labels nor label"
    named = fields.get("task")
    task = named if isinstance(named, str) else only or (next(iter(tasks)) if len(tasks) == 1 else None)
    return "it does not say which task its label is for: say --task" if task is None else {task: fields["label"]}


def _problem(task: str, label: object, tasks: Mapping[str, frozenset[str]], any_of: Collection[str]) -> str | None:
    if task not in tasks:
        return f"there is no task {task}: there is {', '.join(tasks)}"
    if not isinstance(label, tuple) and task in any_of:
        return f"the labels of {task} are neither a list nor a map of each to true or false"
    for one in cast("tuple[object, ...]", label) if isinstance(label, tuple) else (label,):
        if not isinstance(one, str) or not one:
            return f"the label of {task} is no text"
        if tasks[task] and one not in tasks[task]:
            return f"{task} has no label {one}: it has {', '.join(sorted(tasks[task]))}"
    return None


def _source(told: object) -> tuple[str | None, int | None]:
    """The `topic/partition/offset` of a source, and its time where it tells one."""
    if isinstance(told, str):
        return told, None
    if not isinstance(told, dict):
        return None, None
    source = cast("dict[str, object]", told)
    topic, partition, offset = (source.get(name) for name in ("topic", "partition", "offset"))
    if not (isinstance(topic, str) and isinstance(partition, int) and isinstance(offset, int)):
        return None, None
    stamp = source.get("timestamp")
    try:
        at_ms = timestamp_ms(stamp) if isinstance(stamp, str) else None
    except ValueError:
        at_ms = None
    return f"{topic}/{partition}/{offset}", at_ms
