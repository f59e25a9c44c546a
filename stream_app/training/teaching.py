"""Which rows of labelled files may teach: nothing that calibrates, tests or was audited, by its id or its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_app.training.held_out import HeldOut
from stream_app.training.rows import LabelledRow, MarkedRow, json_objects

Rows = Sequence[LabelledRow] | Sequence[MarkedRow]
AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Teaching:
    """The rows of each file that may teach, and how many may not: asked by an audit, or held out."""

    parts: Sequence[Rows]
    audited: int
    held_out: int


def was_audited(fields: Mapping[str, object]) -> bool:
    """Whether a row of the feedback topic is what an audit asked: the fair sample of what is accepted."""
    return fields.get("why") == AUDIT


def read_teaching(paths: Sequence[Path], read: Callable[[Path], Rows], held_out: HeldOut) -> Teaching:
    """Read the files, without what is held out, and without events that an audit asked, whoever labelled them.

    `read` passes over what `was_audited`. Raises as it does.
    """
    asked = [fields for path in paths for _, _, fields in json_objects(path) if was_audited(fields)]
    barred = held_out | HeldOut.of((_own(fields), str(fields.get("text", ""))) for fields in asked)
    found = [read(path) for path in paths]
    kept = [_kept(rows, barred) for rows in found] if barred.pairs else found
    return Teaching(kept, len(asked), sum(map(len, found)) - sum(map(len, kept)))


def _own(fields: Mapping[str, object]) -> str | None:
    own = fields.get("id")
    return None if own is None else str(own)


def _kept(rows: Rows, barred: HeldOut) -> Rows:
    kept: Any = [row for row in rows if not (barred.holds_id(row.own_id) or barred.holds_text(row.text))]
    found: Rows = kept  # of the form that they came in
    return found
