"""Decisions to bytes and back, the hot path's encoder included."""

import json
import re
from dataclasses import replace

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.codec import Codec, decode_decision, finals, rfc3339, timestamp_ms
from stream_app.codec.finals import Grade, SmallAnswers
from stream_app.errors import UnreadableRecord
from stream_app.events import Answer, Decision, Event, Kind, Source, Tombstone, Usage, each_label
from stream_app.settings import Events
from tests.messages.json_texts import object_texts
from tests.messages.test_asyncapi import headers_schema
from tests.messages.test_schemas import BAD, GOOD, named, validator

CODEC = Codec(Events(), "shunt")
GOOD_DECISIONS = [path for path in GOOD if path.parent.name == "decision"]
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CLAIMS_OF_MEANING = {
    "correction-replaces-nothing",
    "degraded-without-reason",
    "no-answers",
    "revision",
    "final-pending",
    "label-twice",
    "any-of-one-threshold",
}


def in_order(raw):
    """JSON with the order of keys kept, to compare bytes of one layout with another."""
    return json.loads(raw, object_pairs_hook=list)


def as_headers(headers):
    return {name: value.decode() for name, value in headers}


def decision_of(value: bytes) -> Decision:
    """The decision a message says, built anew from what was read."""
    read = decode_decision(value)
    source = Source(read.source.topic, read.source.partition, read.source.offset, timestamp_ms(read.source.timestamp))
    answers = {task: Answer(**msgspec.structs.asdict(answer)) for task, answer in read.answers.items()}
    return Decision(
        event=Event(read.id, "x", bytes(read.payload), source, None),
        kind=Kind(read.kind),
        revision=read.revision,
        decided_by=read.decided_by,
        answers=answers,
        policy=read.policy,
        certified=read.certified,
        decided_at_ms=timestamp_ms(read.decided_at),
        replaces=read.replaces,
        pending=read.pending,
        degraded=read.degraded,
        degraded_reason=read.degraded_reason,
        enrichment=msgspec.json.decode(read.enrichment),
        usage=read.usage,
        recommended_action=read.recommended_action,
    )


@pytest.mark.parametrize("path", GOOD_DECISIONS, ids=named)
def test_golden_decisions_both_ways(path):
    """A golden decision is read, and written again as the same JSON in the same order, valid, with its headers."""
    raw = path.read_bytes()
    value, headers = CODEC.encode_decision(decision_of(raw))
    assert in_order(value) == in_order(raw)
    validator("decision", strict=True).validate(json.loads(value))
    told, sample = as_headers(headers), json.loads(raw)
    jsonschema.Draft202012Validator(headers_schema("decision")).validate(told)
    assert told["kind"] == sample["kind"]
    assert told["ce_type"] == f"shunt.decision.{sample['kind']}"
    assert told["ce_id"] == f"reviews/2/884#{sample['revision']}"
    assert (told["ce_subject"], told["shunt-source"]) == ("r-1041", "reviews/2/884")
    assert told["ce_time"] == sample["decided_at"]


@pytest.mark.parametrize("path", [path for path in BAD if path.parent.name == "decision"], ids=named)
def test_what_is_no_decision_is_not_read(path):
    """A consumer refuses what has the wrong shape; rules between fields are the writer's to keep."""
    shapely = {"confidence", "reason-though-certified", "time-without-milliseconds", "payload-no-object"}
    if path.stem.removeprefix("bad-") in CLAIMS_OF_MEANING | shapely:
        assert decode_decision(path.read_bytes()).id == "r-1041"
    else:
        with pytest.raises(UnreadableRecord) as caught:
            decode_decision(path.read_bytes())
        assert caught.value.cause == "bad_decision"


@given(st.binary(max_size=80))
def test_a_consumer_reads_bytes_or_refuses_them(value):
    """Nothing but UnreadableRecord comes out of bytes that are no decision."""
    with pytest.raises(UnreadableRecord):
        decode_decision(value)


@given(object_texts())
def test_any_payload_comes_out_as_the_same_bytes(written):
    """The payload stands in the decision byte for byte, and a consumer reads it as such."""
    payload = written.text.strip(" \t\r\n").encode()
    value, _ = CODEC.encode_decision(small(event("r", payload)))
    assert value.endswith(b',"payload":' + payload + b"}")
    assert bytes(decode_decision(value).payload) == payload


def event(event_id="r-1041", payload=b"{}", offset=884, timestamp=1_795_167_000_120, trace=None, topic="reviews"):
    return Event(event_id, "Fine.", payload, Source(topic, 2, offset, timestamp), b"k", trace)


def small(of: Event, **changed) -> Decision:
    answer = Answer("negative", 0.9, {"negative": 0.9, "positive": 0.1}, 0.8, "small", "sentiment_fast:3", True)
    told = {"answers": {"sentiment": answer}, "policy": None, "certified": True, "decided_at_ms": 1_795_167_000_141}
    return Decision(event=of, kind=Kind.FINAL, revision=0, decided_by="small", **(told | changed))


