"""Parked events: the escalation as it came, and one header more."""

from __future__ import annotations

import json

import jsonschema
import pytest

from stream_app.codec import Codec, decode_parked, encode_parked
from stream_app.errors import UnreadableRecord
from stream_app.events import Parked
from stream_app.settings import Events
from tests.messages.test_asyncapi import headers_schema
from tests.messages.test_escalations import GOOD_ESCALATIONS, escalated
from tests.messages.test_schemas import named

PARKED = Parked("reviews/2/884#1", 1, "outage")


@pytest.mark.parametrize("path", GOOD_ESCALATIONS, ids=named)
def test_the_escalation_is_kept_as_it_came(path):
    """Its headers stand untouched before ours, also where the input brought one of our name."""
    came = (("shunt-parked", b"another pipeline's"), *escalated(path))
    headers = encode_parked(PARKED, came)
    assert headers[:-1] == came
    assert decode_parked(headers) == (PARKED, came)
    jsonschema.Draft202012Validator(headers_schema("parked")).validate(
        {name: (value or b"").decode() for name, value in headers}
    )
    parked, original, event = Codec(Events(), "shunt").decode_parked(b"k", b'{"text":"Fine."}', headers)
    assert (parked, event.text) == (PARKED, "Fine.")
    assert original.headers == came[:-1]


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        json.dumps({"final": "r/0/1#0", "revision": -1, "reason": "outage"}).encode(),
        json.dumps({"final": "r/0/1#0", "revision": 0, "reason": "rain"}).encode(),
        b"\xff",
    ],
)
def test_what_says_nothing_that_could_be_corrected_is_unreadable(told):
    """A record of the parked topic that is none of ours becomes a dead letter, not a correction of anything."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_parked([("shunt-parked", told)])
    assert caught.value.cause == "bad_parked"


def test_a_record_without_the_header_is_unreadable():
    """An escalation that somebody copied there by hand does not say what it would correct."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_parked([("shunt-escalation", b"{}")])
    assert caught.value.cause == "bad_parked"
