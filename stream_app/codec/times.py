"""Milliseconds since the epoch as RFC 3339 in UTC with three decimals (`2026-11-20T09:30:00.120Z`), and back.

A broker accepts any 64-bit timestamp a producer sets, so what no calendar holds is clamped to its ends.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S: Final = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


@lru_cache(maxsize=4_096)  # an hour and more of seconds: neighbouring records share one
def _second(second: int) -> bytes:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode()


def rfc3339(timestamp_ms: int) -> bytes:
    """The timestamp as ASCII text; outside the years 1 to 9999, the nearest end of them."""
    second, ms = divmod(timestamp_ms, 1_000)
    if not _FIRST_S <= second <= _LAST_S:
        return b"0001-01-01T00:00:00.000Z" if second < _FIRST_S else b"9999-12-31T23:59:59.999Z"
    return b"%b.%03dZ" % (_second(second), ms)


def timestamp_ms(text: str) -> int:
    """The inverse of `rfc3339`. Raises ValueError for what is not RFC 3339 with an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no offset from UTC")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
