"""Escalations: the record as it came, and one header more."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.codec import Codec, decode_escalation, encode_escalation
from stream_app.errors import UnreadableRecord
from stream_app.settings import Events
from tests.messages.test_asyncapi import headers_schema
from tests.messages.test_schemas import BAD, GOOD, SCHEMAS, named, validator

GOOD_ESCALATIONS = [path for path in GOOD if path.parent.name == "escalation"]
ORIGINAL = (
    ("a", b"1"),
    ("a", None),
    ("content-type", b"application/json"),
    ("shunt-escalation", b"another pipeline's"),
)


def escalated(path):
    return (*ORIGINAL, ("shunt-escalation", path.read_bytes()))


@pytest.mark.parametrize("path", GOOD_ESCALATIONS, ids=named)
def test_golden_escalations_both_ways(path):
    """An escalation is read and written again as the same JSON, and the original headers are untouched."""
    record = decode_escalation(escalated(path))
    assert record.headers == ORIGINAL
    headers = encode_escalation(record.escalation, record.headers)
    assert headers[:-1] == ORIGINAL
    written = json.loads(headers[-1][1])
    assert written == json.loads(path.read_bytes())
    validator("escalation", strict=True).validate(written)
    jsonschema.Draft202012Validator(headers_schema("escalation")).validate(
        {"shunt-escalation": headers[-1][1].decode()}
    )


@pytest.mark.parametrize("path", GOOD_ESCALATIONS, ids=named)
def test_the_event_is_the_one_that_was_escalated(path):
    """The slow lane sees the event the hot path saw: same id, source, trace, payload."""
    codec = Codec(Events(), "shunt")
    value = b'{"text":"Fine.","n":1e400}'
    first = codec.decode("reviews", 2, 884, 1_795_167_000_120, b"k", value, ORIGINAL)
    record, again = codec.decode_escalated(b"k", value, escalated(path))
    assert again == first
    assert again.id == "reviews/2/884"
    assert record.escalation.asks[0].task in {"sentiment", "trouble"}


@pytest.mark.parametrize("path", [path for path in BAD if path.parent.name == "escalation"], ids=named)
def test_malformed_escalations_are_unreadable(path):
    """An escalation of the wrong shape, or that asks nothing answerable, is refused."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_escalation(escalated(path))
    assert caught.value.cause == "bad_escalation"


@given(st.binary(max_size=60) | st.none())
def test_any_bytes_are_refused_in_one_way(value):
    """Nothing but UnreadableRecord comes out of a header that is no escalation."""
    with pytest.raises(UnreadableRecord):
        decode_escalation((("shunt-escalation", value),))


def test_lists_of_labels_are_not_weighed():
    """An escalation that would weigh votes where any label may be right is refused: such an answer is obeyed."""
    raw = json.loads((SCHEMAS / "samples/escalation/good-any-of.json").read_bytes())
    raw["asks"][0]["votes"] = {"weighing": []}
    with pytest.raises(UnreadableRecord, match="no one label"):
        decode_escalation((("shunt-escalation", json.dumps(raw).encode()),))


def test_a_record_that_is_no_escalation():
    """A record somebody else put on the topic has a cause of its own, a null value too."""
    with pytest.raises(UnreadableRecord, match="no header shunt-escalation"):
        decode_escalation(ORIGINAL[:2])
    with pytest.raises(UnreadableRecord, match="null") as caught:
        Codec(Events(), "shunt").decode_escalated(b"k", None, escalated(GOOD_ESCALATIONS[0]))
    assert caught.value.cause == "bad_escalation"
