"""The folder a stack keeps its state and logs in: one stack at a time has it, and there is room."""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING, TextIO

from stream_app.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

# A broker that cannot write ends, and takes its topics with it; a demo writes some 20 MB.
FREE_BYTES_MIN = 256 * 2**20


def lock_dir(folder: Path) -> TextIO:
    """Make `folder` ours until the returned file is closed. Raises `StartError` while another stack has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "stack.lock").open("a+")
    except OSError as error:
        raise StartError(f"cannot write to {folder}", advice=str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise StartError(
            f"a stack is already running in {folder} (process {owner or 'unknown'})",
            advice="end it (shunt stack down), or choose another folder (--dir)",
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def refuse_full_disk(folder: Path) -> None:
    """Raises `StartError` where a stack would soon fill the disk of `folder`."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES_MIN:
        raise StartError(
            f"only {free_bytes // 2**20} MB are free on the disk of {folder}",
            advice=f"the stack needs {FREE_BYTES_MIN // 2**20} MB: make room, or choose another folder (--dir)",
        )
