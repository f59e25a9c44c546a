"""Labelled rows: the one input format of training and evaluation."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

LABEL, LABELS = "label", "labels"
"""Where a row says its one label, or its map of labels."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text and its gold label; `group` names rows that must stay together in a split."""

    id: str
    text: str
    label: str
    group: str | None = None
    style: str | None = None


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One text and, for each label that somebody looked for, whether it is there; one left out is unknown."""

    id: str
    text: str
    marks: Mapping[str, bool]
    group: str | None = None


class UnreadableRow(ValueError):  # noqa: N818 - named for what happened
    """A line of a labelled file is not a row; the message names file, line and what is missing."""


def read_rows(path: Path, label_field: str = LABEL) -> list[LabelledRow]:
    """Read JSON Lines (plain or gzip by content) with `text` and a label, and optional `id`, `group`.

    `label_field` is where the label stands, with dots between the names of nested fields; a row that has none is left
    out, unless it is the plain `label`. A row without `id` is named by its line number. Raises UnreadableRow and
    OSError.
    """
    return [row for line in _lines(path) if (row := _row(line, label_field)) is not None]


def read_marked(path: Path, label_field: str = LABELS) -> list[MarkedRow]:
    """Read JSON Lines with `text` and `labels`, a map of labels to true or false (1 or 0); null is unknown.

    As `read_rows` otherwise.
    """
    return [row for line in _lines(path) if (row := _marked(line, label_field)) is not None]


def holds_marks(path: Path, label_field: str | None = None) -> bool:
    """Whether the first row is labelled as `read_marked` takes it, and not as `read_rows` does. Raises as they do."""
    for line in _lines(path):
        if label_field is not None:
            return _marks(_at(line.fields, label_field)) is not None
        return not isinstance(line.fields.get(LABEL), str) and _marks(line.fields.get(LABELS)) is not None
    return False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line's fields, where it stands for a person to find, and its number."""

    fields: Mapping[str, object]
    place: str
    number: int


def _lines(path: Path) -> Iterator[_Line]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{path.name}:{number}"
                yield _Line(_fields(line, place), place, number)


def _fields(line: bytes, place: str) -> dict[str, object]:
    try:
        found: object = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise UnreadableRow(f"{place} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableRow(f"{place} is not a JSON object")
    return cast("dict[str, object]", found)


def _row(line: _Line, label_field: str) -> LabelledRow | None:
    text, label = line.fields.get("text"), _at(line.fields, label_field)
    if label is None and label_field != LABEL:
        return None
    if not isinstance(text, str) or not isinstance(label, str):
        raise UnreadableRow(f"{line.place} needs the string fields text and {label_field}")
    style = line.fields.get("style")
    return LabelledRow(
        id=_id(line),
        text=text,
        label=label,
        group=_group(line),
        style=style if isinstance(style, str) else None,
    )


def _marked(line: _Line, label_field: str) -> MarkedRow | None:
    text, found = line.fields.get("text"), _at(line.fields, label_field)
    if found is None and label_field != LABELS:
        return None
    marks = _marks(found)
    if not isinstance(text, str) or marks is None:
        raise UnreadableRow(
            f"{line.place} needs the string field text, and {label_field}: a map of labels to true or false"
        )
    return MarkedRow(_id(line), text, marks, _group(line))


def _at(fields: Mapping[str, object], path: str) -> object:
    """What stands at a path of names with dots between; None where there is nothing."""
    found: object = fields
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _marks(labels: object) -> dict[str, bool] | None:
    if not isinstance(labels, dict):
        return None
    said = cast("dict[str, object]", labels)
    if not all(value is None or (isinstance(value, (int, float)) and value in {0, 1}) for value in said.values()):
        return None
    return {label: bool(value) for label, value in said.items() if value is not None}


def _id(line: _Line) -> str:
    return str(line.fields.get("id", line.number))


def _group(line: _Line) -> str | None:
    group = line.fields.get("group")
    return None if group is None else str(group)


def in_half_a(row: LabelledRow) -> bool:
    """Whether the row's group falls in half A: the first hex digit of its sha-256 is below 8.

    A row without a group is split by its id, so that any labelled file has two halves.
    """
    name = row.id if row.group is None else row.group
    return int(hashlib.sha256(name.encode()).hexdigest()[0], 16) < 8
