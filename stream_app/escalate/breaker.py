"""The circuit breaker of one endpoint. Pure: time is an argument.

    CLOSED ──failures in a row──► OPEN ──cool-down over──► HALF_OPEN ──probe answered──► CLOSED
                                   ▲───────────────────probe failed───────┘

A failure is an endpoint that cannot be used (unreachable, 5xx, time-out, a key or model it does not know).
A refusal, an unusable answer and a 429 come from an endpoint that works: they are no failures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

FAILURES_MAX = 5
COOLDOWN_S = 1.0
COOLDOWN_MAX_S = 30.0


class Circuit(Enum):
    """Whether calls may go."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


LEGAL_MOVES: dict[Circuit, frozenset[Circuit]] = {
    Circuit.CLOSED: frozenset({Circuit.OPEN}),
    Circuit.OPEN: frozenset({Circuit.HALF_OPEN, Circuit.CLOSED}),
    Circuit.HALF_OPEN: frozenset({Circuit.OPEN, Circuit.CLOSED}),
}


@dataclass(slots=True)
class Breaker:
    """Counts failures in a row; when open, lets one probe through after each cool-down.

    A call that was under way when the circuit opened and is answered closes it: that is proof enough.
    """

    circuit: Circuit = Circuit.CLOSED
    failures: int = 0
    cooldown_s: float = COOLDOWN_S
    open_until_s: float = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until a call may go: 0 if now, infinite while a probe is under way (its end tells)."""
        match self.circuit:
            case Circuit.CLOSED:
                return 0.0
            case Circuit.OPEN:
                return max(0.0, self.open_until_s - now_s)
            case Circuit.HALF_OPEN:
                return float("inf")

    def started(self) -> bool:
        """Notes that a call goes now (`wait_s` was 0); True if it is the probe."""
        if self.circuit is not Circuit.OPEN:
            return False
        self._move(Circuit.HALF_OPEN)
        return True

    def answered(self) -> None:
        """The endpoint answered."""
        self.failures = 0
        self.cooldown_s = COOLDOWN_S
        if self.circuit is not Circuit.CLOSED:
            self._move(Circuit.CLOSED)

    def forget(self, now_s: float) -> None:
        """Nobody needs the endpoint now: what it did lately says nothing of later, once a cool-down is over."""
        if self.wait_s(now_s) <= 0:
            self.answered()

    def failed(self, now_s: float, *, probe: bool, at_once: bool = False) -> None:
        """The endpoint could not be used; `at_once` opens the circuit without counting (a key it refuses)."""
        self.failures += 1
        if self.circuit is Circuit.HALF_OPEN and probe:
            self.cooldown_s = min(COOLDOWN_MAX_S, 2 * self.cooldown_s)
            self._open(now_s)
        elif self.circuit is Circuit.CLOSED and (at_once or self.failures >= FAILURES_MAX):
            self._open(now_s)

    def abandoned(self, now_s: float, *, probe: bool) -> None:
        """A call ended without telling anything (cancelled, 429): a probe makes room for the next one."""
        if probe and self.circuit is Circuit.HALF_OPEN:
            self._move(Circuit.OPEN)
            self.open_until_s = now_s

    def _open(self, now_s: float) -> None:
        self._move(Circuit.OPEN)
        self.open_until_s = now_s + self.cooldown_s

    def _move(self, to: Circuit) -> None:
        if to not in LEGAL_MOVES[self.circuit]:
            raise RuntimeError(f"{self.circuit.name} -> {to.name}")
        self.circuit = to
