"""Bytes to events: where id and text stand, what passes through, and what is unreadable for which cause."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.codec import Codec
from stream_app.codec.json_object import DEPTH_MAX
from stream_app.errors import UnreadableRecord
from stream_app.events import Event, Source, Tombstone
from stream_app.settings import Events
from tests.messages.json_texts import object_texts, without
from tests.messages.test_schemas import BAD, GOOD, named

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BINARY = (("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_source", b"/shop"), ("ce_type", b"written"))
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
ENVELOPE = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "written"}


def read(value, headers=(), **settings):
    return Codec(Events(**settings), "shunt").decode("reviews", 2, 884, 1_795_167_000_120, b"k", value, headers)


def cause(value, headers=(), **settings):
    with pytest.raises(UnreadableRecord) as caught:
        read(value, headers, **settings)
    assert caught.value.message
    return caught.value.cause


def outcome(value, headers=(), **settings):
    """The event, or the cause of there being none; any other exception fails the test."""
    try:
        return read(value, headers, **settings)
    except UnreadableRecord as error:
        return error.cause


def test_a_record_is_an_event():
    """Id and text leave the object, the rest is the payload, and key and source stand beside."""
    event = read(b'{"id":"r-1","text":"Fine.","stars":5}', (("traceparent", TRACE), ("other", None)))
    source = Source("reviews", 2, 884, 1_795_167_000_120)
    assert event == Event("r-1", "Fine.", b'{"stars":5}', source, b"k", TRACE)


@pytest.mark.parametrize("path", [path for path in GOOD if path.parent.name == "event"], ids=named)
def test_good_samples_are_events(path):
    """What the event schema allows, the codec reads."""
    sample = json.loads(path.read_text())
    event = read(path.read_bytes())
    assert event.text == sample["text"]
    assert json.loads(event.payload) == {key: value for key, value in sample.items() if key not in {"id", "text"}}
    assert event.id == str(sample.get("id") or "reviews/2/884")


@pytest.mark.parametrize("path", [path for path in BAD if path.parent.name == "event"], ids=named)
def test_bad_samples_are_no_events(path):
    """What the event schema forbids, the codec refuses."""
    assert cause(path.read_bytes()) in {"missing_text", "wrong_type", "not_an_object"}


@given(object_texts(more=(('"id"', '"r-1"'), ('"text"', '"Fine."'))))
def test_the_payload_is_the_same_bytes(written):
    """Every other field leaves with the bytes it came with: duplicates, order, escapes, big numbers, inner space."""
    names = {json.loads(name) for name, _ in written.members}
    event = read(written.text.encode())
    if [json.loads(name) for name, _ in written.members].count("text") == 1:
        assert event.text == "Fine."
    assert {"id", "text"} <= names
    assert event.payload == without(written, "id", "text")


@given(object_texts(more=(('"text"', '"Fine."'),)))
def test_without_an_id_the_record_names_the_event(written):
    """An event without an id is called topic/partition/offset."""
    if all(json.loads(name) != "id" for name, _ in written.members):
        assert read(written.text.encode()).id == "reviews/2/884"


@given(object_texts(), st.sampled_from([(), BINARY, STRUCTURED]))
def test_any_object_is_an_event_or_unreadable(written, headers):
    """JSON objects of any shape end as an event with a JSON payload, or as an unreadable record."""
    found = outcome(written.text.encode(), headers, text_fields=("text", "a.b"), id_field="b.a")
    if isinstance(found, Event):
        json.loads(found.payload)
    else:
        assert found in {"missing_text", "wrong_type", "bad_cloudevent", "unknown_cloudevents_version"}


@given(st.binary(max_size=200), st.sampled_from([(), BINARY, STRUCTURED, (("content-type", None),)]))
@example(b'{"text":"\\ud800"}', ())
@example(b'{"text":"x","\\', ())
@example(b'{"data":{"text":"\xed\xa0\x80"},"id":"i","source":"s","type":"t","specversion":"1.0"}', STRUCTURED)
def test_arbitrary_bytes_never_raise_anything_else(value, headers):
    """Whatever the bytes, the outcome is an event or an UnreadableRecord with a cause."""
    found = outcome(value, headers)
    assert found.text.strip() if isinstance(found, Event) else found


@given(st.data())
def test_damaged_events_never_raise_anything_else(data):
    """A real event with bytes changed, cut out or put in ends as an event or an UnreadableRecord."""
    value = bytearray(b'{"id":"i","text":"x \\u00e9","a":{"b":"c"},"n":[1,2.5e3,null,true,{"k":"v"}]}')
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value)))
        value[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"]", b"\xff"])
        )
    found = outcome(bytes(value))
    if isinstance(found, Event):
        json.loads(found.payload)
    else:
        assert found


NOT_EVENTS = {
    "empty": (b"", "not_json"),
    "text": (b"hello", "not_json"),
    "cut off": (b'{"text":"x"', "not_json"),
    "more than one": (b'{"text":"x"}{"text":"y"}', "not_json"),
    "trailing comma": (b'{"text":"x",}', "not_json"),
    "byte order mark": (b'\xef\xbb\xbf{"text":"x"}', "not_json"),
    "lone surrogate": (b'{"text":"\\ud800"}', "not_json"),
    "array": (b'["x"]', "not_an_object"),
    "number": (b"17", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "no text": (b'{"body":"x"}', "missing_text"),
    "null text": (b'{"text":null}', "missing_text"),
    "empty text": (b'{"text":""}', "missing_text"),
    "blank text": (b'{"text":" \\n\\u00a0"}', "missing_text"),
    "number text": (b'{"text":5}', "wrong_type"),
    "object text": (b'{"text":{"en":"x"}}', "wrong_type"),
    "boolean id": (b'{"id":false,"text":"x"}', "wrong_type"),
    "fraction id": (b'{"id":1.0,"text":"x"}', "wrong_type"),
    "exponent id": (b'{"id":1e3,"text":"x"}', "wrong_type"),
    "object id": (b'{"id":{},"text":"x"}', "wrong_type"),
    "long id": (b'{"id":"%b","text":"x"}' % (b"i" * 4097), "id_too_long"),
    "long digits": (b'{"id":%b,"text":"x"}' % (b"1" * 4097), "id_too_long"),
    "5 MB": (b'{"text":"%b"}' % (b"x" * 5_000_000), "text_too_long"),
    "nan": (b'{"text":"x","n":NaN}', "nan"),
    "nested nan": (b'{"text":"NaN","n":[{"n":[1,-Infinity]}]}', "nan"),
    "utf-8": (b'{"text":"\xff"}', "invalid_utf8"),
    "utf-8 elsewhere": (b'{"text":"x","n":{"m":"\xc3("}}', "invalid_utf8"),
    "utf-8 surrogate": (b'{"text":"x","n":"\xed\xa0\x80"}', "invalid_utf8"),
    "utf-16": ('{"text":"x"}'.encode("utf-16"), "invalid_utf8"),
    "frame": (b'\0\0\0\1\x2a{"text":"x"}', "schema_registry_frame"),
    "zero": (b"\0", "not_json"),
    "deep": (b'{"text":"x","n":%b}' % (b"[" * 10_000 + b"]" * 10_000), "too_deep"),
    "deep objects": (b'{"text":"x","n":%b1%b}' % (b'{"n":' * 10_000, b"}" * 10_000), "too_deep"),
    "deep and open": (b"[" * 10_000, "too_deep"),
    "open string of escaped quotes": (b'{"text":"' + b'\\"' * 300_000 + b"[" * 600, "not_json"),
}


@pytest.mark.parametrize(("value", "expected"), NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_unreadable_for_a_cause(value, expected):
    """Each kind of bad input has a stable cause."""
    assert cause(value) == expected


def test_a_frame_names_its_schema():
    """The message tells a Schema Registry frame from mere garbage, with the schema id to look up."""
    with pytest.raises(UnreadableRecord, match="schema id 298"):
        read(b'\0\0\0\1\x2a{"text":"x"}')


def test_depth_is_bounded_exactly():
    """The bound does not depend on the caller's stack, and brackets inside text do not count."""
    inner = DEPTH_MAX - 1
    fits = b'{"text":"x","n":%b}' % (b"[" * inner + b"]" * inner)
    assert read(fits).payload == fits.replace(b'"text":"x",', b"")
    assert cause(fits.replace(b"[]", b"[[]]")) == "too_deep"
    assert read(b'{"text":"%b"}' % (b"[" * 5_000)).text == "[" * 5_000
    many = b'{"text":"x","n":[%b]}' % b",".join([b"[]"] * 5_000)
    assert read(many).payload == many.replace(b'"text":"x",', b"")