def test_probabilities_have_six_digits():
    """A float32 from the model leaves as the number a person would write."""
    share = float(np.float32(0.987))
    answer = Answer("a", share, {"a": share, "b": 1 - share}, 0.8, "small", "m:1", True)
    value, _ = CODEC.encode_decision(small(event(), answers={"t": answer}))
    assert b'"confidence":0.987,"probabilities":{"a":0.987,"b":0.013}' in value


def test_whatever_an_llm_writes_can_be_encoded():
    """Integers past 64 bits, unpaired surrogates and NaN in the enrichment break no decision."""
    value, _ = CODEC.encode_decision(small(event(), enrichment={"big": 2**80, "odd": "a\ud800b"}))
    assert json.loads(value)["enrichment"] == {"big": 2**80, "odd": "a?b"}
    assert decode_decision(value).id == "r-1041"
    value, _ = CODEC.encode_decision(small(event(), enrichment={"share": float("nan")}))
    assert json.loads(value)["enrichment"] == {"share": None}
    value, _ = CODEC.encode_decision(small(event(), enrichment={"big": [2**80, {"share": float("-inf")}]}))
    assert json.loads(value)["enrichment"] == {"big": [2**80, {"share": None}]}


def test_usage_is_written_whole():
    """Every figure of the LLM call stands on the decision."""
    usage = Usage("gpt-4o-mini", "p1", 212, 18, 0.00004, 811.5, False, None)
    value, _ = CODEC.encode_decision(small(event(), usage=usage))
    read = decode_decision(value)
    assert (read.usage, read.source.ref) == (usage, "reviews/2/884")


@st.composite
def batches(draw):
    """Accepted events and their answers as columns, and the same as answers one by one."""
    count = draw(st.integers(1, 8))
    text = st.text(max_size=8)
    events = [
        event(
            draw(text.filter(bool)),
            draw(st.sampled_from([b"{}", b'{"a":"100%"}', b'{"a":1,"a":2}'])),
            draw(st.integers(0, 2**62)),
            draw(st.integers(0, 4_000_000_000_000)),
            draw(st.sampled_from([None, TRACE])),
            draw(st.sampled_from(["reviews", "other"])),
        )
        for _ in range(count)
    ]
    tasks = []
    for name in draw(st.lists(text, min_size=1, max_size=3, unique=True)):
        labels = tuple(draw(st.lists(text, min_size=2, max_size=4, unique=True)))
        reasons = st.sampled_from([None, "manual", "shift"])
        grades = draw(
            st.lists(
                st.builds(
                    lambda model, threshold, policy, reason: Grade(model, threshold, policy, reason is None, reason),
                    text,
                    st.none() | st.floats(0, 1),
                    st.none() | text,
                    reasons,
                ),
                min_size=1,
                max_size=3,
            )
        )
        indices = lambda end: np.array(draw(st.lists(st.integers(0, end - 1), min_size=count, max_size=count)))  # noqa: E731
        shares = st.lists(st.floats(0, 1, width=32), min_size=len(labels), max_size=len(labels))
        table = np.array(draw(st.lists(shares, min_size=count, max_size=count)), np.float32)
        if draw(st.booleans()):
            tasks.append(SmallAnswers(name, labels, tuple(grades), indices(len(labels)), indices(len(grades)), table))
            continue
        found = st.lists(st.sampled_from(labels), unique=True).map(tuple)
        sets = tuple(draw(st.lists(found, min_size=1, max_size=3, unique=True)))
        maps = tuple(replace(grade, threshold=dict.fromkeys(labels, grade.threshold)) for grade in grades)
        sure = np.array(draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count)), np.float32)
        at = indices(len(sets))
        tasks.append(SmallAnswers(name, labels, maps, at, indices(len(grades)), table, None, sets, sure))
    return events, tasks


def one_by_one(events, tasks, policy, recommend, decided_at_ms):
    for row, of in enumerate(events):
        answers = {}
        for task in tasks:
            grade, label = task.grades[task.grade[row]], int(task.label[row])
            shares = [float(share) for share in task.probabilities[row]]
            answers[task.task] = Answer(
                label=task.choices[label],
                confidence=shares[label] if task.confidence is None else float(task.confidence[row]),
                probabilities=dict(zip(task.labels, shares, strict=True)),
                threshold=grade.threshold,
                decided_by="small",
                model=grade.model,
                certified=grade.certified,
                policy=grade.policy,
                uncertified_reason=grade.uncertified_reason,
            )
        yield CODEC.encode_decision(
            Decision(
                event=of,
                kind=Kind.FINAL,
                revision=0,
                decided_by="small",
                answers=answers,
                policy=policy,
                certified=all(answer.certified for answer in answers.values()),
                decided_at_ms=decided_at_ms,
                recommended_action=recommend([answer.label for answer in answers.values()]),
            )
        )


def recommend(answers):
    return "hold" if sum(len("".join(each_label(said))) for said in answers) % 2 else None


