"""Dead letters, purely: which are taken, what becomes of each, and the marks and receipts of a replay."""

from __future__ import annotations

import json

import click
import jsonschema
import pytest
from aiokafka.structs import ConsumerRecord
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.dlq_fate import Before, Judge, Refused, Send, Why
from stream_app.cli.dlq_options import filtered
from stream_app.cli.dlq_selection import Letter, Selection, letter_of, moment_ms, place_of
from stream_app.cli.dlq_shown import Tally, description, fate_object, listed, replay_lines, whole_object
from stream_app.codec import Cause, dead_letter, decode_escalation, encode_escalation, record_batch_bytes
from stream_app.codec.replays import (
    Receipt,
    ReplayMark,
    decode_receipt,
    encode_receipt,
    marked,
    read_mark,
    receipt_key,
)
from stream_app.errors import UnreadableRecord
from stream_app.events import Answer, Ask, Escalation, Source
from stream_app.kafka.connection import TopicFacts
from stream_app.settings import Kafka
from tests.messages.test_asyncapi import headers_schema

NAMES = Kafka(input_topic="reviews").names
THERE = {name: TopicFacts(name, 3, 10_000) for name in (NAMES.input, NAMES.escalations)}
DIED_MS = 1_795_167_000_120
CAUSE = Cause("decode", "missing_text", "UnreadableRecord", "there is no text in 'text'")
NOT_UTF8 = b"\xff\xfe\x00bytes"
HEADERS = st.lists(
    st.tuples(
        st.text(max_size=8) | st.sampled_from(["shunt-replay-of", "shunt-replay-attempt"]),
        st.none() | st.binary(max_size=20) | st.just(b"1"),
    ),
    max_size=6,
).map(tuple)
UNMARKED = HEADERS.filter(lambda headers: read_mark(headers)[0] is None)
BYTES = st.none() | st.binary(max_size=80)


def letter(
    key=b"k", value=b"v", headers=(), *, topic=NAMES.input, offset=17, cause=CAUSE, bytes_max=1_000_000
) -> Letter:
    """A dead letter as a lane writes it, at offset `offset` of partition 1, of a record of partition 2."""
    dead = dead_letter(key, value, headers, Source(topic, 2, 884, 0), cause, bytes_max)
    record = ConsumerRecord(NAMES.dlq, 1, offset, DIED_MS, 0, dead.key, dead.value, None, 0, 0, dead.headers)
    return letter_of(record)


def judge(*, attempts_max=3, force=False, there=THERE) -> Judge:
    return Judge(NAMES, there, attempts_max=attempts_max, force=force)


def escalation_headers(headers=()):
    small = Answer("negative", 0.6, {"negative": 0.6, "positive": 0.4}, 0.9, "small", "m:1", None)
    ask = Ask("sentiment", ("negative", "positive"), small, "unsure")
    source = Source(NAMES.input, 2, 5, 0)
    return encode_escalation(Escalation(source, ("sentiment",), (ask,), {}, None, 0, 2, 0), headers)


# Marks


@given(UNMARKED, st.integers(1, 999))
def test_a_mark_is_the_only_thing_added_and_comes_off_again(headers, attempt):
    """Byte for byte and in order, whatever the record's own headers are, those of one of our names too.

    A later mark takes the place of an earlier one, and a header that a lane puts behind it changes nothing.
    """
    mark, later = ReplayMark("reviews-dlq/1/17", attempt), ReplayMark("reviews-dlq/0/3", attempt + 1)
    sent = marked(headers, mark)
    assert sent[:-2] == headers
    assert sent[-2:] == (("shunt-replay-of", b"reviews-dlq/1/17"), ("shunt-replay-attempt", b"%d" % attempt))
    assert read_mark(sent) == (mark, headers)
    behind = (("shunt-escalation", b"{}"),)
    assert read_mark((*sent, *behind)) == (mark, (*headers, *behind))
    assert marked(sent, later) == marked(headers, later)


@pytest.mark.parametrize("message", ["event", "cloudEventBinary", "cloudEventStructured"])
def test_the_marks_are_those_of_the_asyncapi_document(message):
    """Who reads the input topic finds them described."""
    told = headers_schema(message)["properties"]
    for name, value in marked((), ReplayMark("reviews-dlq/1/17", 12)):
        jsonschema.validate(value.decode(), told[name])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("0", told["shunt-replay-attempt"])


