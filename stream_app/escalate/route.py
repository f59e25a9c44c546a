"""Which endpoint the next call goes to: the first in the settings' order that can be used. Pure.

    CLEAR    its circuit is closed: calls go here
    PROBE    its circuit is open and the cool-down over: one call may try it
    SHUT     its circuit is open, or its probe is under way

An endpoint that is PROBE stands in nobody's way: it is tried by a call that could start there this moment, and
passed over by one that would have to wait. A spent rate shuts nothing: calls wait for the first CLEAR endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from stream_app.escalate.breaker import Circuit

if TYPE_CHECKING:
    from collections.abc import Sequence


class Passage(Enum):
    """Whether a call may go to an endpoint."""

    CLEAR = auto()
    PROBE = auto()
    SHUT = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """The endpoints that a call may start at now, in the order to try them.

    Where it can start at none of them, what `decides` says stands: wait for its rate, wait for budget, or give up.
    """

    tries: tuple[int, ...]
    decides: int


def passage(circuit: Circuit, wait_s: float) -> Passage:
    """What a circuit means for a call now; `wait_s` is how long it lets nobody through."""
    match circuit:
        case Circuit.CLOSED:
            return Passage.CLEAR
        case Circuit.OPEN:
            return Passage.PROBE if wait_s <= 0 else Passage.SHUT
        case Circuit.HALF_OPEN:
            return Passage.SHUT


def route(passages: Sequence[Passage]) -> Route | None:
    """Where a call may go, given the endpoints in order; None while every one is shut.

    Endpoints behind the first CLEAR one are left alone: nobody needs to know how they are.
    """
    clear = next((number for number, one in enumerate(passages) if one is Passage.CLEAR), None)
    due = tuple(number for number, one in enumerate(passages[:clear]) if one is Passage.PROBE)
    if clear is not None:
        return Route((*due, clear), clear)
    return Route(due, due[0]) if due else None


def better_elsewhere(circuits: Sequence[Circuit], failed: int) -> bool:
    """Whether a call that failed at `failed` is better tried again at once: its circuit is open, another's is not.

    While the failed endpoint's circuit is closed, the next try goes to it again, after a back-off.
    """
    return circuits[failed] is not Circuit.CLOSED and Circuit.CLOSED in circuits
