"""Three disjoint parts of labelled rows: to calibrate confidence, to certify the cut, to test the whole."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.errors import SettingsError
from stream_app.routing.calibration import Float64Array
from stream_app.routing.certification import rows_needed
from stream_app.routing.models import IndexArray
from stream_app.training.recorded import RecordedFile, RecordedRow

CALIBRATION_SHARE, CERTIFICATION_SHARE = 0.35, 0.5
"""The rest is for the test. Certification gets most: a temperature needs hundreds of rows, a bound thousands."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Row indexes of each part, rising."""

    calibration: IndexArray
    certification: IndexArray
    test: IndexArray


def split(rows: Sequence[RecordedRow]) -> Parts:
    """Each row's part from a hash of its group, else of its text: the same on every run and every machine."""
    places = _places(rows, b"shunt calibrate")
    first, second = CALIBRATION_SHARE, CALIBRATION_SHARE + CERTIFICATION_SHARE
    return Parts(
        np.flatnonzero(places < first),
        np.flatnonzero((places >= first) & (places < second)),
        np.flatnonzero(places >= second),
    )


def folds(rows: Sequence[RecordedRow], count: int) -> IndexArray:
    """A fold below `count` for each row, the same for all rows of a group, whatever their part."""
    return (_places(rows, b"shunt folds") * count).astype(np.intp)


def _places(rows: Sequence[RecordedRow], purpose: bytes) -> Float64Array:
    """A number in [0, 1) for each row that only its group, else its text, decides. The purpose keeps splits apart."""
    return np.array([_place(row.text if row.group is None else row.group, purpose) for row in rows])


def _place(name: str, purpose: bytes) -> float:
    digest = hashlib.sha256(purpose + b"\0" + name.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def by_file(files: Sequence[RecordedFile], rows: IndexArray) -> list[IndexArray]:
    """The given rows, apart for each file: indexes count over all files in order."""
    ends = np.cumsum([len(file.rows) for file in files])
    return [rows[(rows >= end - len(file.rows)) & (rows < end)] for file, end in zip(files, ends, strict=True)]


def refuse_too_few(target_error: float, delta: float, rows: int, certification: int) -> None:
    """Raise SettingsError, with the number needed, where even faultless answers could not be certified."""
    needed = rows_needed(target_error, delta)
    if certification < needed:
        total = round(needed / CERTIFICATION_SHARE)
        raise SettingsError(
            f"{rows:,} labelled rows are too few to certify an error of {target_error:.2%} at delta {delta:g}",
            advice=f"label at least {total:,} (in each file, if each is to be certified), or raise target_error",
        )