@given(batches(), st.sampled_from([None, "reviews@7", "100%d@1"]), st.integers(0, 4_000_000_000_000))
def test_the_fast_encoder_writes_the_same_bytes(batch, policy, decided_at_ms):
    """For any batch, value and headers are those of `encode_decision`, byte for byte, and stay so when used again."""
    events, tasks = batch
    encoder = CODEC.finals(policy, recommend)
    wanted = list(one_by_one(events, tasks, policy, recommend, decided_at_ms))
    assert list(encoder.encode(events, tasks, decided_at_ms)) == wanted
    assert list(encoder.encode(events, tasks, decided_at_ms)) == wanted


def test_a_thousand_random_probabilities_are_written_alike():
    """The batch's rounding and number format are those of the single decision, over real float32 noise."""
    rng = np.random.default_rng(20261120)
    first = rng.beta(0.2, 0.2, 1_000).astype(np.float32)
    table = np.stack([first, 1 - first], axis=1)
    grades = (Grade("sentiment_fast:3", 0.93, "reviews@7", True),)
    task = SmallAnswers("sentiment", ("a", "b"), grades, table.argmax(axis=1), np.zeros(1_000, np.int8), table)
    events = [event(offset=offset) for offset in range(1_000)]
    fast = CODEC.finals("reviews@7", recommend).encode(events, [task], 0)
    assert list(fast) == list(one_by_one(events, [task], "reviews@7", recommend, 0))


def test_sets_of_labels_do_not_fill_the_memory(monkeypatch):
    """However many different sets of labels come along, so many templates are kept; the bytes are alike."""
    monkeypatch.setattr(finals, "TEMPLATES_MAX", 5)
    labels = tuple("abcdef")
    sets = tuple(tuple(labels[at] for at in range(6) if one >> at & 1) for one in range(64))
    table = np.full((64, 6), 0.5)
    grades = (Grade("m:1", dict.fromkeys(labels, 0.9), None, False, "manual"),)
    told = SmallAnswers(
        "t", labels, grades, np.arange(64), np.zeros(64, int), table, sets=sets, confidence=np.full(64, 0.5)
    )
    events = [event(offset=offset) for offset in range(64)]
    encoder = CODEC.finals(None, recommend)
    for _ in range(2):
        assert list(encoder.encode(events, [told], 0)) == list(one_by_one(events, [told], None, recommend, 0))
    assert len(encoder._templates) <= 5


def test_many_tasks_of_many_sets_are_not_mixed_up():
    """Where labels and grades of all tasks have more combinations than a number tells apart, each keeps its own."""
    rng = np.random.default_rng(7)
    labels = ("a", "b")
    sets = tuple((str(at),) for at in range(2_000))
    grades = tuple(Grade(f"m:{at}", {"a": 0.5, "b": None}, None, False, "manual") for at in range(3))
    tasks = [
        SmallAnswers(
            f"t{at}", labels, grades, rng.permutation(2_000)[:40], rng.integers(0, 3, 40), rng.random((40, 2)),
            sets=sets, confidence=rng.random(40),
        )
        for at in range(8)
    ]  # fmt: skip
    events = [event(offset=offset) for offset in range(40)]
    fast = CODEC.finals(None, recommend).encode(events, tasks, 0)
    assert list(fast) == list(one_by_one(events, tasks, None, recommend, 0))


def test_a_batch_of_nothing():
    """No events, no finals."""
    nothing = SmallAnswers("t", ("a", "b"), (), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)))
    assert list(CODEC.finals(None, recommend).encode([], [nothing], 0)) == []


def test_pipelines_are_told_apart():
    """Two pipelines over one topic make CloudEvents of different sources; the group's name is quoted."""
    _, headers = Codec(Events(), "team a/é").encode_decision(small(event()))
    assert dict(headers)["ce_source"] == b"/shunt/team%20a%2F%C3%A9"


def test_tombstones_say_where_they_come_from():
    """A tombstone has the source and the envelope of a CloudEvent, and no kind: it is no decision."""
    headers = CODEC.tombstone_headers(Tombstone(Source("reviews", 2, 885, 1_795_167_000_150), b"k"))
    told = as_headers(headers)
    jsonschema.Draft202012Validator(headers_schema("tombstone")).validate(told)
    assert told["shunt-source"] == "reviews/2/885"
    assert "kind" not in told


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_times_both_ways(moment):
    """Every millisecond of the calendar is written with three decimals and Z, and read back."""
    text = rfc3339(moment).decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert timestamp_ms(text) == moment


@pytest.mark.parametrize(
    ("moment", "text"), [(-(2**63), b"0001-01-01T00:00:00.000Z"), (2**63 - 1, b"9999-12-31T23:59:59.999Z")]
)
def test_times_no_calendar_holds(moment, text):
    """A producer may set any 64-bit timestamp: it is clamped, never an error."""
    assert rfc3339(moment) == text


def test_a_time_without_an_offset_is_refused():
    """A local time says nothing across machines."""
    with pytest.raises(ValueError, match="offset"):
        timestamp_ms("2026-11-20T09:30:00.120")
