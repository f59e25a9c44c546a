"""Which offsets beyond the committed one are finished: kept in memory, and in the committed offset's metadata.

Pure. The slow lane finishes records in any order. Kafka's committed offset is the oldest unfinished one; what is
finished beyond it travels in that offset's metadata, so that a new owner skips it. The text is

    shunt1:<base>:<crc>:<bits>:<extra>

`base` is the committed offset in decimal, `bits` an uncompressed bitmap (bit i stands for offset base + i, least
significant bit first, base64 without padding), `extra` a lane's own short text (the spend lease), `crc` the
CRC-32 of everything else in hexadecimal. A text whose base is not the committed offset, or whose sum does not
fit, is not believed: everything from the committed offset on counts as unfinished.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field

FORMAT = "shunt1"
METADATA_CHARS_MAX = 4_096
"""The broker's default `offset.metadata.max.bytes`. One more kills the producer, so it is never tried."""
SPAN_BITS_MAX = 20_000
"""20,000 bits are 3,334 base64 characters; with base, sum and an extra of 700 that stays below 4,096."""


class MetadataTooLong(ValueError):  # noqa: N818 - named for what happened
    """The metadata would not fit Kafka's limit: the caller let its span grow past `SPAN_BITS_MAX`."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a committed offset's metadata said. `doubt` names why it was not believed, None if it was."""

    finished: frozenset[int]
    extra: str
    doubt: str | None


def encode(base: int, finished: set[int] | frozenset[int], extra: str = "") -> str:
    """The metadata text for committed offset `base`; offsets below it are left out.

    `extra` is printable ASCII. Raises MetadataTooLong where the text would pass `METADATA_CHARS_MAX`.
    """
    bits = 0
    for offset in finished:
        if offset >= base:
            bits |= 1 << (offset - base)
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    packed = base64.b64encode(raw).decode("ascii").rstrip("=")
    text = f"{FORMAT}:{base}:{_crc(base, packed, extra)}:{packed}:{extra}"
    if len(text) > METADATA_CHARS_MAX:
        raise MetadataTooLong(f"{len(text)} characters for a span of {bits.bit_length()} offsets")
    return text


def decode(metadata: str, committed: int) -> Restored:
    """What `metadata` says is finished, if it belongs to the offset `committed`. Never raises."""
    if not metadata:
        return Restored(frozenset(), "", None)
    parts = metadata.split(":", 4)
    if len(parts) != 5 or parts[0] != FORMAT:
        return _doubted("it is not ours")
    _, base, crc, packed, extra = parts
    if base != str(committed):
        return _doubted(f"it was written for offset {base[:20]}, not {committed}")
    if crc != _crc(committed, packed, extra):
        return _doubted("its check sum does not fit")
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except ValueError:  # binascii.Error is one; characters outside ASCII are another
        return _doubted("its bitmap cannot be read")
    return Restored(frozenset(_set_bits(raw, committed)), extra, None)


def _doubted(why: str) -> Restored:
    return Restored(frozenset(), "", why)


def _crc(base: int, packed: str, extra: str) -> str:
    return f"{zlib.crc32(f'{base}:{packed}:{extra}'.encode(errors='surrogatepass')):08x}"


def _set_bits(raw: bytes, base: int) -> list[int]:
    return [base + 8 * index + bit for index, byte in enumerate(raw) if byte for bit in range(8) if byte >> bit & 1]


@dataclass(slots=True)
class FinishedOffsets:
    """The ledger of one partition: what arrived, what is finished, and from where a new owner must begin.

    `base` is the commit point at the last call of `advance`. Offsets may have gaps (markers, compaction).
    """

    base: int
    _unfinished: dict[int, None] = field(default_factory=dict[int, None])  # in order of arrival = of offset
    _finished: set[int] = field(default_factory=set[int])

    def restore(self, finished: frozenset[int]) -> None:
        """Takes over what the last owner had finished; those offsets count as finished when they arrive."""
        self._finished.update(offset for offset in finished if offset >= self.base)

    def arrive(self, offset: int) -> bool:
        """Notes a record; False if it is finished already and must be skipped."""
        if offset in self._finished:
            return False
        self._unfinished[offset] = None
        return True

    def finish(self, offset: int) -> None:
        """Notes that the record's outcome is delivered with the next commit. KeyError if it never arrived."""
        del self._unfinished[offset]
        self._finished.add(offset)

    def advance(self, position: int) -> int:
        """Moves the base to the oldest unfinished offset, or to `position` where all that arrived is finished.

        `position` is the next offset to fetch: every record below it has arrived. Returns the commit point.
        """
        self.base = max(self.base, next(iter(self._unfinished), position))
        self._finished = {offset for offset in self._finished if offset >= self.base}
        return self.base

    def span(self, position: int) -> int:
        """How many offsets lie between the oldest unfinished one and `position`."""
        return position - next(iter(self._unfinished), position)

    def metadata(self, extra: str = "") -> str:
        """The text to commit with `base`."""
        return encode(self.base, self._finished, extra)

    @property
    def unfinished(self) -> int:
        """Records that arrived and are not finished."""
        return len(self._unfinished)
