"""A JSON object as its members' own bytes: what passes through Shunt leaves as it came.

A parser that makes values changes them: numbers past 64 bits become floats, duplicate keys merge. So the
top level is split into members that stay raw. The split costs no Python loop in the common case: when
encoding the split object again gives the very bytes it came from, nothing (no duplicate, no space, no odd
escape) was lost in it. Else an exact scanner cuts the members out; nothing here recurses.
"""

import re
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from stream_app.errors import UnreadableRecord

Members = dict[str, msgspec.Raw]

DEPTH_MAX: Final = 500
"""Deepest nesting that is read: half of what Python's own parsers take at their default recursion limit."""

decode_members = msgspec.json.Decoder(Members).decode
decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
_format = msgspec.json.format

# The string alternative takes an unclosed string too: otherwise each of its quotes would be tried, O(n²).
_STRING: Final = rb'"(?:[^"\\]|\\.)*+"?'
_BRACKET: Final = re.compile(_STRING + rb"|[\[{]|[\]}]", re.DOTALL)
_TOKEN: Final = re.compile(_STRING + rb'|[\[{]|[\]}]|[^"\[\]{},: \t\n\r]+', re.DOTALL)
_NAN: Final = re.compile(_STRING + rb"|-?(?:NaN|Infinity)\b", re.DOTALL)
_KEY: Final = re.compile(rb'[, \t\n\r]*("(?:[^"\\]|\\.)*+")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_STEP: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def split(value: bytes) -> Members:
    """The object's members by name, the last of a name that stands more than once.

    Everything in it has been checked to be JSON (RFC 8259) in UTF-8, nested values included. Raises
    UnreadableRecord with the cause `not_json`, `nan`, `invalid_utf8`, `not_an_object` or `too_deep`.
    """
    if len(value) > DEPTH_MAX and value.count(b"[") + value.count(b"{") > DEPTH_MAX and _too_deep(value):
        raise UnreadableRecord("too_deep", f"nested deeper than {DEPTH_MAX} levels")
    try:
        members = decode_members(value)
        if not value.isascii():
            value.decode()  # a raw member's bytes have not been looked at
    except msgspec.ValidationError as error:
        raise UnreadableRecord("not_an_object", "the value is not a JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(value, error) from error
    except RecursionError as error:  # the caller's own stack is deep
        raise UnreadableRecord("too_deep", "nested too deeply for the stack") from error
    return members


def rest(value: bytes, members: Members, used: AbstractSet[str]) -> bytes:
    """The object without the members named in `used`, every other member's name and value as its own bytes.

    `value` must have been split into `members`, which this call may change. Only the space between members
    is not kept.
    """
    compact = _encode(members)
    if compact == value or _format(compact, indent=0) == value:  # the second is how Python's json writes
        for name in used:
            members.pop(name, None)
        return _encode(members)
    return _cut(value, used)


def string(raw: msgspec.Raw) -> str | None:
    """The string that stands there, None where something else does."""
    try:
        return decode_string(raw)
    except msgspec.ValidationError:
        return None


def _unreadable(value: bytes, error: Exception) -> UnreadableRecord:
    """Why these bytes are no JSON, in the words of a cause."""
    try:
        value.decode()
    except UnicodeDecodeError as bad:
        return UnreadableRecord("invalid_utf8", f"byte {bad.start} is not UTF-8")
    if value.startswith(b"\xef\xbb\xbf"):
        return UnreadableRecord("not_json", "the value begins with a byte order mark")
    for token in _NAN.finditer(value) if value.lstrip()[:1] in (b"{", b"[") else ():
        if not token[0].startswith(b'"'):
            return UnreadableRecord("nan", f"{token[0].decode()} is not JSON (byte {token.start()})")
    return UnreadableRecord("not_json", "the value is empty" if not value.strip() else str(error))


def _too_deep(value: bytes) -> bool:
    """Whether `value` nests deeper than `DEPTH_MAX`: exact for JSON, and no laxer than a parser for the rest."""
    depth = 0
    for token in _BRACKET.finditer(value):
        depth += _STEP.get(token[0], 0)
        if depth > DEPTH_MAX:
            return True
    return False


def _cut(value: bytes, used: AbstractSet[str]) -> bytes:
    """`rest` for any object: each member's bytes are found and kept, duplicates and escapes included."""
    kept: list[bytes] = []
    at = value.index(b"{") + 1
    while key := _KEY.match(value, at):
        at = _end_of_value(value, key.end())
        name = decode_string(key[1]) if b"\\" in key[1] else key[1][1:-1].decode()
        if name not in used:
            kept.append(b"%b:%b" % (key[1], value[key.end() : at]))
    return b"{%b}" % b",".join(kept)


def _end_of_value(value: bytes, start: int) -> int:
    """Where the JSON value that begins at `start` ends."""
    depth = 0
    for token in _TOKEN.finditer(value, start):
        depth += _STEP.get(token[0], 0)
        if depth == 0:
            return token.end()
    raise ValueError("no JSON value begins there")  # pragma: no cover - the value was parsed before