def test_a_header_of_the_users_that_has_our_name_is_no_mark():
    """Only the two of them, one after the other, with a number, are ours."""
    for headers in (
        (("shunt-replay-of", b"x"),),
        (("shunt-replay-attempt", b"2"),),
        (("shunt-replay-attempt", b"2"), ("shunt-replay-of", b"x")),
        (("shunt-replay-of", b"x"), ("a", b""), ("shunt-replay-attempt", b"2")),
        (("shunt-replay-of", b"x"), ("shunt-replay-attempt", b"two")),
        (("shunt-replay-of", None), ("shunt-replay-attempt", b"2")),
        (("shunt-replay-of", b"x"), ("shunt-replay-attempt", None)),
        (("shunt-replay-of", b"x"), ("shunt-replay-attempt", b"1" * 5_000)),
    ):
        assert read_mark(headers) == (None, headers)


@given(st.integers(0, 999), st.integers(0, 2**62), st.integers(0, 2**40), st.integers(1, 99))
def test_a_receipt_is_read_as_it_was_written(partition, offset, at_ms, attempt):
    """Key and value say which letter, and what was done with it."""
    receipt = Receipt(at_ms, "reviews/2", attempt, at_ms + 1)
    key, value = encode_receipt(partition, offset, receipt)
    assert key == receipt_key(partition, offset)
    assert decode_receipt(key, value) == ((partition, offset), receipt)


@pytest.mark.parametrize(
    ("key", "value"), [(None, b"{}"), (b"1", b"{}"), (b"1/2", b"{}"), (b"1/2", b"\xff"), (b"/", b"{}")]
)
def test_what_is_no_receipt_is_named(key, value):
    """A receipt that cannot be read must not pass for one that is not there."""
    with pytest.raises(UnreadableRecord) as caught:
        decode_receipt(key, value)
    assert caught.value.cause == "bad_receipt"


# What becomes of a letter


@given(BYTES, BYTES, UNMARKED)
def test_what_is_sent_is_what_came(key, value, headers):
    """Key, value and headers byte for byte, nulls and duplicates too, and then the mark; to its own partition."""
    fate = judge().fate(letter(key, value, headers), None)
    assert isinstance(fate, Send)
    assert fate.outgoing[:4] == (NAMES.input, 2, key, value)
    mark = (("shunt-replay-of", b"reviews-dlq/1/17"), ("shunt-replay-attempt", b"1"))
    assert fate.outgoing.headers == (*headers, *mark)


def test_attempts_are_counted_through_further_deaths_up_to_a_limit():
    """A record that dies again carries its mark: the third replay is the last, unless it is forced."""
    headers = (("a", b"1"), ("a", None), ("b", NOT_UTF8))
    sent = headers
    for attempt in (1, 2, 3):
        again = letter(headers=sent, offset=attempt)
        assert again.attempts == attempt - 1
        fate = judge().fate(again, None)
        assert isinstance(fate, Send)
        assert fate.attempt == attempt
        sent = fate.outgoing.headers
        assert sent[:-2] == headers
        assert sent[-2] == ("shunt-replay-of", b"reviews-dlq/1/%d" % attempt)
    last = letter(headers=sent, offset=4)
    refused = judge().fate(last, None)
    assert isinstance(refused, Refused)
    assert refused.why is Why.ATTEMPTS
    assert "--force" in refused.advice
    assert isinstance(judge(attempts_max=4).fate(last, None), Send)
    forced = judge(force=True).fate(last, None)
    assert isinstance(forced, Send)
    assert forced.attempt == 4


def test_a_letter_with_a_receipt_is_never_sent_again_not_even_by_force():
    """At most once; but the receipt of a letter of an older topic of the same name says nothing."""
    receipt = Receipt(DIED_MS, "reviews/2", 1, DIED_MS + 5)
    assert isinstance(judge(force=True).fate(letter(), receipt), Before)
    older = Receipt(DIED_MS - 1, "reviews/2", 1, DIED_MS + 5)
    assert isinstance(judge().fate(letter(), older), Send)


