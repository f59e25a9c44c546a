"""Hypothesis strategies for JSON as text: what producers may write, not what a parser would make of it."""

import json
from dataclasses import dataclass

from hypothesis import strategies as st

SPACE = st.text(" \t\n\r", max_size=2)
NUMBER = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,3})?\Z")
STRING = st.one_of(
    st.text(max_size=12).map(json.dumps),
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\/"', '"\\u0061"', '"a\\"}{][,:"', '"\\\\"', '"\\\\\\""', '"\\ud83d\\ude00"']),
)
SCALAR = st.one_of(NUMBER, STRING, st.sampled_from(["true", "false", "null"]))


def _array(items):
    return st.lists(st.tuples(SPACE, items, SPACE).map("".join), max_size=4).map(lambda parts: f"[{','.join(parts)}]")


def _object(items):
    member = st.tuples(SPACE, STRING, SPACE, st.just(":"), SPACE, items, SPACE).map("".join)
    return st.lists(member, max_size=4).map(lambda parts: f"{{{','.join(parts)}}}")


VALUE = st.recursive(SCALAR, lambda items: _array(items) | _object(items), max_leaves=12)
KEY = st.one_of(STRING, st.sampled_from(['"a"', '"b"', '"a"', '"\\u0061"']))


@dataclass(frozen=True)
class ObjectText:
    """A JSON object: its text, with space and duplicates, and its members' names and values as written."""

    text: str
    members: tuple[tuple[str, str], ...]


@st.composite
def object_texts(draw, more=()):
    """An object of any members, those in `more` (name and value as written) somewhere among them."""
    members = draw(st.lists(st.tuples(KEY, VALUE), max_size=6))
    for member in more:
        members.insert(draw(st.integers(0, len(members))), member)
    # One style throughout, as a producer writes, or space as it falls.
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (None, None)]))
    if comma is not None:
        text = "{" + comma.join(f"{name}{colon}{value}" for name, value in members) + "}"
    else:
        spaced = [
            "".join((draw(SPACE), name, draw(SPACE), ":", draw(SPACE), value, draw(SPACE))) for name, value in members
        ]
        text = draw(SPACE) + "{" + ",".join(spaced) + "}" + draw(SPACE)
    return ObjectText(text, tuple(members))


def without(written: ObjectText, *names: str) -> bytes:
    """The payload by its definition: every other member, its name and value as written."""
    kept = [f"{name}:{value}" for name, value in written.members if json.loads(name) not in names]
    return ("{" + ",".join(kept) + "}").encode()
