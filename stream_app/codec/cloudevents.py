"""CloudEvents 1.0 as Kafka carries them: where the envelope is, and what it says.

Binary mode: attributes in `ce_*` headers, the data is the value. Structured mode: `content-type` begins with
`application/cloudevents`, the value is the envelope. Source: the CloudEvents Kafka protocol binding 1.0.2.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from stream_app.codec.headers import CE_SPECVERSION, CE_TRACEPARENT, CONTENT_TYPE
from stream_app.codec.json_object import Members, split, string
from stream_app.errors import UnreadableRecord

_STRUCTURED: Final = "application/cloudevents"
_JSON_MODE: Final = "application/cloudevents+json"
_REQUIRED: Final = ("id", "source", "type")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """What of the envelope an event needs: its id, its data in their own bytes, and its trace."""

    id: str
    data: bytes
    traceparent: bytes | None


def is_cloudevent(headers: dict[str, bytes]) -> bool:
    """True where the headers say so; the value alone never does."""
    return CE_SPECVERSION in headers or headers.get(CONTENT_TYPE, b"")[:23].lower() == _STRUCTURED.encode()


def read_cloudevent(value: bytes, headers: dict[str, bytes]) -> CloudEvent:
    """The envelope of a record for which `is_cloudevent` holds.

    Raises UnreadableRecord: `unknown_cloudevents_version`, `bad_cloudevent`, and what `split` raises.
    """
    content_type = headers.get(CONTENT_TYPE, b"").decode("utf-8", "replace")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith(_STRUCTURED):
        return _structured(value, media_type)
    return _binary(value, headers, media_type)


def _binary(value: bytes, headers: dict[str, bytes], media_type: str) -> CloudEvent:
    attributes = {name: _text(headers, f"ce_{name}") for name in ("specversion", *_REQUIRED)}
    _check(attributes)
    _check_media_type(media_type)
    return CloudEvent(id=str(attributes["id"]), data=value, traceparent=headers.get(CE_TRACEPARENT))


def _structured(value: bytes, media_type: str) -> CloudEvent:
    if media_type != _JSON_MODE:
        raise UnreadableRecord(
            "bad_cloudevent", f"structured mode as {media_type!r}, where only {_JSON_MODE} is read"
        )
    members = split(value)
    attributes = {name: _member(members, name) for name in ("specversion", *_REQUIRED)}
    _check(attributes)
    _check_media_type((_member(members, "datacontenttype") or "").partition(";")[0].strip().lower())
    trace = _member(members, "traceparent")
    return CloudEvent(id=str(attributes["id"]), data=_data(members), traceparent=trace.encode() if trace else None)


def _text(headers: dict[str, bytes], name: str) -> str | None:
    try:
        return headers[name].decode() if name in headers else None
    except UnicodeDecodeError as error:
        raise UnreadableRecord("bad_cloudevent", f"the header {name} is not UTF-8") from error


def _member(members: Members, name: str) -> str | None:
    return string(members[name]) if name in members else None


def _check(attributes: dict[str, str | None]) -> None:
    """The version first: another one may have other required attributes."""
    version = attributes["specversion"]
    if version != "1.0":
        raise UnreadableRecord("unknown_cloudevents_version", f"CloudEvents version {str(version)[:40]!r}, not '1.0'")
    for name in _REQUIRED:
        if not attributes[name]:
            raise UnreadableRecord("bad_cloudevent", f"the attribute {name!r} is missing, empty or no text")


def _check_media_type(media_type: str) -> None:
    """Absent means JSON (CloudEvents JSON format, section 3.1); any `+json` is JSON."""
    if media_type and media_type not in {"application/json", "text/json"} and not media_type.endswith("+json"):
        raise UnreadableRecord("bad_cloudevent", f"the data is {media_type[:80]!r}, not JSON")


def _data(members: Members) -> bytes:
    """The bytes of `data`, or those `data_base64` stands for."""
    if ("data" in members) == ("data_base64" in members):
        raise UnreadableRecord("bad_cloudevent", "exactly one of data and data_base64 must be there")
    if "data" in members:
        return bytes(members["data"])
    coded = _member(members, "data_base64")
    try:
        # Not text: what no alphabet of base64 holds, so that both mistakes end alike.
        return base64.b64decode("-" if coded is None else coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableRecord("bad_cloudevent", "data_base64 is not base64") from error
