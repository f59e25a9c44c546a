"""The queue before the gate: calls wait in the order they came, without polling. The shell of `gate`.

One timer serves all who wait: it is set for the moment the head of the queue may go, or the first deadline,
whichever comes first, and set again whenever something changes (a call settled, a lease committed, a partition
gained or lost). A retry goes to the head: its event has waited longest. Calls for parked events have a queue of
their own, which is served while nobody else waits.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stream_app.escalate.call_end import Lost
from stream_app.escalate.clock import RunningClock
from stream_app.escalate.gate import Gate, Grant, No, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_app.escalate.budget import Lease
    from stream_app.escalate.call_end import CallEnd
    from stream_app.escalate.gate import Cost

    Ask = Callable[[int, Sequence[Cost], float, float], Grant | Wait | No]

WAITS_FOR = {"outage": "the LLM", "budget": "budget"}
"""How a person is told what the lane waits for by choice."""
DOUBT_PAUSE_S = 0.2
"""How soon it is asked again whether the group still counts this worker in."""
TIMER_MAX_S = 3_600.0
"""The longest a timer is set for; an earlier change sets it anew."""


class NotAdmitted(Exception):  # noqa: N818 - named for what happened; never leaves this package
    """The call did not get its turn, for this reason."""

    def __init__(self, reason: Literal["deadline", "budget", "outage"]) -> None:
        super().__init__(reason)
        self.reason: Literal["deadline", "budget", "outage"] = reason


class PartitionClosing(Exception):  # noqa: N818 - named for what happens; never leaves this package
    """The partition is being handed over: nothing new is started for it."""


@dataclass(slots=True)
class _Waiter:
    partition: int
    costs: Sequence[Cost]
    deadline_s: float
    granted: asyncio.Future[Grant] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def _raise(error: Exception) -> None:
    raise error


class Admission:
    """Lets calls through the gate. `deadline_s` is always in running time (see `clock`).

    `want_lease` is called with partitions whose account needs a larger committed lease; call `pump` afterwards.
    `failed` is told of a bug that shows in the timer, where asyncio would only log it (as it does by default).
    While `in_doubt` (another worker may own the partitions by now) nobody gets a turn.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        now_s: Callable[[], float],
        wall_s: Callable[[], float],
        want_lease: Callable[[Iterable[int]], None],
        failed: Callable[[Exception], None] = _raise,
        in_doubt: Callable[[], bool] = lambda: False,
    ) -> None:
        self.gate = gate
        self.clock = RunningClock()
        self._now_s, self._wall_s = now_s, wall_s
        self._want_lease, self._failed, self._in_doubt = want_lease, failed, in_doubt
        self._queue: deque[_Waiter] = deque()
        self._spare: deque[_Waiter] = deque()
        self._deadlines: list[tuple[float, int, _Waiter]] = []
        self._ticket = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: dict[int, asyncio.Event] = {}
        self.waits_for: str | None = None

    def left_s(self, deadline_s: float) -> float:
        """Running time until a deadline."""
        return deadline_s - self.running_s

    @property
    def running_s(self) -> float:
        """Running time now."""
        return self.clock.running_s(self._now_s())

    @property
    def queued(self) -> bool:
        """True while a call waits for its turn, those for parked events aside."""
        return bool(self._queue)

    def owns(self, partition: int) -> bool:
        """True while calls may be started for that partition."""
        return partition in self._closing and not self._closing[partition].is_set()

    async def reserve(
        self, partition: int, costs: Sequence[Cost], deadline_s: float, *, first: bool, spare: bool = False
    ) -> Grant:
        """Waits for the turn of a call and sets aside what it needs; give it to `settle` when the call is over.

        `costs` are what it takes at each endpoint: where it goes is decided when its turn comes. A `spare` call is
        a parked event's: it gets what the others leave, and never waits for budget or an outage. Raises NotAdmitted
        at the deadline, where the settings say not to wait for what is missing, or, a spare one, when it is told to
        `give_way`; and PartitionClosing.
        """
        self._check_open(partition)
        if self.left_s(deadline_s) <= 0:
            raise NotAdmitted("deadline")
        waiter = _Waiter(partition, costs, deadline_s)
        queue = self._spare if spare else self._queue
        if first:
            queue.appendleft(waiter)
        else:
            queue.append(waiter)
        heapq.heappush(self._deadlines, (deadline_s, next(self._ticket), waiter))
        self.pump()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self.abandon(waiter.granted.result())
            raise

    def settle(self, grant: Grant, end: CallEnd, nusd: int) -> None:
        """The call is over, in this way, and cost so much."""
        self.gate.settle(grant, end, nusd, self._now_s(), self._wall_s())
        self.pump()

    def abandon(self, grant: Grant) -> None:
        """The call never started: its dollars are given back; its place in the rate is as good as spent."""
        self.gate.breaker_of(grant).abandoned(self._now_s(), probe=grant.probe)
        self.settle(grant, Lost(), 0)

    def spend_on(self, change: float, costs: Sequence[Cost], draw: float) -> None:
        """Raises NotAdmitted where the budget does not reach for an event with this chance of change (`spending`)."""
        if not self.gate.worth(change, costs, self._now_s(), self._wall_s(), draw):
            raise NotAdmitted("budget")

    async def rest(self, partition: int, s: float) -> None:
        """Sleeps between two tries; PartitionClosing as soon as the partition is handed over."""
        self._check_open(partition)
        try:
            async with asyncio.timeout(s):
                await self._closing[partition].wait()
        except TimeoutError:
            return
        raise PartitionClosing

    def gain(self, partition: int, last: Lease | None) -> None:
        """A partition is owned from now on."""
        self._closing[partition] = asyncio.Event()
        self.gate.gain(partition, last, self._now_s(), self._wall_s())
        self.pump()

    def stop(self, partition: int) -> None:
        """A partition is being handed over: calls under way go on, nobody of it gets another turn."""
        self._closing[partition].set()
        for waiter in (*self._queue, *self._spare):
            if waiter.partition == partition and not waiter.granted.done():
                waiter.granted.set_exception(PartitionClosing())
        self.pump()

    def give_way(self) -> None:
        """Somebody wants the slots of spare calls that wait for their turn: they have another time."""
        if not self._spare:
            return
        for waiter in self._spare:
            if not waiter.granted.done():
                waiter.granted.set_exception(NotAdmitted("deadline"))
        self._spare.clear()
        self.pump()

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        self.stop(partition)
        del self._closing[partition]
        self.gate.lose(partition)
        self.pump()

    def _check_open(self, partition: int) -> None:
        if not self.owns(partition):
            raise PartitionClosing

    def pump(self) -> None:
        """Lets through whoever may go now, fails whoever must not wait, and sets the timer for the next time."""
        now_s, wall_s = self._now_s(), self._wall_s()
        wait = self._admit(now_s, wall_s)
        self._keep_time(wait, now_s)
        self._expire(now_s)
        if wait is not None and wait.lease:
            self._want_lease(wait.lease)
        self._set_timer(now_s, wait.s if wait is not None else float("inf"))

    def _keep_time(self, wait: Wait | None, now_s: float) -> None:
        """The clock stands still while the lane waits by choice."""
        because = "outage" if self.gate.stops_clock else wait.because if wait is not None else None
        self.waits_for = None if because is None else WAITS_FOR[because]
        self.clock.set_stopped(because is not None, now_s)

    def _admit(self, now_s: float, wall_s: float) -> Wait | None:
        """Serves both queues from their heads; returns what the head waits for, None where nobody is left."""
        if (self._queue or self._spare) and self._in_doubt():
            return Wait(DOUBT_PAUSE_S)
        wait = self._serve(self._queue, self.gate.ask, now_s, wall_s)
        return self._serve(self._spare, self.gate.ask_spare, now_s, wall_s) if wait is None else wait

    def _serve(self, queue: deque[_Waiter], ask: Ask, now_s: float, wall_s: float) -> Wait | None:
        while queue:
            waiter = queue[0]
            if not waiter.granted.done():
                match ask(waiter.partition, waiter.costs, now_s, wall_s):
                    case Grant() as grant:
                        waiter.granted.set_result(grant)
                    case No(because=because):
                        waiter.granted.set_exception(NotAdmitted(because))
                    case Wait() as wait:
                        return wait
            queue.popleft()
        return None

    def _expire(self, now_s: float) -> None:
        """Fails whose deadline has passed; in running time nobody's passes while the clock is stopped."""
        running_s = self.clock.running_s(now_s)
        while self._deadlines and (self._deadlines[0][0] <= running_s or self._deadlines[0][2].granted.done()):
            waiter = heapq.heappop(self._deadlines)[2]
            if not waiter.granted.done():
                waiter.granted.set_exception(NotAdmitted("deadline"))

    def _set_timer(self, now_s: float, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadlines and not self.clock.stopped:
            wait_s = min(wait_s, self._deadlines[0][0] - self.clock.running_s(now_s))
        if self._queue or self._spare:
            delay_s = min(max(wait_s, 0.0), TIMER_MAX_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fires)

    def _timer_fires(self) -> None:
        try:
            self.pump()
        except Exception as error:  # a queue that is never served again must not stay unnoticed  # noqa: BLE001
            self._failed(error)

    def close(self) -> None:
        """Stops the timer; whoever waits is cancelled by its owner."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
