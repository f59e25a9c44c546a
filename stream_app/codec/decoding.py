"""Bytes to events: plain JSON by default, CloudEvents where the headers say so."""

from typing import Final

import msgspec

from stream_app.codec.cloudevents import is_cloudevent, read_cloudevent
from stream_app.codec.headers import TRACEPARENT, RecordHeaders, last_by_name, valid_traceparent
from stream_app.codec.json_object import Members, decode_members, decode_string, rest, split
from stream_app.errors import UnreadableRecord
from stream_app.events import Event, Source, Tombstone
from stream_app.settings import Events

ID_BYTES_MAX: Final = 4_096
"""An event's id travels in a header of every output; a longer one is no id."""

_FRAME_BYTES: Final = 5  # magic byte 0 and a 32-bit schema id
_NULL: Final = b"null"


class EventDecoder:
    """Reads records by one pipeline's `[events]` settings. Pure, and safe to share."""

    def __init__(self, settings: Events) -> None:
        self._id_path = tuple(settings.id_field.split("."))
        self._text_paths = tuple(tuple(path.split(".")) for path in settings.text_fields)
        self._text_names = " or ".join(repr(path) for path in settings.text_fields)
        self._text_bytes_max = settings.text_bytes_max
        single = self._text_paths[0] if len(self._text_paths) == 1 else ()
        self._plain_text_name = single[0] if len(single) == 1 else None
        self._plain_id_name = self._id_path[0] if len(self._id_path) == 1 else None
        paths = (self._id_path, *self._text_paths)
        self._used = frozenset(path[0] for path in paths if len(path) == 1)
        self._used_with_envelope = frozenset(path[0] for path in self._text_paths if len(path) == 1)

    def decode(
        self, source: Source, key: bytes | None, value: bytes | None, headers: RecordHeaders
    ) -> Event | Tombstone:
        """The event a record is, or the tombstone it is when its value is null.

        Never raises anything but UnreadableRecord, whatever the bytes; its causes are listed in
        docs/messages.md.
        """
        if value is None:
            return Tombstone(source=source, key=key)
        traceparent = None
        if headers:
            named = last_by_name(headers)
            traceparent = named.get(TRACEPARENT)
            if is_cloudevent(named):
                envelope = read_cloudevent(value, named)
                members = split(envelope.data)
                text = self._text(members)
                payload = rest(envelope.data, members, self._used_with_envelope)
                trace = valid_traceparent(traceparent or envelope.traceparent)
                return Event(_bounded(envelope.id), text, payload, source, key, trace)
            traceparent = valid_traceparent(traceparent)
        if value[:1] == b"\0":
            raise _frame(value)
        members = split(value)
        text = self._plain_text(members) or self._text(members)
        event_id = self._plain_id(members) or self._id(members) or source.ref
        return Event(event_id, text, rest(value, members, self._used), source, key, traceparent)

    def _plain_text(self, members: Members) -> str | None:
        """The text where it is as nearly always: one short string at the top. None: look closer."""
        if self._plain_text_name is None:
            return None
        raw = members.get(self._plain_text_name)
        if raw is None or len(raw) > self._text_bytes_max:  # JSON is never shorter than the text it stands for
            return None
        try:
            text = decode_string(raw)
        except msgspec.ValidationError:
            return None
        return None if text.isspace() else text

    def _plain_id(self, members: Members) -> str | None:
        """The id where it is as nearly always: a short string at the top. None: look closer."""
        if self._plain_id_name is None:
            return None
        raw = members.get(self._plain_id_name)
        if raw is None or len(raw) > ID_BYTES_MAX:
            return None
        try:
            return decode_string(raw)
        except msgspec.ValidationError:
            return None

    def _id(self, members: Members) -> str | None:
        """The id as text, an integer's own digits included; None where there is none."""
        raw = _at(members, self._id_path)
        if raw is None:
            return None
        try:
            return _bounded(decode_string(raw))
        except msgspec.ValidationError:
            digits = bytes(raw)
        if digits == _NULL:
            return None
        if not digits.lstrip(b"-").isdigit():
            raise UnreadableRecord("wrong_type", f"the id {'.'.join(self._id_path)!r} is neither text nor an integer")
        return _bounded(digits.decode())

    def _text(self, members: Members) -> str:
        """The text fields that are there, joined by line ends."""
        if len(self._text_paths) == 1:
            joined = _text_at(members, self._text_paths[0])
        else:
            joined = "\n".join(text for path in self._text_paths if (text := _text_at(members, path)))
        if not joined or joined.isspace():
            raise UnreadableRecord("missing_text", f"there is no text in {self._text_names}")
        # A character takes at most 4 bytes: short texts, nearly all, are not encoded to be measured.
        if 4 * len(joined) > self._text_bytes_max and len(joined.encode()) > self._text_bytes_max:
            raise UnreadableRecord("text_too_long", f"the text is longer than {self._text_bytes_max:,} bytes")
        return joined


def _at(members: Members, path: tuple[str, ...]) -> msgspec.Raw | None:
    """What stands at `path`; None where nothing does."""
    raw = members.get(path[0])
    if len(path) == 1:
        return raw
    for name in path[1:]:
        if raw is None or bytes(raw) == _NULL:
            return None
        try:
            raw = decode_members(raw).get(name)
        except msgspec.ValidationError as error:
            raise UnreadableRecord("wrong_type", f"{'.'.join(path)!r} leads through what is no object") from error
    return raw


def _text_at(members: Members, path: tuple[str, ...]) -> str | None:
    """The text at `path`; None where there is nothing, or null."""
    raw = _at(members, path)
    if raw is None:
        return None
    try:
        return decode_string(raw)
    except msgspec.ValidationError as error:
        if bytes(raw) == _NULL:
            return None
        raise UnreadableRecord("wrong_type", f"{'.'.join(path)!r} is not text") from error


def _bounded(event_id: str) -> str:
    if 4 * len(event_id) > ID_BYTES_MAX and len(event_id.encode()) > ID_BYTES_MAX:
        raise UnreadableRecord("id_too_long", f"the id is longer than {ID_BYTES_MAX:,} bytes")
    return event_id


def _frame(value: bytes) -> UnreadableRecord:
    if len(value) < _FRAME_BYTES:
        return UnreadableRecord("not_json", "the value begins with a zero byte")
    schema = int.from_bytes(value[1:_FRAME_BYTES], "big")
    return UnreadableRecord(
        "schema_registry_frame",
        f"a Schema Registry frame (schema id {schema}): Shunt reads JSON without a frame",
    )
