"""Which of many events are drawn: uniformly, or the most uncertain first; each text once. Pure.

A text's rank is a keyed hash of its words, so a uniform draw is the events with the smallest ranks: of all distinct
texts that are offered each has the same chance, copies give no second one, the order of reading does not matter, the
same seed draws the same, and no more than what is drawn is kept (bottom-k sampling: Cohen and Kaplan, PODC 2007).
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.events import Event, SmallOpinion


@dataclass(frozen=True, slots=True)
class Drawn:
    """One event, with what the small models say of it where they were asked."""

    event: Event
    small: Mapping[str, SmallOpinion] = field(default_factory=dict[str, "SmallOpinion"])


@dataclass(slots=True)
class Draw:
    """Keeps the `count` events with the smallest places so far."""

    count: int
    seed: int
    _heap: list[tuple[float, int, str]] = field(default_factory=list["tuple[float, int, str]"])
    """Negated places, the last of those that are kept on top, and the texts' hashes."""
    _kept: dict[str, Drawn] = field(default_factory=dict[str, Drawn])

    def offer(self, text_hash: str, drawn: Drawn, uncertainty: float = 0.0) -> None:
        """One more event; the more uncertain stand first, those of equal uncertainty in the order of their ranks.

        Of copies the one that stands first in the topic is kept.
        """
        if (old := self._kept.get(text_hash)) is not None:
            if _place(drawn) < _place(old) and drawn.small == old.small:
                self._kept[text_hash] = drawn
            return
        entry = (uncertainty, -self._rank(text_hash), text_hash)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            gone = heapq.heappushpop(self._heap, entry)[2]
            if gone == text_hash:
                return
            del self._kept[gone]
        self._kept[text_hash] = drawn

    def drawn(self) -> list[Drawn]:
        """What is kept, the most uncertain first, else in the order of their ranks."""
        return [self._kept[text_hash] for _, _, text_hash in sorted(self._heap, reverse=True)]

    def _rank(self, text_hash: str) -> int:
        key = self.seed.to_bytes(16, "big", signed=True)
        return int.from_bytes(hashlib.blake2b(text_hash.encode(), key=key, digest_size=8).digest())


def _place(drawn: Drawn) -> tuple[int, int]:
    return drawn.event.source.partition, drawn.event.source.offset
