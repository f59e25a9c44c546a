"""Worker processes as a user starts them: kept running as a supervisor keeps them, killed, stalled, drained."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

AS_A_USER = "stream_app.cli"
RESTART_PAUSE_S = 1.0
NOTHING_ANSWERED = re.compile(r"no (Kafka broker|Triton) answers at")
"""What a worker says last that finds its servers away at its start; it leaves with status 1."""


@dataclass
class Worker:
    """One place of the fleet, and the process that fills it now. `module` is what `python -m` runs."""

    name: str
    role: str
    module: str = AS_A_USER
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    wanted: bool = True
    """A supervisor starts it again when it ends."""
    restart_at_s: float = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def frozen(self) -> bool:
        """Stopped by SIGSTOP."""
        try:
            return self.running and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Exit:
    """A worker's end that nobody had asked for."""

    worker: str
    status: int
    at_s: float
    last_line: str


@dataclass
class Fleet:
    """Workers in one folder (settings and logs). Usable from several threads; a fault takes a worker for itself."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _over: threading.Event = field(default_factory=threading.Event)
    _watching: threading.Thread | None = None

    def add(self, name: str, role: str, module: str = AS_A_USER) -> None:
        with self._lock:
            self.workers[name] = Worker(name, role, module)
            self._start(self.workers[name])

    def watch(self) -> None:
        """Starts again, as a supervisor would, whatever ends unasked; each such end is noted in `exits`."""
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                for worker in self.workers.values():
                    if not worker.wanted or worker.running:
                        continue
                    self._note_exit(worker)
                    if time.monotonic() >= worker.restart_at_s:
                        self._start(worker)

    def _note_exit(self, worker: Worker) -> None:
        """Once for each process that ended unasked."""
        if worker.restart_at_s == 0:
            status = worker.process.returncode if worker.process else 0
            self.exits.append(Exit(worker.name, status, time.time(), self.last_line(worker)))
            worker.restart_at_s = time.monotonic() + RESTART_PAUSE_S

    def log_path(self, worker: Worker) -> Path:
        return self.folder / f"{worker.name}-{worker.starts}.log"

    def last_line(self, worker: Worker) -> str:
        lines = self.log_path(worker).read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _start(self, worker: Worker) -> None:
        worker.starts += 1
        worker.restart_at_s = 0.0
        command = [sys.executable, "-m", worker.module, "run", *([worker.role] if worker.role else [])]
        with self.log_path(worker).open("wb") as log:
            worker.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, "SHUNT_TEST_WORKER": worker.name},
            )

    def start(self, name: str) -> None:
        with self._lock:
            self.workers[name].wanted = True
            if not self.workers[name].running:
                self._start(self.workers[name])

    def kill(self, name: str) -> None:
        """SIGKILL, and a new process in its place at once."""
        with self._lock:
            worker = self.workers[name]
            worker.process.kill()
            worker.process.wait()
            self._start(worker)

    def freeze(self, name: str) -> None:
        """SIGSTOP: returns when the process has stopped; or when it has ended by itself."""
        worker = self.workers[name]
        worker.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not worker.frozen and worker.running and time.monotonic() < deadline:
            time.sleep(0.002)

    def thaw(self, name: str) -> None:
        """SIGCONT; nothing where the process is gone."""
        self.workers[name].process.send_signal(signal.SIGCONT)

    def leave(self, name: str, within_s: float) -> tuple[int, float]:
        """SIGTERM: the exit status, and how long the drain took; -9 where it had to be killed after `within_s`.

        One that has just ended by itself, or was about to (there was no broker), stands in `exits` and has nothing to
        drain: 0.
        """
        worker = self.workers[name]
        with self._lock:
            worker.wanted = False
            process = worker.process
            if not worker.running:
                self._note_exit(worker)
                return 0, 0.0
            process.terminate()
        began_s = time.monotonic()
        try:
            status = process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        took_s = time.monotonic() - began_s
        if status == 1 and NOTHING_ANSWERED.search(self.last_line(worker)):
            with self._lock:
                self._note_exit(worker)
            return 0, took_s
        return status, took_s

    def end(self, within_s: float = 60.0) -> dict[str, int]:
        """SIGTERM to all that are to run: their exit statuses (not of those that were told to `leave` before)."""
        self._over.set()
        if self._watching is not None:
            self._watching.join()
        staying = {name: worker for name, worker in self.workers.items() if worker.wanted}
        for worker in staying.values():
            worker.wanted = False
            if worker.running:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.terminate()
        deadline = time.monotonic() + within_s
        return {name: worker.process.wait(max(1.0, deadline - time.monotonic())) for name, worker in staying.items()}

    def abandon(self) -> None:
        """Kills whatever is left."""
        self._over.set()
        if self._watching is not None:
            self._watching.join()
        for worker in self.workers.values():
            if worker.process is not None and worker.running:
                worker.process.kill()
                worker.process.wait()
