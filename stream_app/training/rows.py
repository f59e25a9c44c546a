"""Labelled rows: the one input format of training and evaluation."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text and its gold label; `group` names rows that must stay together in a split."""

    id: str
    text: str
    label: str
    group: str | None = None
    style: str | None = None


class UnreadableRow(ValueError):  # noqa: N818 - named for what happened
    """A line of a labelled file is not a row; the message names file, line and what is missing."""


def read_rows(path: Path) -> list[LabelledRow]:
    """Read JSON Lines (plain or gzip by content) with `text` and `label`, and optional `id`, `group`.

    A row without `id` is named by its line number. Raises UnreadableRow and OSError.
    """
    return list(_rows(path))


def _rows(path: Path) -> Iterator[LabelledRow]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _row(line, f"{path.name}:{number}", number)


def _row(line: bytes, place: str, number: int) -> LabelledRow:
    try:
        found: object = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise UnreadableRow(f"{place} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableRow(f"{place} is not a JSON object")
    fields = cast("dict[str, object]", found)
    text, label = fields.get("text"), fields.get("label")
    if not isinstance(text, str) or not isinstance(label, str):
        raise UnreadableRow(f"{place} needs the string fields text and label")
    group, style = fields.get("group"), fields.get("style")
    return LabelledRow(
        id=str(fields.get("id", number)),
        text=text,
        label=label,
        group=None if group is None else str(group),
        style=style if isinstance(style, str) else None,
    )


def in_half_a(row: LabelledRow) -> bool:
    """Whether the row's group falls in half A: the first hex digit of its sha-256 is below 8.

    A row without a group is split by its id, so that any labelled file has two halves.
    """
    name = row.id if row.group is None else row.group
    return int(hashlib.sha256(name.encode()).hexdigest()[0], 16) < 8


def labels_of(rows: Iterable[LabelledRow]) -> tuple[str, ...]:
    """The label set, sorted: a label's place in it is its index in the model's output."""
    return tuple(sorted({row.label for row in rows}))
