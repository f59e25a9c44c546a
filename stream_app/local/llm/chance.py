"""Chance that repeats: it depends on the seed and on what it is drawn for, and never on the order of the calls."""

from __future__ import annotations

import hashlib

EVENTS_MAX = 200_000
"""About 30 MB of events."""


def chances(seed: int, name: str, nth: int = 0) -> tuple[float, float]:
    """Two independent numbers between 0 and 1, neither included."""
    drawn = hashlib.blake2b(f"{seed}/{nth}/{name}".encode(errors="surrogatepass"), digest_size=16).digest()
    bits = int.from_bytes(drawn, "little")
    low, high = bits & (2**64 - 1), bits >> 64
    return ((low >> 12) + 0.5) / 2**52, ((high >> 12) + 0.5) / 2**52  # 52 bits: the half is kept, so never 1


class Times:
    """How often each event was counted; the `EVENTS_MAX` that were heard of first are forgotten first."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def next(self, event: str) -> int:
        """How often it was counted before, and count it."""
        before = self._times.get(event, 0)
        if before == 0 and len(self._times) >= EVENTS_MAX:
            del self._times[next(iter(self._times))]
        self._times[event] = before + 1
        return before

    def of(self, event: str) -> int:
        """How often it was counted."""
        return self._times.get(event, 0)

    def clear(self) -> None:
        """Forget all of them."""
        self._times.clear()
