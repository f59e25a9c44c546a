"""People's verdicts on their way to the worker that may correct: a verdict says which decision it is about."""

import re
from typing import Final

import msgspec

from stream_app.codec.headers import CONTENT_TYPE, JSON_CONTENT, SHUNT_PARKED_AT, SHUNT_VERDICT, RecordHeaders
from stream_app.errors import UnreadableRecord
from stream_app.events import Headers, Verdict

_encode = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Verdict).decode
_REF: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}/\d+/\d+")


def encode_verdict(verdict: Verdict) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers. The key is the source, so that a record's verdicts are told apart at a glance."""
    return verdict.ref.encode(), _encode(verdict), ((CONTENT_TYPE, JSON_CONTENT),)


def decode_verdict(value: bytes | None) -> Verdict:
    """The inverse. Raises UnreadableRecord (`bad_verdict`)."""
    try:
        verdict = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecord("bad_verdict", str(error)) from error
    if not _REF.fullmatch(verdict.ref) or verdict.label == "" or min(verdict.partition, verdict.offset) < 0:
        raise UnreadableRecord("bad_verdict", "it names no record, or no label")
    return verdict


def with_parked_at(headers: Headers, number: int) -> Headers:
    """A decision's headers, and the partition of the parked topic whose owner numbers its corrections."""
    return (*headers, (SHUNT_PARKED_AT, str(number).encode()))


def parked_at(headers: RecordHeaders) -> int | None:
    """The number that `with_parked_at` wrote; None where the event was never parked."""
    said = next((value for name, value in reversed(headers) if name == SHUNT_PARKED_AT), None)
    return int(said) if said is not None and said.isdigit() else None


def with_verdict(headers: Headers, place: str) -> Headers:
    """A correction's headers, and the verdict (`topic/partition/offset`) that it came from."""
    return (*headers, (SHUNT_VERDICT, place.encode()))


def verdict_of(headers: RecordHeaders) -> str | None:
    """The verdict that a correction came from; None for a decision by a model."""
    said = next((value for name, value in reversed(headers) if name == SHUNT_VERDICT), None)
    return None if said is None else said.decode("utf-8", "replace")
