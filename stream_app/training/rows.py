"""Labelled rows: the one input format of training and evaluation."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

LABEL, LABELS = "label", "labels"
"""Where a row says its one label, or its map of labels."""
PassedOver = Callable[[Mapping[str, object]], bool]
"""Says of an object whether it is passed over."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text and its gold label; `group` names rows that must stay together in a split.

    `numbered` says that `id` is only the number of its line.
    """

    id: str
    text: str
    label: str
    group: str | None = None
    style: str | None = None
    numbered: bool = False

    @property
    def own_id(self) -> str | None:
        """The id that names it in every file, None where there is none."""
        return None if self.numbered else self.id

    @property
    def said(self) -> Mapping[str, bool]:
        """What its labelling says of labels: one is there."""
        return {self.label: True}


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One text and, for each label that somebody looked for, whether it is there; one left out is unknown."""

    id: str
    text: str
    marks: Mapping[str, bool]
    group: str | None = None
    numbered: bool = False

    @property
    def own_id(self) -> str | None:
        """The id that names it in every file, None where there is none."""
        return None if self.numbered else self.id

    @property
    def said(self) -> Mapping[str, bool]:
        """What its labelling says of labels: its marks."""
        return self.marks


class UnreadableRow(ValueError):  # noqa: N818 - named for what happened
    """A line of a labelled file is not a row; the message names file, line and what is missing."""


def nothing(_fields: Mapping[str, object]) -> bool:
    """Passes over no row."""
    return False


def read_rows(path: Path, label_field: str = LABEL, passed_over: PassedOver = nothing) -> list[LabelledRow]:
    """Read JSON Lines (plain or gzip by content) with `text` and a label, and optional `id`, `group`.

    `label_field` is where the label stands, with dots between the names of nested fields; a row that has none is left
    out, unless it is the plain `label`. A row without `id` is named by its line number. What is `passed_over`
    need be no row. Raises UnreadableRow and OSError.
    """
    lines = (line for line in json_objects(path) if not passed_over(line[2]))
    return [row for line in lines if (row := _row(*line, label_field)) is not None]


def read_marked(path: Path, label_field: str = LABELS, passed_over: PassedOver = nothing) -> list[MarkedRow]:
    """Read JSON Lines with `text` and `labels`, a map of labels to true or false (1 or 0); null is unknown.

    As `read_rows` otherwise.
    """
    lines = (line for line in json_objects(path) if not passed_over(line[2]))
    return [row for line in lines if (row := _marked(*line, label_field)) is not None]


def read_texts(path: Path) -> list[tuple[str | None, str]]:
    """Each row's own id, None where it has none, and its `text`, whatever labels it has. Raises as `read_rows`."""
    found = list[tuple[str | None, str]]()
    for _, place, fields in json_objects(path):
        own, text = fields.get("id"), fields.get("text")
        if not isinstance(text, str):
            raise UnreadableRow(f"{place} needs the string field text")
        found.append((None if own is None else str(own), text))
    return found


def holds_marks(path: Path, label_field: str | None = None) -> bool:
    """Whether the first row is labelled as `read_marked` takes it, and not as `read_rows` does. Raises as they do."""
    for _, _, fields in json_objects(path):
        if label_field is not None:
            return _marks(_at(fields, label_field)) is not None
        return not isinstance(fields.get(LABEL), str) and _marks(fields.get(LABELS)) is not None
    return False


def json_objects(path: Path) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Each line's number, place and object, of JSON Lines that are plain or gzip by content; empty lines are skipped.

    Raises UnreadableRow and OSError.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{path.name}:{number}"
                yield number, place, _object(line, place)


def _object(line: bytes, place: str) -> dict[str, object]:
    try:
        found: object = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise UnreadableRow(f"{place} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableRow(f"{place} is not a JSON object")
    return cast("dict[str, object]", found)


def _row(number: int, place: str, fields: dict[str, object], label_field: str) -> LabelledRow | None:
    text, label = fields.get("text"), _at(fields, label_field)
    if label is None and label_field != LABEL:
        return None
    if not isinstance(text, str) or not isinstance(label, str):
        raise UnreadableRow(f"{place} needs the string fields text and {label_field}")
    style = fields.get("style")
    return LabelledRow(
        id=str(fields.get("id", number)),
        text=text,
        label=label,
        group=_group(fields),
        style=style if isinstance(style, str) else None,
        numbered=fields.get("id") is None,
    )


def _marked(number: int, place: str, fields: dict[str, object], label_field: str) -> MarkedRow | None:
    text, found = fields.get("text"), _at(fields, label_field)
    if found is None and label_field != LABELS:
        return None
    marks = _marks(found)
    if not isinstance(text, str) or marks is None:
        raise UnreadableRow(
            f"{place} needs the string field text, and {label_field}: a map of labels to true or false"
        )
    return MarkedRow(str(fields.get("id", number)), text, marks, _group(fields), numbered=fields.get("id") is None)


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


def _group(fields: Mapping[str, object]) -> str | None:
    group = fields.get("group")
    return None if group is None else str(group)


def in_half_a(row: LabelledRow) -> bool:
    """Whether the row's group falls in half A: the first hex digit of its sha-256 is below 8.

    A row without a group is split by its id, so that any labelled file has two halves.
    """
    name = row.id if row.group is None else row.group
    return int(hashlib.sha256(name.encode()).hexdigest()[0], 16) < 8


def labels_of(rows: Iterable[LabelledRow] | Iterable[MarkedRow]) -> tuple[str, ...]:
    """The label set, sorted: a label's place in it is its index in the model's output."""
    return tuple(sorted({label for row in rows for label in row.said}))
