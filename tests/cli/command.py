"""The command line as a person has it: a process, its output and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
TIMEOUT_S = 90


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Nothing of the developer's own settings or keys reaches the command, nor another tree that is installed."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, "PYTHONPATH": str(ROOT), **more}


def command(*arguments: str) -> list[str]:
    """The command `shunt` of this tree, in the `environment`."""
    return [sys.executable, "-m", "stream_app.cli", *arguments]


def shunt(*arguments: str, cwd: Path, stdin: bytes = b"", **variables: str) -> Ran:
    """Run `shunt` to its end in the folder `cwd`."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=TIMEOUT_S,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
