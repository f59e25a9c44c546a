"""No server outlives what started it, however that ends, and neither do the processes a server started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stream_app.local.detached import stack_down, stack_status, stack_up
from stream_app.local.process import GuardedProcess

MODELS = Path(__file__).parent.parent / "models"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written
GONE_DEADLINE_S = 20.0

# Opens a stack, reports every process below it, and then just lives.
OWNER = """
import asyncio, json, sys
from pathlib import Path
import psutil
from stream_app.local.stack import Stack

async def main():
    folder, models, kafka = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "kafka"
    async with Stack.start(folder, kafka=kafka, model_repository=models, load_models=["echo"]) as stack:
        below = psutil.Process().children(recursive=True)
        print(stack.triton_http.rpartition(":")[2], flush=True)
        print(json.dumps([[p.pid, p.create_time(), p.name()] for p in below]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def processes_left(processes: list[list]) -> list[list]:
    """Those of the given (pid, create time, name) that still run; a reused pid has another create time."""
    left = []
    for pid, created, name in processes:
        try:
            process = psutil.Process(pid)
            if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                left.append([pid, created, name])
        except psutil.NoSuchProcess:
            continue
    return left


def wait_all_gone(processes: list[list]) -> None:
    deadline = time.monotonic() + GONE_DEADLINE_S
    while (left := processes_left(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"still running: {left}"


@pytest.mark.parametrize(("how", "kafka"), [(signal.SIGKILL, "kafka"), (signal.SIGTERM, "no"), (signal.SIGINT, "no")])
def test_nothing_outlives_the_owner(how: signal.Signals, kafka: str, tmp_path: Path) -> None:
    """kill -9, SIGTERM and Ctrl-C of the process that owns a stack end every process below it."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(MODELS), kafka], stdout=subprocess.PIPE, text=True
    )
    # What the Python backend keeps in shared memory, named after Triton's port.
    scratch = f"shunt_triton_{owner.stdout.readline().strip()}_*"
    below = json.loads(owner.stdout.readline())
    assert list(SHARED_MEMORY.glob(scratch))
    names = {name for _, _, name in below}
    # The guards and the stand-in are Pythons; a stub is a grandchild, which Triton started itself.
    assert {"tritonserver", "triton_python_backend_stub"[:15]} <= {name[:15] for name in names}, names
    assert ("java" in names) == (kafka == "kafka"), names
    owner.send_signal(how)
    owner.communicate()
    wait_all_gone(below)
    assert not list(SHARED_MEMORY.glob(scratch))


def test_server_dies_with_its_guard(tmp_path: Path) -> None:
    """Even a guard killed by kill -9 leaves no server behind: the kernel sees to it."""
    server = GuardedProcess("sleeper", ["sleep", "1000"], tmp_path / "log")
    server.start()
    deadline = time.monotonic() + 5
    while server.pid is None and time.monotonic() < deadline:
        time.sleep(0.02)
    sleeper = psutil.Process(server.pid)
    assert sleeper.name() == "sleep"
    os.kill(server._guard.pid, signal.SIGKILL)
    wait_all_gone([[sleeper.pid, sleeper.create_time(), "sleep"]])


async def test_orphans_of_a_server_are_ended(tmp_path: Path) -> None:
    """A process that a server started and left behind ends with the server's stop, even if it ignores SIGTERM."""
    pid_file = tmp_path / "orphan"
    orphan = f"trap '' TERM; echo $BASHPID > {pid_file}; exec sleep 1000"
    server = GuardedProcess("shell", ["bash", "-c", f'(setsid bash -c "{orphan}" &) ; sleep 1000'], tmp_path / "log")
    server.start()
    deadline = time.monotonic() + 5
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    left_behind = [[pid, psutil.Process(pid).create_time(), "sleep"]]
    await server.stop()
    assert not processes_left(left_behind)


def test_detached_stack_outlives_its_starter(tmp_path: Path) -> None:
    """A detached stack serves after its starter has ended, is found by its folder, and goes down without a trace."""
    starter = (
        "import json, sys; from pathlib import Path; from stream_app.local.detached import stack_up;"
        f"print(json.dumps(stack_up(Path({str(tmp_path)!r})).as_json()))"
    )
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)
    given = json.loads(done.stdout)
    info = stack_status(tmp_path)
    assert info is not None
    assert info.as_json() == given
    assert given.keys() == {"bootstrap_servers", "triton_grpc", "triton_http", "llm_base_url", "dir"}
    assert stack_up(tmp_path) == info, "a second up leaves the running stack as it is"
    supervisor = psutil.Process(json.loads((tmp_path / "stack.json").read_text())["pid"])
    everything = [supervisor, *supervisor.children(recursive=True)]
    below = [[p.pid, p.create_time(), p.name()] for p in everything]
    assert stack_down(tmp_path)
    assert not processes_left(below)
    assert stack_status(tmp_path) is None
    assert not stack_down(tmp_path)
