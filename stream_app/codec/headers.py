"""Names of record headers, and how they are read.

Kafka lets a header stand more than once and lets its value be null; a reader takes the last, as
`Headers.lastHeader` of the Java client does.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from stream_app.errors import UnreadableRecord

T = TypeVar("T")
RecordHeaders = Sequence[tuple[str, bytes | None]]
"""Headers as a client hands them over."""

CONTENT_TYPE: Final = "content-type"
KIND: Final = "kind"
SHUNT_SOURCE: Final = "shunt-source"
SHUNT_ESCALATION: Final = "shunt-escalation"
SHUNT_PARKED: Final = "shunt-parked"
SHUNT_PARKED_AT: Final = "shunt-parked-at"
SHUNT_VERDICT: Final = "shunt-verdict"
SHUNT_AUDIT: Final = "shunt-audit"
SHUNT_CAUSE: Final = "shunt-cause"
TRACEPARENT: Final = "traceparent"
CE_SPECVERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SUBJECT: Final = "ce_subject"
CE_TYPE: Final = "ce_type"
CE_SOURCE: Final = "ce_source"
CE_TIME: Final = "ce_time"
CE_TRACEPARENT: Final = "ce_traceparent"

JSON_CONTENT: Final = b"application/json"

# https://www.w3.org/TR/trace-context/#traceparent-header: a malformed one is dropped, as the standard asks.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def last_by_name(headers: RecordHeaders) -> dict[str, bytes]:
    """Header name -> its last value; a null value reads as empty."""
    return {name: value or b"" for name, value in headers}


def take_last(
    headers: RecordHeaders, name: str, decode: Callable[[bytes], T], cause: str
) -> tuple[T, tuple[tuple[str, bytes | None], ...]]:
    """What the last header of that name says by `decode`, a msgspec decoder's, and the headers without it.

    Raises UnreadableRecord (`cause`) where there is none or it cannot be decoded.
    """
    for place in range(len(headers) - 1, -1, -1):
        found, value = headers[place]
        if found == name:
            try:
                said = decode(value or b"")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UnreadableRecord(cause, f"the header {name}: {error}") from error
            return said, (*headers[:place], *headers[place + 1 :])
    raise UnreadableRecord(cause, f"there is no header {name}")


def valid_traceparent(value: bytes | None) -> bytes | None:
    """`value` if it is a W3C traceparent, else None."""
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None