def test_an_escalation_goes_back_to_the_escalation_topic():
    """Its input record has no outcome of its own yet: the escalation, answered, gives it the one it lacks."""
    own = (("a", b"1"),)
    cause = Cause("escalate", "missing_text", "UnreadableRecord", "no text")
    dead = letter(headers=escalation_headers(own), topic=NAMES.escalations, cause=cause)
    fate = judge().fate(dead, None)
    assert isinstance(fate, Send)
    assert fate.outgoing.topic == NAMES.escalations
    original = decode_escalation(fate.outgoing.headers)
    assert original.escalation.source.ref == "reviews/2/5"
    assert read_mark(original.headers) == (ReplayMark("reviews-dlq/1/17", 1), own)


def test_an_event_that_died_in_the_slow_lane_becomes_a_new_input_record():
    """Its letter names the input record and is its one outcome; no escalation is left of it."""
    cause = Cause("escalate", "llm_outage", "LlmError", "away")
    fate = judge().fate(letter(headers=(("a", b"1"),), cause=cause), None)
    assert isinstance(fate, Send)
    assert fate.outgoing.topic == NAMES.input


@pytest.mark.parametrize(
    ("dead", "why"),
    [
        (letter(value=b"x" * 4_000, bytes_max=1_500), Why.TRUNCATED),
        (letter(topic="elsewhere"), Why.OTHER_TOPIC),
        (letter(topic=NAMES.dlq), Why.OTHER_TOPIC),
        (letter(topic=NAMES.parked), Why.NOT_PARKED),
        (letter(topic=NAMES.escalations), Why.NO_ESCALATION),
        (letter(topic=NAMES.escalations, headers=(("shunt-escalation", b"{}"),)), Why.NO_ESCALATION),
        (letter(topic=NAMES.escalations, headers=escalation_headers(), value=None), Why.NO_ESCALATION),
        (letter(value=b"x" * 9_900), Why.TOO_LARGE),
    ],
)
def test_what_cannot_go_back_is_refused_with_the_reason(dead, why):
    """Each reason has its words and says what to do."""
    fate = judge(force=True).fate(dead, None)
    assert isinstance(fate, Refused)
    assert fate.why is why
    assert fate.told
    assert fate.advice


def test_a_topic_that_is_not_there_is_named():
    """Nothing is made by sending to it."""
    fate = judge(there={}).fate(letter(), None)
    assert isinstance(fate, Refused)
    assert fate.why is Why.NO_TOPIC
    assert "shunt topics create" in fate.advice


def test_the_largest_that_fits_is_sent():
    """The limit is the target's own, mark included."""
    sizes = [size for size in range(9_600, 10_000) if isinstance(judge().fate(letter(value=b"x" * size), None), Send)]
    fate = judge().fate(letter(value=b"x" * max(sizes)), None)
    assert isinstance(fate, Send)
    assert record_batch_bytes(*fate.outgoing[2:5]) == 10_000


# Which letters


NOW_MS = 1_795_200_000_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW_MS - 90_000),
        ("2h", NOW_MS - 7_200_000),
        ("1d12h", NOW_MS - 129_600_000),
        ("1w", NOW_MS - 604_800_000),
        ("2026-11-20", 1_795_132_800_000),
        ("2026-11-20T09:30", 1_795_167_000_000),
        ("2026-11-20T09:30:00.120Z", 1_795_167_000_120),
        ("2026-11-20T10:30:00+01:00", 1_795_167_000_000),
    ],
)
def test_times_are_iso_or_durations(text, moment):
    """A time without a zone is UTC, as all times that Shunt prints; a duration counts back from now."""
    assert moment_ms(text, NOW_MS) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2", "h", "2 h", "-2h", "2026-13-01", "1.5h"])
def test_what_is_no_time(text):
    """Refused, not guessed."""
    with pytest.raises(ValueError):
        moment_ms(text, NOW_MS)


