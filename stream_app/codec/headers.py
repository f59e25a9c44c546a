"""Names of record headers, and how they are read.

Kafka lets a header stand more than once and lets its value be null; a reader takes the last, as
`Headers.lastHeader` of the Java client does.
"""

import re
from collections.abc import Sequence
from typing import Final

RecordHeaders = Sequence[tuple[str, bytes | None]]
"""Headers as a client hands them over."""

CONTENT_TYPE: Final = "content-type"
KIND: Final = "kind"
SHUNT_SOURCE: Final = "shunt-source"
SHUNT_ESCALATION: Final = "shunt-escalation"
SHUNT_PARKED: Final = "shunt-parked"
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


def valid_traceparent(value: bytes | None) -> bytes | None:
    """`value` if it is a W3C traceparent, else None."""
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None
