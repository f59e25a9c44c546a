"""People's verdicts on their topic, and the two headers that tie them to decisions."""

from __future__ import annotations

import json

import jsonschema
import pytest

from stream_app.codec import decode_verdict, encode_verdict, parked_at, verdict_of, with_parked_at, with_verdict
from stream_app.errors import UnreadableRecord
from stream_app.events import Verdict
from tests.messages.test_asyncapi import FILE, headers_schema, inlined, loaded

VERDICT = Verdict("reviews/2/884", "sentiment", "positive", 2, 1_204, 2_210, 1_795_080_002_004)


def test_a_verdict_survives_the_topic() -> None:
    """What is written satisfies the document and is read as it was; its key is the record it is about."""
    key, value, headers = encode_verdict(VERDICT)
    assert key == b"reviews/2/884"
    schema = inlined(loaded(FILE)["components"]["schemas"]["verdict"])
    jsonschema.Draft202012Validator(schema).validate(json.loads(value))
    told = {name: (said or b"").decode() for name, said in headers}
    jsonschema.Draft202012Validator(headers_schema("verdict")).validate(told)
    assert decode_verdict(value) == VERDICT


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"8f0c",
        b"{}",
        b"\xff",
        json.dumps({**json.loads(encode_verdict(VERDICT)[1]), "ref": "reviews"}).encode(),
        json.dumps({**json.loads(encode_verdict(VERDICT)[1]), "label": ""}).encode(),
        json.dumps({**json.loads(encode_verdict(VERDICT)[1]), "offset": -1}).encode(),
    ],
)
def test_what_is_no_verdict_is_unreadable(value: bytes | None) -> None:
    """A worker passes over whatever else stands on the topic, the opening records among it."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_verdict(value)
    assert caught.value.cause == "bad_verdict"


def test_a_decisions_headers_name_the_verdict_and_the_parked_partition() -> None:
    """They stand behind the others, the last of a name counts, and nonsense under our names says nothing."""
    own = (("kind", b"correction"),)
    headers = with_parked_at(with_verdict(own, "reviews-verdicts/1/7"), 4)
    assert headers[:1] == own
    assert (verdict_of(headers), parked_at(headers)) == ("reviews-verdicts/1/7", 4)
    assert (verdict_of(own), parked_at(own)) == (None, None)
    assert parked_at((("shunt-parked-at", b"x"),)) is None
    schema = headers_schema("decision")["properties"]
    for name, value in headers[1:]:
        jsonschema.Draft202012Validator(schema[name]).validate((value or b"").decode())
