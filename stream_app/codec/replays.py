"""Replayed dead letters: the marks on what is sent back, and the receipt that says that it was.

The marks are two headers behind the record's own. A record that fails again carries them, as it does all its headers,
into its next dead letter: so attempts are counted without the lanes knowing of them.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from stream_app.codec.headers import RecordHeaders
from stream_app.errors import UnreadableRecord
from stream_app.events import Headers

REPLAY_OF: Final = "shunt-replay-of"
REPLAY_ATTEMPT: Final = "shunt-replay-attempt"

_ATTEMPT_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class ReplayMark:
    """Which dead letter a record was (`topic/partition/offset`), and the how many-th time it was sent back."""

    of: str
    attempt: int


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """That a dead letter was sent back. Its key is the letter's place.

    `letter_ms` is the letter's own timestamp: a topic that is made anew has other letters at the same places.
    """

    letter_ms: int
    to: str
    attempt: int
    replayed_at_ms: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Receipt).decode


def marked(headers: RecordHeaders, mark: ReplayMark) -> Headers:
    """The record's own headers, untouched and first, then the mark; an earlier mark of ours goes."""
    _, own = read_mark(headers)
    return (*own, (REPLAY_OF, mark.of.encode()), (REPLAY_ATTEMPT, str(mark.attempt).encode()))


def read_mark(headers: RecordHeaders) -> tuple[ReplayMark | None, Headers]:
    """The last mark among `headers`, and all the others as they came.

    Only the two headers one after the other are a mark, since we write them so: a user's own header that has
    one of the names stays what it is.
    """
    for place in range(len(headers) - 2, -1, -1):
        (of, letter), (count, attempt) = headers[place], headers[place + 1]
        if of == REPLAY_OF and count == REPLAY_ATTEMPT and letter is not None and _is_count(attempt):
            mark = ReplayMark(letter.decode("utf-8", "replace"), int(attempt or b"0"))
            return mark, (*headers[:place], *headers[place + 2 :])
    return None, tuple(headers)


def _is_count(attempt: bytes | None) -> bool:
    return attempt is not None and attempt.isdigit() and len(attempt) <= _ATTEMPT_DIGITS_MAX


def encode_receipt(partition: int, offset: int, receipt: Receipt) -> tuple[bytes, bytes]:
    """Key and value of the receipt of the letter at that place."""
    return receipt_key(partition, offset), _encode(receipt)


def receipt_key(partition: int, offset: int) -> bytes:
    """The key under which a letter's receipt stands; a null value under it takes the receipt away."""
    return b"%d/%d" % (partition, offset)


def decode_receipt(key: bytes | None, value: bytes) -> tuple[tuple[int, int], Receipt]:
    """The letter's partition and offset, and its receipt. Raises UnreadableRecord (`bad_receipt`)."""
    return decode_receipt_key(key), _receipt(value)


def decode_receipt_key(key: bytes | None) -> tuple[int, int]:
    """The letter's partition and offset. Raises UnreadableRecord (`bad_receipt`)."""
    partition, _, offset = (key or b"").partition(b"/")
    if not (partition.isdigit() and offset.isdigit()):
        raise UnreadableRecord("bad_receipt", "the key is not partition/offset")
    return int(partition), int(offset)


def _receipt(value: bytes) -> Receipt:
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRecord("bad_receipt", str(error)) from error