def test_a_deep_stack_is_no_crash():
    """A caller whose own stack is nearly full gets an unreadable record, not a RecursionError."""
    value = b'{"text":"x","n":%b}' % (b"[" * 400 + b"]" * 400)

    def descend(levels):
        return cause(value) if levels == 0 else descend(levels - 1)

    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    if sys.version_info < (3, 12):  # later versions count C recursion apart
        assert descend(sys.getrecursionlimit() - depth - 300) == "too_deep"


def test_a_null_value_is_a_tombstone():
    """A record without a value is a tombstone, in CloudEvents binary mode too."""
    source = Source("reviews", 2, 884, 1_795_167_000_120)
    assert read(None) == Tombstone(source, b"k")
    assert read(None, BINARY) == Tombstone(source, b"k")


def test_ids():
    """Text and integers of any size name an event; null and the empty text do not."""
    assert read(b'{"id":98765432109876543210,"text":"x"}').id == "98765432109876543210"
    assert read(b'{"id":-7,"text":"x"}').id == "-7"
    assert read(b'{"id":null,"text":"x","n":1}').id == "reviews/2/884"
    assert read(b'{"id":"","text":"x"}').id == "reviews/2/884"
    assert read('{"id":"номер-7 %","text":"x"}'.encode()).id == "номер-7 %"


