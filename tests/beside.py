"""Work beside a test or a benchmark, in a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Beside(ABC):
    """Runs from entering to leaving, which waits for its end. `_run` returns soon after `_over` is set."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None: ...


class Every(Beside):
    """Does something every so many seconds."""

    def __init__(self, every_s: float, do: Callable[[], None]) -> None:
        super().__init__()
        self._every_s, self._do = every_s, do

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._do()
