"""Which rows of labelled files may teach: nothing that calibrates, tests or was audited, by its id or its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_app.training.held_out import HeldOut
from stream_app.training.rows import LabelledRow, MarkedRow, PassedOver

Rows = Sequence[LabelledRow] | Sequence[MarkedRow]
AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Teaching:
    """The rows of each file that may teach, and how many may not: asked by an audit, or held out."""

    parts: Sequence[Rows]
    audited: int
    held_out: int


def read_teaching(paths: Sequence[Path], read: Callable[[Path, PassedOver], Rows], held_out: HeldOut) -> Teaching:
    """Read the files, without what is held out, and without events that an audit asked, whoever labelled them.

    Rows of the feedback topic that an audit asked are the fair sample of what is accepted. `read` reads a file, but
    for what it is to pass over. Raises as it does.
    """
    asked = list[Mapping[str, object]]()

    def audited(fields: Mapping[str, object]) -> bool:
        if fields.get("why") != AUDIT:
            return False
        asked.append(fields)
        return True

    found = [read(path, audited) for path in paths]
    barred = held_out | HeldOut.of((_own(fields), str(fields.get("text", ""))) for fields in asked)
    kept = [_kept(rows, barred) for rows in found] if barred.pairs else found
    return Teaching(kept, len(asked), sum(map(len, found)) - sum(map(len, kept)))


def _own(fields: Mapping[str, object]) -> str | None:
    own = fields.get("id")
    return None if own is None else str(own)


def _kept(rows: Rows, barred: HeldOut) -> Rows:
    kept: Any = [row for row in rows if not (barred.holds_id(row.own_id) or barred.holds_text(row.text))]
    found: Rows = kept  # of the form that they came in
    return found