def test_paths_lead_into_objects():
    """Dots lead into nested objects, which pass through whole; a field used as it is does not."""
    value = b'{"meta":{"id":7,"x":1},"title":"Kettle","review":{"body":"Fine.","by":"ann"},"stars":5}'
    event = read(value, id_field="meta.id", text_fields=("title", "review.body"))
    assert (event.id, event.text) == ("7", "Kettle\nFine.")
    assert event.payload == b'{"meta":{"id":7,"x":1},"review":{"body":"Fine.","by":"ann"},"stars":5}'


def test_one_of_several_texts_is_enough():
    """Texts that are missing, null or empty are passed over, but one must be there."""
    paths = {"text_fields": ("title", "review.body")}
    assert read(b'{"title":"Kettle"}', **paths).text == "Kettle"
    assert read(b'{"title":null,"review":{"body":"Fine."}}', **paths).text == "Fine."
    assert read(b'{"title":"","review":null,"text":"x"}', id_field="text", text_fields=("text",)).id == "x"
    assert cause(b'{"title":"","review":{}}', **paths) == "missing_text"
    assert cause(b'{"title":"x","review":"flat"}', **paths) == "wrong_type"
    assert cause(b'{"title":"x","review":{"body":1}}', **paths) == "wrong_type"
    assert cause(b'{"text":"x","id":[]}', id_field="id.no") == "wrong_type"
    assert read(b'{"text":"x","id":null}', id_field="id.no").id == "reviews/2/884"


def test_the_length_of_a_text_is_counted_in_bytes():
    """`text_bytes_max` counts UTF-8, as the model's input does."""
    assert read('{"text":"éé"}'.encode(), text_bytes_max=4).text == "éé"
    assert cause('{"text":"ééé"}'.encode(), text_bytes_max=5) == "text_too_long"


def test_cloudevents_in_binary_mode():
    """The value is the data, `ce_id` the id; the data's own id field is a field like any other."""
    headers = (*BINARY, ("content-type", b"application/json"), ("ce_traceparent", TRACE))
    event = read(b'{"id":"inner","text":"Fine.","n":1.0}', headers)
    assert (event.id, event.text, event.payload) == ("e-1", "Fine.", b'{"id":"inner","n":1.0}')
    assert event.traceparent == TRACE
    assert read(b'{"text":"x"}', (*BINARY, ("content-type", b"application/vnd.shop+json"))).id == "e-1"


def test_cloudevents_in_structured_mode():
    """Id and data come from the envelope, the data as the bytes they are there, or in base64."""
    envelope = json.dumps(ENVELOPE)[:-1].encode()
    event = read(envelope + b', "data": {"text": "Fine.", "n": [1e400,  2]}}', STRUCTURED)
    assert (event.id, event.text, event.payload) == ("e-1", "Fine.", b'{"n":[1e400,  2]}')
    coded = base64.b64encode(b'{"text":"Fine.","n":1.0}').decode()
    event = read(json.dumps(ENVELOPE | {"data_base64": coded, "traceparent": TRACE.decode()}).encode(), STRUCTURED)
    assert (event.text, event.payload, event.traceparent) == ("Fine.", b'{"n":1.0}', TRACE)


