"""Which worker is killed when. Pure: the same run gets the same kills."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

FIRST_S = 4.0
EVERY_S = 7.0
"""Enough for the last victim to be back: a start, and the session of the killed one to run out."""
KILLS_MAX = 20
ORDER = (("classify",), ("escalate",), ("classify", "escalate"))


@dataclass(frozen=True, slots=True)
class Kill:
    """At `at_s` seconds after the first record these roles are killed, and started again at once."""

    at_s: float
    roles: tuple[str, ...]


def kill_schedule(feeding_s: float) -> tuple[Kill, ...]:
    """The kills of a run that is fed for so long: at least three, the last while there is still work."""
    count = min(KILLS_MAX, max(3, int((feeding_s - FIRST_S) // EVERY_S) + 1))
    return tuple(Kill(FIRST_S + n * EVERY_S, roles) for n, roles in zip(range(count), cycle(ORDER), strict=False))
