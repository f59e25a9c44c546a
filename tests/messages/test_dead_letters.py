"""Dead letters: the record byte for byte, and the cause."""

import hashlib
import json

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from stream_app.codec import (
    Cause,
    cause_of,
    dead_letter,
    dead_letter_headers,
    decode_dead_letter,
    record_batch_bytes,
)
from stream_app.errors import ModelRefused, UnreadableRecord
from stream_app.events import Source
from tests.messages.test_schemas import BAD, GOOD, named, validator

SOURCE = Source("reviews", 2, 884, 1_795_167_000_120)
CAUSE = Cause("decode", "missing_text", "UnreadableRecord", "there is no text in 'text'")
HEADERS = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=40)), max_size=5).map(tuple)
BYTES = st.none() | st.binary(max_size=400)


def as_object(headers):
    return {name: value.decode() for name, value in headers}


@given(HEADERS)
def test_original_headers_come_first_and_untouched(headers):
    """The original headers stand first, byte for byte, duplicates and nulls included, and can be had back."""
    written = dead_letter_headers(headers, SOURCE, CAUSE)
    assert written[: len(headers)] == headers
    validator("dead-letter", strict=True).validate(as_object(written[len(headers) :]))
    read = decode_dead_letter(written)
    assert (read.topic, read.partition, read.offset, read.cause, read.original) == ("reviews", 2, 884, CAUSE, headers)


def test_a_dead_letter_of_a_dead_letter():
    """A replayed dead letter that dies again names its second death, and keeps the first."""
    first = dead_letter_headers((("a", b"1"),), SOURCE, CAUSE)
    again = Cause("classify", "ModelRefused", "ModelRefused", "no")
    read = decode_dead_letter(dead_letter_headers(first, Source("reviews", 0, 7, 0), again))
    assert (read.offset, read.cause, read.original) == (7, again, first)


@pytest.mark.parametrize("path", [path for path in GOOD if path.parent.name == "dead-letter"], ids=named)
def test_golden_dead_letters_both_ways(path):
    """A golden dead letter is read, and its cause written again as the same headers."""
    sample = json.loads(path.read_text())
    read = decode_dead_letter([(name, value.encode()) for name, value in sample.items()])
    source = Source(read.topic, read.partition, read.offset, 0)
    written = as_object(dead_letter_headers(read.original, source, read.cause))
    assert written == {name: value for name, value in sample.items() if name in written}
    assert read.truncated == ("truncated" in sample)
    assert len(sample) == len(written) + (3 if read.truncated else 0)


def test_what_is_no_dead_letter():
    """A record without the headers, or with a broken pointer, is refused with a cause."""
    for headers in ((), (("__connect.errors.topic", b"t"),), (("__connect.errors.topic", None),)):
        with pytest.raises(UnreadableRecord) as caught:
            decode_dead_letter(headers)
        assert caught.value.cause == "bad_dead_letter"


def test_bad_samples_are_only_bad_letters():
    """Reading a malformed dead letter never fails in another way."""
    for path in BAD:
        if path.parent.name == "dead-letter":
            headers = [(name, value.encode()) for name, value in json.loads(path.read_text()).items()]
            assert decode_dead_letter(headers).topic == "reviews"


def test_messages_are_bounded_and_one_line():
    """An exception may quote a whole document: the header holds its first 1,000 characters on one line."""
    headers = dead_letter_headers((), SOURCE, Cause("decode", "c", "E", "a\n" + "é" * 5_000 + "\ud800"))
    message = dict(headers)["__connect.errors.exception.message"].decode()
    assert len(message) == 1_000
    assert message.startswith("a éé")
    odd = dead_letter_headers((), SOURCE, Cause("decode", "c", "E", "\ud800"))
    assert dict(odd)["__connect.errors.exception.message"] == b"?"


def test_causes_of_errors():
    """An unreadable record has its stable cause, any other error its class."""
    assert cause_of(UnreadableRecord("nan", "m"), "decode") == Cause("decode", "nan", "UnreadableRecord", "m")
    assert cause_of(ModelRefused("m"), "classify") == Cause("classify", "ModelRefused", "ModelRefused", "m")


def real_batch_bytes(key, value, headers):
    """The size of the batch that aiokafka builds."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=1,
        producer_id=1,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1,
    )
    builder.append(0, timestamp=1_795_167_000_120, key=key, value=value, headers=list(headers))
    return len(builder.build())


@given(BYTES, BYTES, HEADERS)
def test_the_estimate_is_never_too_low(key, value, headers):
    """A record said to fit does fit: the estimate is at least what the client builds, and close above it."""
    real = real_batch_bytes(key, value, headers)
    assert real <= record_batch_bytes(key, value, headers) <= real + 40 + 10 * len(headers)


@given(BYTES, BYTES, HEADERS, st.integers(600, 2_000))
def test_a_dead_letter_always_fits(key, value, headers, batch_bytes_max):
    """Whole where it fits; else cut, marked, with the value's sum and the pointer to the whole record."""
    dead = dead_letter(key, value, headers, SOURCE, CAUSE, batch_bytes_max)
    read = decode_dead_letter(dead.headers)
    whole = dead_letter_headers(headers, SOURCE, CAUSE)
    if record_batch_bytes(key, value, whole) <= batch_bytes_max:
        assert (dead.key, dead.value, dead.headers, read.truncated) == (key, value, whole, False)
    else:
        told = dict(dead.headers)
        assert read.truncated
        assert dead.value == b""
        assert told["shunt-value-sha256"].decode() == hashlib.sha256(value or b"").hexdigest()
        assert told["shunt-value-bytes"] == str(len(value or b"")).encode()
        assert (read.topic, read.partition, read.offset) == ("reviews", 2, 884)
    if batch_bytes_max >= 800:
        assert record_batch_bytes(dead.key, dead.value, dead.headers) <= batch_bytes_max


def test_what_goes_first():
    """The value goes first, then the original headers, then the key."""
    big, headers = b"x" * 3_000, (("h", b"1"),)

    def cut(key, value, headers):
        dead = dead_letter(key, value, headers, SOURCE, CAUSE, 1_500)
        return dead.key, dead.value, decode_dead_letter(dead.headers).original

    assert cut(b"k", b"v", headers) == (b"k", b"v", headers)
    assert cut(b"k", big, headers) == (b"k", b"", headers)
    assert cut(b"k", b"v", (("h", big),)) == (b"k", b"", ())
    assert cut(big, b"v", headers) == (None, b"", ())
