"""What a training run has made so far, on disk, so that an interrupted run goes on where it stood."""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_FINGERPRINT = "fingerprint"
_Kind = TypeVar("_Kind", np.float64, np.int64)


@dataclass(frozen=True, slots=True)
class Work:
    """Arrays by name in one folder. Each is made once: who asks for it again, a later run too, gets it from disk.

    Without a folder nothing is kept, and each is made when it is asked for.

    That is only right where the same name always means the same numbers: `open_work` sees to it that the folder
    belongs to one set of rows, one recipe and one version of the code, and training is seeded.
    """

    folder: Path | None
    prefix: str = ""

    @property
    def place(self) -> Path:
        """The folder, for what is no array. Raises ValueError where nothing is kept."""
        if self.folder is None:
            raise ValueError("this work has no folder")
        return self.folder

    def part(self, name: str) -> "Work":
        """The same folder with `name` before the names of what is kept."""
        return Work(self.folder, f"{self.prefix}{name}-")

    def array(self, name: str, make: Callable[[], NDArray[_Kind]]) -> NDArray[_Kind]:
        """The array of that name, made now unless it was made before.

        It is written beside its place and then renamed: a kill leaves it whole or not at all.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{self.prefix}{name}.npy"
        try:
            return np.load(path)
        except (OSError, ValueError, EOFError):  # not there, or cut short when the machine went down
            made = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.save(file, made)
        unfinished.replace(path)
        return made

    def close(self) -> None:
        """The run is over and its outcome in place: nothing here is needed any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(parts: Iterable[bytes]) -> str:
    """What an interrupted run must share with one that goes on: these parts, and the code of this room."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


NOT_KEPT = Work(None)
"""The work of a run too short to be gone on with."""


def open_work(folder: Path, belongs_to: str) -> tuple[Work, bool]:
    """The work kept in `folder`, and whether a run of this fingerprint left some; another run's is thrown away."""
    named = folder / _FINGERPRINT
    goes_on = named.exists() and named.read_text() == belongs_to
    if not goes_on:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        named.write_text(belongs_to)
    return Work(folder), goes_on and any(each.name != _FINGERPRINT for each in folder.iterdir())
