"""How long this machine stood still: a virtual machine may be stopped for longer than a group session lasts."""

from __future__ import annotations

import threading
import time
from typing import Self

LOOK_EVERY_S = 0.1


class Pauses:
    """Measures from entering to leaving. `longest_s` is how much later than asked a thread that only sleeps woke."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last_s = time.monotonic()
        while not self._over.wait(LOOK_EVERY_S):
            now_s = time.monotonic()
            self.longest_s = max(self.longest_s, now_s - last_s - LOOK_EVERY_S)
            last_s = now_s
