"""A guard between the stack and one of its servers: when the stack ends, however it ends, so does the server.

Run as a script, by itself and with the standard library only (it starts in 30 ms and costs 10 MB). It runs a
command and watches its own standard input, a pipe whose other end only the stack holds. When that closes (the
stack stopped the server, ended, or was killed), the guard asks the server to stop, waits, and kills whatever is
left, the server's own children too: being a *subreaper*, it inherits every orphan among its descendants.
A line `kill` on the pipe skips the asking. Should the guard itself be killed, the kernel kills the server
(`PR_SET_PDEATHSIG`, which follows the parent's *thread*: the guard has only one).

    python -I -S guard.py GRACE_S SCRATCH_GLOB COMMAND…

SCRATCH_GLOB names what the server leaves behind when it is killed (shared memory), or is empty.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.5  # how late a parent that is gone is seen where a forked copy of it still holds the pipe

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the command until it or the stack ends. Returns its status; 128 + signal when it was killed."""
    grace_s, scratch_glob, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    stack = os.getppid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # only wakes the select below
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _remove(scratch_glob)  # of a server whose guard was killed
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)  # noqa: PLW1509, S603
    request = _watch(server, stack, wake_read)
    if request == "stop":
        _ask_to_stop(server, grace_s)
    status = _kill_the_rest(server)
    _remove(scratch_glob)
    return status


def _remove(scratch_glob: str) -> None:
    for path in glob(scratch_glob):  # noqa: PTH207 - an absolute pattern
        Path(path).unlink(missing_ok=True)


def _die_with_guard() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch(server: subprocess.Popen[bytes], stack: int, wake_read: int) -> str:
    """Wait until the server has ended (`ended`), or it should: `stop` or `kill`."""
    while True:
        readable, _, _ = select.select([0, wake_read], [], [], POLL_S)
        if 0 in readable:
            return "kill" if os.read(0, 64).startswith(b"kill") else "stop"
        if server.poll() is not None:
            return "ended"
        if os.getppid() != stack:
            return "stop"
        if wake_read in readable and any(number != signal.SIGCHLD for number in os.read(wake_read, 64)):
            return "stop"


def _ask_to_stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    server.terminate()
    server.send_signal(signal.SIGCONT)  # one that was paused would not hear of it
    deadline = time.monotonic() + grace_s
    while server.poll() is None and time.monotonic() < deadline:
        # Meanwhile a `kill` may come after all, or the stack may go away: then nobody waits for grace.
        if select.select([0], [], [], 0.02)[0] and os.read(0, 64).startswith(b"kill"):
            return
        time.sleep(0.01)


def _kill_the_rest(server: subprocess.Popen[bytes]) -> int:
    """Kill all descendants until there is none, and reap them. Returns the server's status."""
    while True:
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server.poll()
        try:
            if server.returncode is not None:
                os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        time.sleep(0.01)
    status = server.wait()
    return status if status >= 0 else 128 - status


def _descendants() -> list[int]:
    """All processes below this one. Orphans count: they became the subreaper's own children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # After the name, which may hold anything but ends at the last bracket: state, parent, ...
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


if __name__ == "__main__":
    sys.exit(main())
