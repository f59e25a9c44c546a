"""Which fields of a topic's records hold the id and the text: read off a sample. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DEPTH_MAX = 4
SHARE_MIN = 0.9
"""A field is worth naming when nearly every record has it."""
ID_NAMES = ("id", "event_id", "review_id", "comment_id", "message_id", "uuid", "_id", "key")
TEXT_NAMES = ("text", "body", "content", "comment", "review", "message", "review_body", "review_text", "description")
TITLE_NAMES = ("title", "subject", "headline", "summary")
TEXT_CHARS_MIN = 15
"""Prose is longer than a code, a name or a date."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Paths with dots; `id_field` is None where no field tells records apart."""

    id_field: str | None
    text_fields: tuple[str, ...]
    records: int


def infer(values: Iterable[bytes | None]) -> Fields | None:
    """The fields of the JSON objects among `values`; None where nothing in them looks like text."""
    seen: dict[str, list[object]] = defaultdict(list)
    records = 0
    for value in values:
        found = _object(value)
        if found is not None:
            records += 1
            for path, leaf in _leaves(found, ()):
                seen[path].append(leaf)
    usual = {path: leaves for path, leaves in seen.items() if len(leaves) >= SHARE_MIN * records}
    texts = _texts(usual)
    return Fields(_id(usual, texts), texts, records) if texts else None


def _object(value: bytes | None) -> dict[str, object] | None:
    try:
        found: object = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _leaves(found: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    for name, value in found.items():
        here = (*path, name)
        if not name or "." in name:
            continue  # a path has no way to say this
        if isinstance(value, dict) and len(here) < DEPTH_MAX:
            yield from _leaves(cast("dict[str, object]", value), here)
        elif value is not None:
            yield ".".join(here), value


def _texts(usual: Mapping[str, list[object]]) -> tuple[str, ...]:
    """The text field, after the title where there is one: by its name, else the field with the longest prose."""
    chars = {
        path: _mean_chars(leaves) for path, leaves in usual.items() if all(isinstance(leaf, str) for leaf in leaves)
    }
    if not chars:
        return ()
    named = [path for name in TEXT_NAMES for path in chars if _last(path) == name]
    long = [path for path in sorted(chars, key=chars.__getitem__, reverse=True) if chars[path] >= TEXT_CHARS_MIN]
    if not (named or long):
        return ()
    text = max(named, key=chars.__getitem__) if named else long[0]
    titles = [path for path in chars if _last(path) in TITLE_NAMES and path != text]
    return (*titles[:1], text)


def _id(usual: Mapping[str, list[object]], texts: tuple[str, ...]) -> str | None:
    """The field that tells records apart: by its name, else one whose name ends in `id`."""

    def tells_apart(path: str) -> bool:
        leaves = usual[path]
        plain = all(isinstance(leaf, str | int) and not isinstance(leaf, bool) for leaf in leaves)
        return plain and path not in texts and len(set(cast("list[str]", leaves))) >= SHARE_MIN * len(leaves)

    named = [path for name in ID_NAMES for path in usual if _last(path) == name]
    ending = [path for path in usual if _last(path).endswith("id")]
    return next(
        (path for path in sorted(named, key=lambda path: path.count(".")) + ending if tells_apart(path)), None
    )


def _mean_chars(leaves: list[object]) -> float:
    return sum(len(str(leaf)) for leaf in leaves) / len(leaves)


def _last(path: str) -> str:
    return path.rpartition(".")[2].lower()
