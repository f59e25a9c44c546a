"""How a worker ends: for any reason a lane's work stops, the process stops, in bounded time, with a status.

Faust and mode leave a process alive whose background task died or whose service task returned, and wait
without limit for a slow stop. Here the first cause decides (`Ending`), every lane is told at once, the lanes
drain, and a daemon thread ends the process if the drain outlasts its time.

Exit statuses: 0 drained, 1 failed, 2 settings, 3 lost its membership too often (see `stream_app.errors`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, cast

from faust import Worker
from mode import Service
from mode.utils.futures import maybe_cancel

from stream_app.collector import calm_garbage_collector, give_memory_back
from stream_app.errors import ShuntError
from stream_app.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_app.telemetry import Lane, Metrics
    from stream_app.web.server import ShuntWeb

    Work = Callable[[asyncio.Event], Awaitable[None]]

log = logging.getLogger("stream_app")

FAILED = 1
LOOP_CHECK_S = 0.5
"""How often the event loop's lag is measured."""


class Ending:
    """The end of this process: its status, its cause, and the clock that makes it certain.

    `stopping` is set when the end begins; lanes wait for it. A later failure may still turn status 0 (a drain
    that was asked for) into its own; the first failure stays.
    """

    def __init__(self, drain_timeout_s: float, leave: Callable[[int], object] = os._exit) -> None:
        self.stopping = asyncio.Event()
        self.status: int | None = None
        self.when_begun: Callable[[], None] | None = None
        self._drain_timeout_s = drain_timeout_s
        self._leave = leave

    def begin(self, status: int) -> None:
        """End the process with `status`; the first call starts the drain and its clock."""
        first = self.status is None
        if not self.status:
            self.status = status
        if first:
            threading.Thread(target=self._enforce, name="drain-timeout", daemon=True).start()
            self.stopping.set()
            if self.when_begun is not None:
                self.when_begun()

    def failed(self, who: str, error: BaseException) -> None:
        """`who` died of `error`: say so on one line (with a traceback where the error is not ours), and end."""
        cause = root_cause(error)
        name = logging.getLogger(f"stream_app.{who}")
        if isinstance(cause, SystemExit):
            name.critical("asked to leave with status %s", cause.code)
            self.begin(cause.code if isinstance(cause.code, int) else FAILED)
        elif isinstance(cause, ShuntError):
            name.critical("%s", cause.one_line(), exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
            self.begin(cause.exit_status)
        else:
            name.critical("%s: %s", type(cause).__name__, cause, exc_info=error)
            self.begin(FAILED)

    def _enforce(self) -> None:
        """Runs in a daemon thread: neither a blocked event loop nor a thread that hangs keeps the process."""
        time.sleep(self._drain_timeout_s)
        sys.stderr.write(f"shunt: the drain outlasted {self._drain_timeout_s:g} s; leaving without it\n")
        sys.stderr.flush()
        self._leave(self.status or FAILED)


def root_cause(error: BaseException) -> BaseException:
    """The one error that decides the status: out of a group a SystemExit, else the gravest of ours, else any."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    leaves = [root_cause(inner) for inner in group.exceptions]

    def gravity(leaf: BaseException) -> int:
        if isinstance(leaf, SystemExit):
            return 100
        return leaf.exit_status if isinstance(leaf, ShuntError) else 0

    return max(leaves, key=gravity)


class LaneService(Service):
    """One lane on the Faust app. Whatever way its work ends, the process ends.

    `work(stopping)` owns everything the lane does, in task groups of its own: when it returns or raises,
    nothing of the lane runs any more. It must return soon after `stopping` is set, delivered and drained. One
    that `may_end` (a run with a limit) has succeeded when it returns; any other has failed.
    """

    mundane_level = "debug"

    def __init__(
        self,
        lane: Lane,
        work: Work,
        ending: Ending,
        *,
        may_end: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lane: Lane = lane
        self._run_work = work
        self._ending = ending
        self._may_end = may_end
        self._begun = False
        self._ended = asyncio.Event()

    @Service.task
    async def _work(self) -> None:
        """The lane's only task. Nothing is raised out of it: mode would log, re-raise and lose the status."""
        self._begun = True
        try:
            await self._run_work(self._ending.stopping)
        except asyncio.CancelledError as error:
            if not self._ending.stopping.is_set():
                self._ending.failed(self.lane, RuntimeError(f"the {self.lane} lane was cancelled: {error}"))
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it decides the status
            self._ending.failed(self.lane, error)
        else:
            if self._may_end:
                self._ending.begin(0)
            elif not self._ending.stopping.is_set():
                self._ending.failed(self.lane, RuntimeError("its work returned though nobody asked it to"))
        finally:
            self._ended.set()

    async def on_stop(self) -> None:
        """Begin the drain, if nobody has, and wait for it: the clock of `Ending` bounds the wait."""
        self._ending.begin(0)
        if self._begun:
            await self._ended.wait()


class LoopWatch(Service):
    """Measures how late the event loop runs its timers."""

    mundane_level = "debug"

    def __init__(self, metrics: Metrics, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._metrics = metrics

    @Service.task
    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.should_stop:
            due_s = loop.time() + LOOP_CHECK_S
            await self.sleep(LOOP_CHECK_S)
            self._metrics.event_loop_lag(max(0.0, loop.time() - due_s))


class ShuntWorker(Worker):
    """Faust's worker, ended by `Ending`: it drains on SIGTERM and SIGINT, and keeps the status a lane gave."""

    def __init__(self, app: Any, *services: Any, **kwargs: Any) -> None:
        super().__init__(app, *services, **kwargs)
        self.ending: Ending = app.ending
        self.ending.when_begun = self._begin_stop
        self.spinner = None
        self._interrupted = False

    def execute_from_commandline(self) -> NoReturn:
        """Run until the end; raises SystemExit with the status. A taken port ends it before anything starts."""
        give_memory_back()
        calm_garbage_collector()
        try:
            cast("ShuntWeb", self.app.web).bind()
            super().execute_from_commandline()
        except ShuntError as error:
            self._setup_logging()
            log.critical("%s", error.one_line())
            raise SystemExit(error.exit_status) from None
        except SystemExit as leaving:
            # The loop's handlers are gone: a second signal from an impatient parent must not change the status.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            status = leaving.code if isinstance(leaving.code, int) else FAILED
            raise SystemExit(self.ending.status or status) from None

    def _begin_stop(self) -> None:
        """Stop all services: what mode does on a signal, and `stop_and_shutdown` waits for it."""
        if self._signal_stop_time is None:
            self._signal_stop_time = self.loop.time()
            self._signal_stop_future = asyncio.ensure_future(self._stop_all(), loop=self.loop)

    async def _stop_all(self) -> None:
        await self.stop()
        maybe_cancel(self._starting_fut)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        log.info("%s: draining", signal.name)
        self.ending.begin(0)

    def _on_sigint(self) -> None:
        """Ctrl-C drains; a second one leaves at once."""
        if self._interrupted:
            sys.stderr.write("shunt: interrupted twice; leaving without the drain\n")
            os._exit(FAILED)
        self._interrupted = True
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(signal.SIGINT)

    def _setup_logging(self) -> None:
        """Our log lines instead of Faust's; standard output stays what it is."""
        set_up_logging(os.environ.get("SHUNT_LOG_LEVEL") or self.loglevel)

    async def _sentinel_task(self) -> None:
        """Mode sleeps a second here before it closes the loop; everything of ours is closed by then."""
        await asyncio.sleep(0)
