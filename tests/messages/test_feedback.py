"""Feedback rows to bytes and back, held against the schema and its samples."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.codec import decode_feedback, encode_feedback, feedback_key
from stream_app.errors import UnreadableRecord
from stream_app.events import Feedback, SmallOpinion, Source
from tests.messages.test_asyncapi import headers_schema
from tests.messages.test_schemas import BAD, GOOD, named, validator

GOOD_ROWS = [path for path in GOOD if path.parent.name == "feedback"]
BAD_ROWS = [path for path in BAD if path.parent.name == "feedback"]
SHARES = st.floats(0, 1).map(lambda share: round(share, 6))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def rows(draw: st.DrawFn) -> Feedback:
    """Any row that somebody may write."""
    person = draw(st.booleans())
    why = "verdict" if person else draw(st.sampled_from(["escalated", "audit"]))
    labels = draw(st.lists(TEXTS, min_size=2, max_size=4, unique=True))
    some = st.lists(st.sampled_from(labels), unique=True).map(tuple)
    said = some if draw(st.booleans()) else st.sampled_from(labels)
    opinion = SmallOpinion(draw(said), draw(SHARES), {label: draw(SHARES) for label in labels}, "sentiment_fast:3")
    return Feedback(
        id=draw(TEXTS),
        task="sentiment",
        text=draw(TEXTS.filter(str.strip)),
        label=None if why == "audit" and draw(st.booleans()) else draw(said),
        labelled_by="human" if person else "llm",
        why=why,
        model=None if person else "gpt-4o-mini",
        small=opinion,
        policy=draw(st.none() | st.just("reviews@7")),
        revision=draw(st.integers(0, 9)),
        source=Source("reviews", draw(st.integers(0, 99)), draw(st.integers(0, 2**62)), 1_700_000_000_120),
        at_ms=draw(st.integers(0, 2**41)),
        reason=None if person else draw(st.none() | TEXTS),
    )


@given(rows())
def test_a_row_survives_the_topic(row: Feedback) -> None:
    """What is written satisfies the schema, has nothing that it does not name, and is read as it was."""
    key, value, headers = encode_feedback(row)
    assert key == feedback_key(row.id) == row.id.encode()
    validator("feedback", strict=True).validate(json.loads(value))
    told = {name: (said or b"").decode() for name, said in headers}
    jsonschema.Draft202012Validator(headers_schema("feedback")).validate(told)
    assert decode_feedback(value) == row


@pytest.mark.parametrize("path", GOOD_ROWS, ids=named)
def test_good_samples_are_read_and_written_alike(path) -> None:
    """The golden rows are what the codec writes."""
    value = path.read_bytes()
    assert json.loads(encode_feedback(decode_feedback(value))[1]) == json.loads(value)


@pytest.mark.parametrize("path", BAD_ROWS, ids=named)
def test_bad_samples_are_unreadable(path) -> None:
    """What the schema refuses, the reader refuses."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_feedback(path.read_bytes())
    assert caught.value.cause == "bad_feedback"


@pytest.mark.parametrize("value", [b"", b"null", b"[1]", b"{}", b"\xff", b'{"id":"x"}'])
def test_what_is_no_row_is_unreadable(value: bytes) -> None:
    """Anything may stand on a topic that others write to; a reader says so and goes on."""
    with pytest.raises(UnreadableRecord):
        decode_feedback(value)
