"""Sets of labels as numbers, for tasks of which any label may be right. Pure.

Each label has its bit. So whole batches of sets are compared, counted and grouped as single labels are.
"""

from collections.abc import Collection, Sequence

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.models import IndexArray

LABELS_MAX = 62
"""A set is a signed 64-bit number."""


def sets_of(marks: BoolArray) -> IndexArray:
    """The set of each row of `marks` [N, labels]."""
    return marks @ (1 << np.arange(marks.shape[1], dtype=np.intp))


def marks_of(sets: IndexArray, labels: int) -> BoolArray:
    """Which labels are there, [N, labels]: the inverse of `sets_of`."""
    return (sets[:, None] >> np.arange(labels, dtype=np.intp)) % 2 == 1


def label_counts(answers: IndexArray, labels: int, *, any_of: bool) -> tuple[int, ...]:
    """How many of the answers, label indexes or sets, have each label."""
    if any_of:
        return tuple(marks_of(answers, labels).sum(axis=0).tolist())
    return tuple(np.bincount(answers, minlength=labels).tolist())


def labels_in(one: int, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of a set, in the order of `labels`."""
    return tuple(label for place, label in enumerate(labels) if one >> place & 1)


def set_of(some: Collection[str], labels: Sequence[str]) -> int:
    """The inverse of `labels_in`. Raises ValueError for a label that is none of `labels`."""
    return sum(1 << labels.index(label) for label in set(some))
