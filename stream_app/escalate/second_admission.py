"""The queue before the endpoint for second opinions, beside the first's: whoever waits in one holds up nobody in the

other. They have one budget and one clock, and are told of the same partitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from stream_app.escalate.admission import Admission, NotAdmitted
from stream_app.escalate.gate import gate_of
from stream_app.escalate.second_gate import SecondGate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_app.escalate.budget import Lease
    from stream_app.escalate.call_end import CallEnd
    from stream_app.escalate.gate import Cost, Gate, Grant, Wait
    from stream_app.settings import Settings

WAITING_SHARE = 0.25
"""Of `llm.max_in_flight`, but one at least: so many events may wait for a second opinion's turn. Each keeps a slot,
and more of them would leave none for events that nobody has looked at."""


class Told(TypedDict):
    """What every queue of a lane is given."""

    now_s: Callable[[], float]
    wall_s: Callable[[], float]
    want_lease: Callable[[Iterable[int]], None]
    failed: Callable[[Exception], None]
    in_doubt: Callable[[], bool]


class FirstAdmission(Admission):
    """The queue of the others, beside one for second opinions, which is told whatever this one is told."""

    def __init__(self, gate: Gate, second: SecondGate, waiting_max: int, **told: Unpack[Told]) -> None:
        super().__init__(gate, **told)
        self.second = SecondAdmission(second, self, waiting_max, **told)

    def pump(self) -> None:
        """Both: a lease, money that was given back or a clock that goes on may be what the second waits for."""
        super().pump()
        self.second.pump()

    def gain(self, partition: int, last: Lease | None) -> None:
        """A partition is owned from now on."""
        super().gain(partition, last)
        self.second.gain(partition, last)

    def stop(self, partition: int) -> None:
        """A partition is being handed over."""
        super().stop(partition)
        self.second.stop(partition)

    def lose(self, partition: int) -> None:
        """A partition is owned no more."""
        super().lose(partition)
        self.second.lose(partition)

    def give_way(self) -> None:
        """Somebody wants the slots of spare calls."""
        super().give_way()
        self.second.give_way()

    def close(self) -> None:
        """Stops both timers."""
        super().close()
        self.second.close()


class SecondAdmission(Admission):
    """The queue for second opinions. Time is the first's: it alone says when the clock stands still.

    At most `waiting_max` wait for their turn; whoever comes then does without, as if its deadline had passed.
    """

    def __init__(self, gate: SecondGate, first: FirstAdmission, waiting_max: int, **told: Unpack[Told]) -> None:
        super().__init__(gate, **told)
        self.clock = first.clock
        self._first, self._waiting_max = first, waiting_max

    async def reserve(
        self, partition: int, costs: Sequence[Cost], deadline_s: float, *, first: bool, spare: bool = False
    ) -> Grant:
        """As for any call, where not too many wait already; one that has been called once may try again."""
        if not first and not spare and len(self._queue) >= self._waiting_max:
            raise NotAdmitted("deadline")
        return await super().reserve(partition, costs, deadline_s, first=first, spare=spare)

    def settle(self, grant: Grant, end: CallEnd, nusd: int) -> None:
        """The call is over: what it gives back of the budget may be what a first opinion waits for."""
        super().settle(grant, end, nusd)
        self._first.pump()

    def _keep_time(self, wait: Wait | None, now_s: float) -> None:
        """Nobody waits here by choice."""


def admission_of(settings: Settings, partitions: int, **told: Unpack[Told]) -> Admission:
    """The queue before the endpoints of the settings; with one for second opinions beside it where there is such."""
    gate, second = gate_of(settings, partitions), settings.llm.second_opinion
    if second is None:
        return Admission(gate, **told)
    waiting_max = max(1, int(settings.llm.max_in_flight * WAITING_SHARE))
    return FirstAdmission(gate, SecondGate.beside(gate, second), waiting_max, **told)
