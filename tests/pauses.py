"""How long this machine stood still: a virtual machine may be stopped for longer than a group session lasts."""

from __future__ import annotations

import time

from tests.beside import Beside


class Pauses(Beside):
    """How much later than asked a thread that only sleeps woke, looking each `every_s` from entering to leaving."""

    def __init__(self, every_s: float = 0.1) -> None:
        super().__init__()
        self._every_s = every_s
        self._late_s = [0.0]  # nothing late where it is left before the first look

    @property
    def longest_s(self) -> float:
        return max(self._late_s)

    @property
    def p99_s(self) -> float:
        """Of a hundred times that it woke the ninety-ninth."""
        return sorted(self._late_s)[int(0.99 * len(self._late_s))]

    def _run(self) -> None:
        due_s = time.monotonic() + self._every_s
        while not self._over.wait(self._every_s):
            now_s = time.monotonic()
            self._late_s.append(now_s - due_s)
            due_s = now_s + self._every_s
