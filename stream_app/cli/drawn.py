"""Which of many events are drawn: uniformly, or the most uncertain first. Pure.

What is offered has a name: the hash of its text where each text is to come once, else its place. Its rank is a keyed
hash of that, so a uniform draw is the events with the smallest ranks: of all names that are offered each has the same
chance, copies give no second one, the order of reading does not matter, the same seed draws the same, and no more
than what is drawn is kept (bottom-k sampling: Cohen and Kaplan, PODC 2007).
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.events import Event, SmallOpinion


@dataclass(frozen=True, slots=True)
class Drawn:
    """One event, with what the small models say of it where they were asked."""

    event: Event
    small: Mapping[str, SmallOpinion] = field(default_factory=dict[str, "SmallOpinion"])


Offered = TypeVar("Offered", bound=Drawn)


@dataclass(slots=True)
class Draw(Generic[Offered]):
    """Keeps the `count` events with the smallest places so far."""

    count: int
    seed: int
    _heap: list[tuple[float, int, str]] = field(default_factory=list["tuple[float, int, str]"])
    """Negated places, the last of those that are kept on top, and the names."""
    _kept: dict[str, Offered] = field(default_factory=dict[str, Offered])

    def offer(self, name: str, drawn: Offered, uncertainty: float = 0.0) -> None:
        """One more event; the more uncertain stand first, those of equal uncertainty in the order of their ranks.

        Of copies the one that stands first in the topic is kept.
        """
        if (old := self._kept.get(name)) is not None:
            if _place(drawn) < _place(old) and drawn.small == old.small:
                self._kept[name] = drawn
            return
        entry = (uncertainty, -self._rank(name), name)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            gone = heapq.heappushpop(self._heap, entry)[2]
            if gone == name:
                return
            del self._kept[gone]
        self._kept[name] = drawn

    def drawn(self) -> list[Offered]:
        """What is kept, the most uncertain first, else in the order of their ranks."""
        return [self._kept[name] for _, _, name in sorted(self._heap, reverse=True)]

    def _rank(self, name: str) -> int:
        key = self.seed.to_bytes(16, "big", signed=True)
        return int.from_bytes(hashlib.blake2b(name.encode(), key=key, digest_size=8).digest())


def _place(drawn: Drawn) -> tuple[int, int]:
    return drawn.event.source.partition, drawn.event.source.offset
