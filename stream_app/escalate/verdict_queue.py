"""What the slow lane knows of people's verdicts on the records whose corrections one parked partition numbers.

Each parked partition has a partition of the verdicts topic with its number. Its owner reads that whole, from its
beginning, before it asks anything: a record that a verdict was given on is never corrected by the LLM any more. How
many verdicts are done stands in the parked partition's metadata, so that a verdict, its correction and what else the
partition did commit together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.events import Verdict

MARK = "v"
BATCH_MAX = 200
"""Verdicts that are worked off together: the decisions are read once for all of them."""


@dataclass(slots=True)
class VerdictQueue:
    """One partition's verdicts in one assignment. `done` is the offset of the first that is not committed yet."""

    done: int = 0
    known: bool = False
    """Whether all that was done before this assignment has been read."""
    ruled: set[str] = field(default_factory=set[str])
    """Records that a verdict was given on: no model has a word on them any more."""
    waiting: deque[tuple[int, Verdict]] = field(default_factory=deque["tuple[int, Verdict]"])
    more: asyncio.Event = field(default_factory=asyncio.Event)
    _began: int = 0

    def __post_init__(self) -> None:
        self._began = self.done

    def rules(self, ref: str) -> bool:
        """Whether a person has decided that record."""
        return ref in self.ruled

    def begins(self, end: int) -> bool:
        """Reading begins, of a topic that ends at `end` now. False where that was made anew since: all of it is read
        as if nothing had been done. What was done all the same is found on the decisions topic.
        """
        if end >= self._began:
            return True
        self._began = self.done = 0
        return False

    def arrived(self, verdicts: Sequence[tuple[int, Verdict]], position: int) -> None:
        """Takes in verdicts with their offsets; everything below `position` has been read."""
        for offset, verdict in verdicts:
            self.ruled.add(verdict.ref)
            if offset >= self._began:
                self.waiting.append((offset, verdict))
        self.known = position >= self._began
        if self.waiting:
            self.more.set()

    def next_batch(self) -> list[tuple[int, Verdict]]:
        """The oldest that wait, left where they are until they are `finished`."""
        return [self.waiting[at] for at in range(min(BATCH_MAX, len(self.waiting)))]

    def finished(self, count: int) -> None:
        """The outcomes of the `count` oldest are delivered with the next commit."""
        for _ in range(count):
            offset, _verdict = self.waiting.popleft()
            self.done = offset + 1

    def text(self) -> str:
        """What the offset's metadata says of them."""
        return f"{MARK}{self.done}" if self.done else ""


def parse_done(extra: str) -> int:
    """The inverse of `VerdictQueue.text`; 0 where it says nothing."""
    number = extra.removeprefix(MARK)
    return int(number) if extra.startswith(MARK) and number.isdigit() and number.isascii() else 0
