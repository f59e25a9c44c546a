"""Which dead letters: by cause, stage, time of death, key and place. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_app.codec import decode_dead_letter
from stream_app.codec.replays import read_mark

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import DeadLetterMessage
    from stream_app.codec.replays import ReplayMark
    from stream_app.events import Headers

    Record = ConsumerRecord[bytes | None, bytes | None]

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DURATION = re.compile(r"(?:\d{1,9}[smhdw])+")


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter where it stands. `own` are the record's own headers, without a mark of ours."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    told: DeadLetterMessage
    mark: ReplayMark | None
    own: Headers

    @property
    def place(self) -> tuple[int, int]:
        """Its partition and offset."""
        return self.partition, self.offset

    @property
    def ref(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def attempts(self) -> int:
        """How often the record had been sent back before it died this time."""
        return 0 if self.mark is None else self.mark.attempt


def letter_of(record: Record) -> Letter:
    """The letter a record of the dead-letter topic is. Raises UnreadableRecord (`bad_dead_letter`)."""
    told = decode_dead_letter(record.headers)
    mark, own = read_mark(told.original)
    return Letter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        told=told,
        mark=mark,
        own=own,
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """What must hold for a letter; what is empty or None asks nothing.

    The time is that of the death, `since_ms` included, `until_ms` not. `places` are partitions and offsets.
    """

    causes: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    key: bytes | None = None
    places: frozenset[tuple[int, int]] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """True where all that is asked holds."""
        cause, at_ms = letter.told.cause, letter.timestamp_ms
        return (
            (not self.causes or cause.name in self.causes)
            and (not self.stages or cause.stage in self.stages)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
            and (self.key is None or letter.key == self.key)
            and (not self.places or letter.place in self.places)
        )

    @property
    def asks_nothing(self) -> bool:
        """True where it takes every letter."""
        return self == Selection()


def moment_ms(text: str, now_ms: int) -> int:
    """A time: ISO 8601 (UTC where it names no zone), or how long before `now_ms`: `90s`, `2h`, `1d12h`.

    Raises ValueError for what is neither.
    """
    if DURATION.fullmatch(text):
        return now_ms - sum(int(part[:-1]) * UNIT_MS[part[-1]] for part in re.findall(r"\d+[smhdw]", text))
    named = datetime.fromisoformat(text)
    return int((named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp() * 1000)


def place_of(text: str) -> tuple[int, int]:
    """`PARTITION/OFFSET`, or an offset of partition 0. Raises ValueError."""
    partition, _, offset = text.rpartition("/")
    if not (offset.isdecimal() and (partition or "0").isdecimal()):
        raise ValueError(text)
    return int(partition or 0), int(offset)
