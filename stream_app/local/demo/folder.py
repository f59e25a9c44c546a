"""A folder for each run of the demo: settings and logs stay for reading, Kafka's data goes, old runs go."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from stream_app.errors import StartError

RUNS = Path(".shunt") / "demo"
KEPT_RUNS = 5


def new_run_folder(runs: Path = RUNS) -> Path:
    """Make the folder of this run, and remove all but the newest of earlier ones.

    Raises StartError where it cannot be made.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder.mkdir()
    except OSError as error:
        raise StartError(
            f"cannot write to {runs.absolute()}", advice=f"{error.strerror}; run it elsewhere"
        ) from error
    _prune(runs)
    return folder


def _prune(runs: Path) -> None:
    for old in sorted(runs.iterdir())[:-KEPT_RUNS]:
        if not _in_use(old):
            shutil.rmtree(old, ignore_errors=True)


def forget_data(folder: Path) -> None:
    """Remove what only a running stack needs."""
    for name in ("kafka", "triton"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    """Whether the process that made the folder still runs."""
    return Path("/proc", folder.name.rpartition("-")[2]).exists()
