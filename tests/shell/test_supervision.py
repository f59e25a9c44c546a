"""Each way a worker can end, as a real process: it ends, in time, with the right status, saying why once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream_app.errors import MembershipLostTooOften, SettingsError
from stream_app.supervision import Ending, root_cause

SCRIPT = Path(__file__).with_name("worker_with.py")


class Worker:
    """A process with one small lane; ended at the end of the test whatever happens."""

    def __init__(self, folder: Path, lane: str, **environment: str) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), lane, str(self.notes)],
            cwd=folder,
            env={**os.environ, "SHUNT_LOG_FORMAT": "text", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, note: str) -> None:
        deadline_s = time.monotonic() + 30
        while note not in self.notes.read_text():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline_s, f"no {note!r} within 30 s"
            time.sleep(0.05)

    def end(self, within_s: float = 30) -> tuple[int, str]:
        """The exit status and standard error."""
        _, errors = self.process.communicate(timeout=within_s)
        return self.process.returncode, errors


@pytest.fixture
def start(tmp_path: Path):
    workers: list[Worker] = []

    def _start(lane: str, **environment: str) -> Worker:
        workers.append(Worker(tmp_path, lane, **environment))
        return workers[-1]

    yield _start
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.communicate()


@pytest.mark.parametrize(
    ("lane", "status", "said"),
    [
        ("raises", 1, "ValueError: a bug"),
        ("raises_at_once", 1, "topic reviews does not exist: make it with `shunt topics create`"),
        ("returns", 1, "its work returned though nobody asked it to"),
        ("background_dies", 1, "in the background"),
        ("system_exit", 7, "status 7"),
        ("system_exit_in_the_background", 7, "status 7"),
        ("membership", 3, "fenced 5 times in 10 minutes"),
        ("cancelled", 1, "was cancelled"),
    ],
)
def test_whatever_ends_a_lane_ends_the_process(start, lane: str, status: int, said: str) -> None:
    """A lane's end is the process's end, with the status its cause means, the cause said exactly once."""
    worker = start(lane)
    ended, errors = worker.end()
    assert ended == status, errors
    critical = [line for line in errors.splitlines() if " CRITICAL " in line]
    assert len(critical) == 1, errors
    assert said in critical[0]


def test_an_error_of_ours_is_one_line_without_a_traceback(start) -> None:
    """What a person can change is said on one line; a trace would bury it."""
    _, errors = start("raises_at_once").end()
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if "reviews" in line]) == 1


def test_the_other_lane_drains_when_one_dies(start) -> None:
    """A failure in one lane lets the other deliver what it has."""
    worker = start("raises", BOTH="1")
    status, errors = worker.end()
    assert status == 1, errors
    assert "drained" in worker.notes.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_with_0(start, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C let the lane finish, at once and quietly."""
    worker = start("drains")
    worker.wait_for("running")
    began_s = time.monotonic()
    worker.process.send_signal(number)
    status, errors = worker.end()
    assert status == 0, errors
    assert "drained" in worker.notes.read_text()
    assert time.monotonic() - began_s < 4
    assert "Traceback" not in errors


@pytest.mark.parametrize("lane", ["slow_stop", "deaf", "blocks"])
def test_a_drain_that_takes_too_long_is_cut_off(start, lane: str) -> None:
    """Neither a slow stop, a task that ignores its cancellation, nor a blocked loop outlives the drain time."""
    worker = start(lane, DRAIN_S="1")
    worker.wait_for("running")
    began_s = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    status, errors = worker.end()
    assert status == 1, errors
    assert "the drain outlasted 1 s" in errors
    assert 0.9 < time.monotonic() - began_s < 4


def test_a_crash_with_a_slow_stop_keeps_its_status(start) -> None:
    """The clock that cuts off a drain leaves with the status of what caused it."""
    worker = start("membership", DRAIN_S="0.05", BOTH="1")
    status, _ = worker.end()
    assert status == 3


def test_a_failure_while_draining_is_a_failure(start) -> None:
    """Status 0 means everything was drained, not that somebody asked for it."""
    worker = start("fails_in_the_drain")
    worker.wait_for("running")
    worker.process.send_signal(signal.SIGTERM)
    status, errors = worker.end()
    assert status == 1
    assert "while draining" in errors


def test_a_second_ctrl_c_leaves_at_once(start) -> None:
    """Who presses Ctrl-C twice does not want to wait for the drain."""
    worker = start("slow_stop", DRAIN_S="60")
    worker.wait_for("running")
    worker.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    worker.process.send_signal(signal.SIGINT)
    status, errors = worker.end(within_s=5)
    assert status == 1
    assert "interrupted twice" in errors


def test_a_run_with_a_limit_ends_with_0(start) -> None:
    """A lane that may end by itself has succeeded when it does."""
    worker = start("limited")
    status, errors = worker.end()
    assert status == 0, errors


def test_a_taken_port_is_one_line_before_anything_runs(start) -> None:
    """The web port is taken before any lane starts; a port in use names the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = start("drains", PORT=str(taken.getsockname()[1]))
        status, errors = worker.end()
    assert status == 1
    (line,) = errors.splitlines()
    assert "is taken: set another [web] port" in line
    assert worker.notes.read_text() == ""


def test_the_gravest_error_of_a_group_decides() -> None:
    """Several tasks may die together: ours with the highest status wins over bugs, SystemExit over all."""
    ours, gravest = SettingsError("a"), MembershipLostTooOften("b")
    group = ExceptionGroup("lane", [ValueError("c"), ExceptionGroup("inner", [ours, gravest])])
    assert root_cause(group) is gravest
    leaving = SystemExit(9)
    assert root_cause(BaseExceptionGroup("lane", [leaving, gravest])) is leaving


async def test_the_first_failure_keeps_its_status_and_a_drain_gives_way_to_it() -> None:
    """0 turns into the first failure's status; a later failure changes nothing."""
    left: list[int] = []
    ending = Ending(60.0, left.append)
    ending.begin(0)
    ending.failed("classify", MembershipLostTooOften("lost"))
    ending.failed("escalate", ValueError("later"))
    assert ending.status == 3
    assert ending.stopping.is_set()
    await asyncio.sleep(0)
    assert left == []
