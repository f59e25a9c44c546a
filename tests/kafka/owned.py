"""Stand-ins for what the bounded queues of both lanes hold: an owned partition, and a record that was fetched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class Partition:
    """The part of an owned partition that a queue touches: where it stands, and whether it wants records."""

    number: int = 0
    position: int = 0
    committed: int = 0
    wanted: bool = True

    def pause(self) -> None:
        self.wanted = False

    def resume(self) -> None:
        self.wanted = True


@dataclass(frozen=True)
class Record:
    """The part of a fetched record that counts: its place, and what it weighs."""

    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
