"""What is right for each row of a task: one label of several, or a yes or no for each of several labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import SettingsError
from stream_app.training.rows import LabelledRow, MarkedRow

UNKNOWN, NO, YES = -1, 0, 1


class TaskKind(StrEnum):
    """How a task's labels stand to each other; the word in settings, model folders and on the command line."""

    ONE_OF = "one_of"
    """Exactly one label is right: probabilities sum to 1."""
    ANY_OF = "any_of"
    """Each label is right or not by itself: independent probabilities."""


@dataclass(frozen=True, slots=True)
class Gold:
    """The marks of rows, int8 [rows, labels]: YES, NO or UNKNOWN; a `one_of` row has one YES and no UNKNOWN."""

    kind: TaskKind
    labels: tuple[str, ...]
    marks: NDArray[np.int8]

    @property
    def places(self) -> NDArray[np.int64]:
        """Each `one_of` row's label by its place in `labels`."""
        return self.marks.argmax(axis=1).astype(np.int64)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which marks are known, [rows, labels]."""
        return self.marks != UNKNOWN

    @property
    def yes(self) -> NDArray[np.bool_]:
        """Which marks say yes, [rows, labels]."""
        return self.marks == YES

    @property
    def strata(self) -> NDArray[np.int64]:
        """A class for each row that folds should hold alike: its label, of several the rarest, 0 for none."""
        rarest_last = np.argsort(-self.yes.sum(axis=0), kind="stable")
        found = np.zeros(len(self.marks), np.int64)
        for label in rarest_last:
            found[self.yes[:, label]] = label + 1
        return found

    def of(self, rows: NDArray[np.int64]) -> "Gold":
        """The marks of some of the rows."""
        return Gold(self.kind, self.labels, self.marks[rows])


def kind_of(rows: Sequence[LabelledRow] | Sequence[MarkedRow]) -> TaskKind:
    """The kind of task that rows of this form are labelled for."""
    return TaskKind.ANY_OF if rows and isinstance(rows[0], MarkedRow) else TaskKind.ONE_OF


def gold_of(rows: Sequence[LabelledRow] | Sequence[MarkedRow], labels: Sequence[str]) -> Gold:
    """The rows' marks for these labels. Raises SettingsError for a label outside them."""
    places = {label: at for at, label in enumerate(labels)}
    foreign = sorted({label for row in rows for label in row.said} - places.keys())
    if foreign:
        raise SettingsError(
            f"label {foreign[0]!r} is not one of the model's ({', '.join(labels)})",
            advice="use rows of the same task",
        )
    kind = kind_of(rows)
    marks = np.full((len(rows), len(labels)), NO if kind is TaskKind.ONE_OF else UNKNOWN, np.int8)
    for at, row in enumerate(rows):
        for label, there in row.said.items():
            marks[at, places[label]] = YES if there else NO
    return Gold(kind, tuple(labels), marks)
