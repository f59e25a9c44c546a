"""Dead letters: the record byte for byte, and after its headers the cause, named as Kafka Connect names it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stream_app.codec.headers import SHUNT_CAUSE, SHUNT_SOURCE, RecordHeaders, last_by_name
from stream_app.errors import UnreadableRecord
from stream_app.events import Headers, Source

CONNECT: Final = "__connect.errors."
MESSAGE_CHARS_MAX: Final = 1_000
TRUNCATED: Final = "truncated"
VALUE_SHA256: Final = "shunt-value-sha256"
VALUE_BYTES: Final = "shunt-value-bytes"

_FIRST: Final = f"{CONNECT}topic"  # our block begins with it: what stands before its last one is original
_BATCH_OVERHEAD_BYTES: Final = 61  # header of a record batch, magic 2
_VARINT_BYTES_MAX: Final = 5
_RECORD_OVERHEAD_BYTES: Final = 1 + 10 + 5 * _VARINT_BYTES_MAX  # attributes, timestamp delta, five more varints


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a record is dead. `stage` is where (`decode`, `classify`, `escalate`, ...), `name` the stable cause."""

    stage: str
    name: str
    exception: str
    message: str


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """What to produce to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class DeadLetterMessage:
    """What a dead letter says, as a consumer reads it. `original` are the record's own headers."""

    topic: str
    partition: int
    offset: int
    cause: Cause
    truncated: bool
    original: Headers


def cause_of(error: Exception, stage: str) -> Cause:
    """The cause an exception stands for."""
    name = error.cause if isinstance(error, UnreadableRecord) else type(error).__name__
    return Cause(stage=stage, name=name, exception=type(error).__name__, message=str(error))


def dead_letter_headers(headers: RecordHeaders, source: Source, cause: Cause) -> Headers:
    """The original headers, untouched and first, then where the record stood and why it is dead."""
    message = " ".join(cause.message.split())
    told = {
        _FIRST: source.topic,
        f"{CONNECT}partition": str(source.partition),
        f"{CONNECT}offset": str(source.offset),
        f"{CONNECT}stage": cause.stage,
        f"{CONNECT}exception.class.name": cause.exception,
        f"{CONNECT}exception.message": message[:MESSAGE_CHARS_MAX],
        SHUNT_CAUSE: cause.name,
        SHUNT_SOURCE: source.ref,
    }
    return (*headers, *((name, text.encode("utf-8", "replace")) for name, text in told.items()))


def dead_letter(
    key: bytes | None, value: bytes | None, headers: RecordHeaders, source: Source, cause: Cause, batch_bytes_max: int
) -> DeadRecord:
    """The dead letter of a record, cut only where a batch of `batch_bytes_max` cannot hold it.

    What does not fit goes in this order: the value, the original headers, the key. A cut one says
    `truncated=true`, and names the value's sha-256 and length; its source is where the whole record stands.
    """
    whole = DeadRecord(key, value, dead_letter_headers(headers, source, cause))
    if record_batch_bytes(whole.key, whole.value, whole.headers) <= batch_bytes_max:
        return whole
    body = value or b""
    mark = (
        (TRUNCATED, b"true"),
        (VALUE_SHA256, hashlib.sha256(body).hexdigest().encode()),
        (VALUE_BYTES, str(len(body)).encode()),
    )
    without_value = DeadRecord(key, b"", (*whole.headers, *mark))
    if record_batch_bytes(key, b"", without_value.headers) <= batch_bytes_max:
        return without_value
    bare = (*dead_letter_headers((), source, cause), *mark)
    fits_with_key = record_batch_bytes(key, b"", bare) <= batch_bytes_max
    return DeadRecord(key if fits_with_key else None, b"", bare)


def decode_dead_letter(headers: RecordHeaders) -> DeadLetterMessage:
    """Reads a dead letter's headers. Raises UnreadableRecord (`bad_dead_letter`) for a record that is none."""
    start = max((place for place, (name, _) in enumerate(headers) if name == _FIRST), default=None)
    if start is None:
        raise UnreadableRecord("bad_dead_letter", f"there is no header {_FIRST}")
    told = {name: value.decode("utf-8", "replace") for name, value in last_by_name(headers[start:]).items()}
    try:
        partition, offset = int(told[f"{CONNECT}partition"]), int(told[f"{CONNECT}offset"])
    except (KeyError, ValueError) as error:
        raise UnreadableRecord("bad_dead_letter", "partition or offset is missing or no number") from error
    cause = Cause(
        stage=told.get(f"{CONNECT}stage", ""),
        name=told.get(SHUNT_CAUSE, ""),
        exception=told.get(f"{CONNECT}exception.class.name", ""),
        message=told.get(f"{CONNECT}exception.message", ""),
    )
    truncated = told.get(TRUNCATED) == "true"
    return DeadLetterMessage(told[_FIRST], partition, offset, cause, truncated, tuple(headers[:start]))


def record_batch_bytes(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """At least the bytes of an uncompressed batch of this one record, which `max.message.bytes` bounds.

    Source: the record batch format, https://kafka.apache.org/documentation/#recordbatch. Every varint is
    counted at its longest, so the estimate is a few bytes a header too high, never too low.
    """
    told = sum(
        len(name.encode("utf-8", "surrogateescape")) + len(content or b"") + 2 * _VARINT_BYTES_MAX
        for name, content in headers
    )
    return _BATCH_OVERHEAD_BYTES + _RECORD_OVERHEAD_BYTES + len(key or b"") + len(value or b"") + told
