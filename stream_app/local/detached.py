"""The stack without a terminal: `stack_up` leaves it running in the background, `stack_down` ends it.

A supervisor process of its own session holds the stack (`python -m stream_app.local.detached`, its options as
JSON on standard input). Until the stack is ready it reports over its standard output, one JSON object a line;
then it writes `stack.json`, lets go of that pipe and waits for SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil

from stream_app.errors import ShuntError, StartError
from stream_app.local.llm.options import StandInOptions, from_argv
from stream_app.local.stack import DEFAULT_DIR, Stack, StackInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.local.jars import Progress

INFO_FILE = "stack.json"
LOG_FILE = "stack.log"
DOWN_DEADLINE_S = 60.0
WATCH_EVERY_S = 2.0


def stack_up(
    folder: Path = DEFAULT_DIR,
    *,
    model_repository: Sequence[Path] = (),
    load_models: Sequence[str] = (),
    llm: bool = True,
    llm_options: StandInOptions | None = None,
    progress: Progress | None = None,
) -> StackInfo:
    """Start a stack that outlives this process, and return its addresses once it is ready.

    One that already runs in `folder` is left as it is, and its addresses are returned.
    Raises `StartError` with the reason; then nothing is left running.
    """
    folder = folder.resolve()
    if (running := stack_status(folder)) is not None:
        return running
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "dir": str(folder),
        "model_repository": [str(path.resolve()) for path in model_repository],
        "load_models": list(load_models),
        "llm": llm,
        "llm_options": (llm_options or StandInOptions()).to_argv(),
    }
    with (folder / LOG_FILE).open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "stream_app.local.detached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        return _follow(supervisor, json.dumps(options).encode(), progress, folder / LOG_FILE)
    except BaseException:
        # Also on Ctrl-C: nobody asked for half a stack.
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
        supervisor.wait()
        raise


def stack_status(folder: Path = DEFAULT_DIR) -> StackInfo | None:
    """The addresses of the detached stack that runs in `folder`, or None."""
    info, owner = _read_info(folder), _owner(folder)
    return info[0] if info is not None and owner == info[1] else None


def stack_down(folder: Path = DEFAULT_DIR) -> bool:
    """End the detached stack in `folder` and return when nothing of it is left. False when there was none.

    Raises `StartError` when another program (a demo, a test) runs a stack there, or it does not end.
    """
    owner = _owner(folder)
    if owner is None:
        return False
    if stack_status(folder) is None:
        raise StartError(
            f"the stack in {folder} belongs to process {owner}, which was not started as a detached stack",
            advice="end that program instead",
        )
    supervisor = psutil.Process(owner)
    supervisor.terminate()
    try:
        supervisor.wait(DOWN_DEADLINE_S)
    except psutil.TimeoutExpired as error:
        raise StartError(f"the stack in {folder} did not end", advice=f"see {folder / LOG_FILE}") from error
    return True


def _follow(supervisor: subprocess.Popen[bytes], options: bytes, progress: Progress | None, log: Path) -> StackInfo:
    """Tell the supervisor its options, and pass on what it reports until it is ready or has failed."""
    if supervisor.stdin is None or supervisor.stdout is None:
        raise StartError("the supervisor has no pipes")
    supervisor.stdin.write(options)
    supervisor.stdin.close()
    for line in supervisor.stdout:
        match json.loads(line):
            case {"ready": info}:
                supervisor.stdout.close()
                return StackInfo(**info)
            case {"error": error, "advice": advice}:
                raise StartError(error, advice=advice)
            case {"progress": words}:
                if progress is not None:
                    progress(words)
            case _:
                pass
    raise StartError("the stack's supervisor ended without a word", advice=f"its log is {log}")


def _owner(folder: Path) -> int | None:
    """The process that holds the stack's folder, or None when nobody does."""
    try:
        with (folder / "stack.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except FileNotFoundError:
        pass
    return None


def _read_info(folder: Path) -> tuple[StackInfo, int] | None:
    """What the last supervisor wrote, and its process id."""
    try:
        written = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    pid = cast("int", written.pop("pid"))
    return StackInfo(**written), pid


async def _supervise(options: dict[str, Any]) -> None:
    """Hold the stack until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    loop, starting = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, starting.cancel)
    _, llm_options = from_argv(options["llm_options"])
    async with Stack.start(
        Path(options["dir"]),
        llm=options["llm"],
        model_repository=[Path(path) for path in options["model_repository"]],
        load_models=options["load_models"],
        llm_options=llm_options,
        progress=lambda words: _report({"progress": words}),
    ) as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        info_file = stack.dir / INFO_FILE
        info_file.write_text(json.dumps({**asdict(stack.info), "pid": os.getpid()}), encoding="utf-8")
        _report({"ready": asdict(stack.info)})
        os.dup2(2, 1)  # nobody reads the pipe from here on
        await _watch(stack, stop)
        info_file.unlink()


async def _watch(stack: Stack, stop: asyncio.Event) -> None:
    """Wait for the end, and log a server that ended by itself."""
    told: set[str] = set()
    while not stop.is_set():
        for name in stack.ended():
            if name not in told:
                told.add(name)
                print(f"{name} has ended; its log is in {stack.dir}", file=sys.stderr, flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_EVERY_S)


def _report(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> int:
    """The supervisor process."""
    try:
        asyncio.run(_supervise(json.load(sys.stdin)))
    except ShuntError as error:
        _report({"error": error.message, "advice": error.advice})
        return error.exit_status
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