def test_every_filter_takes_what_it_names_and_all_must_hold():
    """The time includes its beginning, not its end; several causes are any of them."""
    dead = letter(key=NOT_UTF8)
    takes = [
        Selection(),
        Selection(causes=frozenset({"not_json", "missing_text"})),
        Selection(stages=frozenset({"decode"})),
        Selection(since_ms=DIED_MS, until_ms=DIED_MS + 1),
        Selection(key=NOT_UTF8),
        Selection(places=frozenset({(1, 17), (0, 0)})),
    ]
    assert all(selection.takes(dead) for selection in takes)
    assert [selection.asks_nothing for selection in takes] == [True, False, False, False, False, False]
    for selection in (
        Selection(causes=frozenset({"not_json"})),
        Selection(stages=frozenset({"classify"})),
        Selection(since_ms=DIED_MS + 1),
        Selection(until_ms=DIED_MS),
        Selection(key=b"k"),
        Selection(places=frozenset({(1, 18)})),
        Selection(causes=frozenset({"missing_text"}), key=b""),
    ):
        assert not selection.takes(dead)
    assert not Selection(key=b"").takes(letter(key=None))


def test_places():
    """An offset alone is of partition 0."""
    assert (place_of("17"), place_of("3/17")) == ((0, 17), (3, 17))
    for text in ("", "a", "1/", "/", "1/2/3", "-1"):
        with pytest.raises(ValueError):
            place_of(text)


def test_filters_on_the_command_line():
    """Repeated causes, a key of any bytes, a window that is none."""
    taken = []

    @click.command()
    @filtered
    @click.argument("places", nargs=-1)
    def command(selection):
        taken.append(selection)

    run = CliRunner().invoke
    key = NOT_UTF8.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    asked = [
        "--cause",
        "a",
        "--cause",
        "b",
        "--stage",
        "decode",
        "--since",
        "2h",
        "--until",
        "1h",
        "--key",
        key,
        "1/2",
    ]
    assert run(command, asked).exit_code == 0
    (selection,) = taken
    assert selection.causes == {"a", "b"}
    assert selection.until_ms - selection.since_ms == 3_600_000
    assert selection.key == NOT_UTF8.replace(b"\0", b"")
    assert selection.places == {(1, 2)}
    for wrong in (["--since", "1h", "--until", "2h"], ["--since", "soon"], ["first"], ["--until", "9999999-01-01"]):
        assert run(command, wrong).exit_code == 2


# What is shown


def test_what_others_wrote_cannot_steer_a_terminal():
    """Keys, headers, causes and topics of any bytes come out printable, in every form."""
    evil = "\x1b[2J\u202e"
    cause = Cause(evil, evil, evil, evil)
    dead = letter(evil.encode(), evil.encode(), ((evil, evil.encode()),), topic=evil, cause=cause)
    fates = [judge().fate(dead, None), judge().fate(letter(evil.encode(), evil.encode(), cause=cause), None)]
    tally = Tally()
    for fate in fates:
        tally.add(fate)
    texts = [listed([dead], {}), *description(dead, {}), *replay_lines(tally, dry_run=True)]
    assert all(line.isprintable() for text in texts for line in text.splitlines())
    assert json.dumps([fate_object(fate, dry_run=True) for fate in fates])


def test_the_json_has_every_byte():
    """Names, nulls and duplicates of headers in order; key and value of any bytes; what was done."""
    dead = letter(NOT_UTF8, None, (("a", None), ("a", NOT_UTF8), *marked((), ReplayMark("reviews-dlq/0/3", 2))))
    told = whole_object(dead, {(1, 17): Receipt(DIED_MS, "reviews/2", 3, DIED_MS)})
    assert (told["key"], told["key_base64"], told["value_base64"]) == (None, "//4AYnl0ZXM=", None)
    assert told["headers"][:2] == [
        {"name": "a", "value_base64": None},
        {"name": "a", "value_base64": "//4AYnl0ZXM="},
    ]
    assert (told["attempts"], told["replay_of"]) == (2, "reviews-dlq/0/3")
    assert told["replayed_at"] == "2026-11-20T09:30:00+00:00"


def test_a_tally_counts_all_and_keeps_some():
    """A million letters are counted; fifty are listed, and the rest is named as such."""
    tally = Tally()
    for offset in range(120):
        tally.add(judge().fate(letter(offset=offset), None))
        tally.add(judge().fate(letter(topic="elsewhere", offset=offset), None))
    tally.add(judge().fate(letter(), Receipt(DIED_MS, "reviews/2", 1, 0)))
    assert (tally.letters, len(tally.sends), len(tally.refusals)) == (241, 50, 50)
    text = "\n".join(replay_lines(tally, dry_run=False))
    assert "and 70 more" in text
    assert text.endswith("sent: 120 to reviews; 1 replayed before; 120 refused")