def test_the_last_of_several_headers_counts():
    """Kafka lets a header stand twice; as Java's lastHeader, we take the last."""
    assert read(b'{"text":"x"}', (*BINARY, ("ce_id", b"e-2"))).id == "e-2"


def with_header(name, value):
    return tuple((old, value if old == name else content) for old, content in BINARY)


BAD_BINARY = {
    "old version": (with_header("ce_specversion", b"0.3"), "unknown_cloudevents_version"),
    "newer version": (with_header("ce_specversion", b"2.0"), "unknown_cloudevents_version"),
    "null version": (with_header("ce_specversion", None), "unknown_cloudevents_version"),
    "no type": (BINARY[:-1], "bad_cloudevent"),
    "empty id": (with_header("ce_id", b""), "bad_cloudevent"),
    "long id": (with_header("ce_id", b"i" * 5_000), "id_too_long"),
    "id no utf-8": (with_header("ce_id", b"\xff"), "bad_cloudevent"),
    "not json": ((*BINARY, ("content-type", b"text/plain")), "bad_cloudevent"),
}


@pytest.mark.parametrize(("headers", "expected"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_bad_cloudevents_in_binary_mode(headers, expected):
    """A version we do not know is named as that, before anything else about the envelope."""
    assert cause(b'{"text":"x"}', headers) == expected


BAD_STRUCTURED = {
    "old version": (ENVELOPE | {"specversion": "0.3", "data": {}}, "unknown_cloudevents_version"),
    "version is a number": (ENVELOPE | {"specversion": 1.0, "data": {}}, "unknown_cloudevents_version"),
    "no version": ({"text": "x"}, "unknown_cloudevents_version"),
    "no data": (ENVELOPE, "bad_cloudevent"),
    "both data": (ENVELOPE | {"data": {"text": "x"}, "data_base64": ""}, "bad_cloudevent"),
    "bad base64": (ENVELOPE | {"data_base64": "***"}, "bad_cloudevent"),
    "base64 no text": (ENVELOPE | {"data_base64": 5}, "bad_cloudevent"),
    "no source": (ENVELOPE | {"source": None, "data": {}}, "bad_cloudevent"),
    "data is text": (ENVELOPE | {"data": "x"}, "not_an_object"),
    "data without text": (ENVELOPE | {"data": {}}, "missing_text"),
    "data is xml": (ENVELOPE | {"data": "<x/>", "datacontenttype": "application/xml"}, "bad_cloudevent"),
    "list": ([ENVELOPE], "not_an_object"),
}


@pytest.mark.parametrize(("envelope", "expected"), BAD_STRUCTURED.values(), ids=BAD_STRUCTURED)
def test_bad_cloudevents_in_structured_mode(envelope, expected):
    """What is wrong with an envelope is told apart from what is wrong with its data."""
    assert cause(json.dumps(envelope).encode(), STRUCTURED) == expected


@pytest.mark.parametrize("content_type", [b"application/cloudevents-batch+json", b"application/cloudevents+avro"])
def test_other_formats_of_cloudevents(content_type):
    """Batches and binary formats are named as such, not as broken JSON."""
    assert cause(b"[]", (("content-type", content_type),)) == "bad_cloudevent"


@pytest.mark.parametrize("value", [b"", b"00-00-00-00", TRACE.upper(), TRACE + b"-x", b"ff" + TRACE[2:]])
def test_a_malformed_traceparent_is_dropped(value):
    """The W3C standard: a traceparent that cannot be parsed is not passed on."""
    assert read(b'{"text":"x"}', (("traceparent", value),)).traceparent is None


def test_every_cause_is_documented():
    """docs/messages.md lists each cause the codec gives; an operator looks there."""
    root = Path(__file__).parents[2]
    source = "".join(path.read_text() for path in (root / "stream_app/codec").glob("*.py"))
    given_causes = set(re.findall(r'UnreadableRecord\(\s*"(\w+)"', source))
    documented = set(re.findall(r"`(\w+)`", (root / "docs/messages.md").read_text()))
    assert {expected for _, expected in NOT_EVENTS.values()} <= given_causes
    assert given_causes <= documented
