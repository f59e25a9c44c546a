"""What leaves for each event, without Kafka: finals, dead letters, copies for people; sizes are checked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord

from stream_app.codec import Codec, encode_escalation, record_batch_bytes
from stream_app.errors import UnreadableRecord
from stream_app.escalate.answer import Valid
from stream_app.escalate.outbox import Outbox
from stream_app.escalate.question import GotAnswer, NoAnswer
from stream_app.events import Parked, Usage
from stream_app.kafka.topics import TopicFound
from stream_app.settings import Events
from tests.escalate import escalated

USAGE = Usage("gpt-4o-mini", "abc", 400, 8, 0.0001, 512.0, False, "req_1")
GOT = GotAnswer(Valid({"sentiment": "negative"}, {"reason": "it says so"}), USAGE)


def outbox(
    bytes_max: int = 1_000_000,
    review_bytes_max: int = 1_000_000,
    parked_bytes_max: int = 1_000_000,
    feedback_bytes_max: int = 1_000_000,
    **llm,
):
    settings = escalated.settings("127.0.0.1:1", "http://127.0.0.1:1/v1", "shop", **llm)
    table = {"recommended_action": {"negative": "review", "toxic": "remove", "none": "publish"}}
    settings = settings.model_copy(update={"decisions": settings.decisions.model_copy(update=table)})
    names = settings.kafka.names.model_dump().values()
    topics = {name: TopicFound(name, 4, "delete", -1, bytes_max) for name in names}
    topics["shop-review"] = replace(topics["shop-review"], message_bytes_max=review_bytes_max)
    topics["shop-parked"] = replace(topics["shop-parked"], message_bytes_max=parked_bytes_max)
    topics["shop-feedback"] = replace(topics["shop-feedback"], message_bytes_max=feedback_bytes_max)
    codec = Codec(settings.events, "shop")
    return Outbox(settings, codec, topics), codec


def escalated_record(codec, **changes):
    """A record as it stands on the escalation topic, and what the codec reads in it."""
    value = json.dumps({"id": "r-1", "text": "a lamp", "shelf": "x" * changes.pop("shelf", 10)}).encode()
    asked = replace(escalated.escalation(6, partition=2), **changes)
    headers = encode_escalation(asked, [("shop", b"one")])
    record = ConsumerRecord(
        topic="shop-escalations", partition=1, offset=9, timestamp=5, timestamp_type=0, key=b"k", value=value,
        checksum=None, serialized_key_size=1, serialized_value_size=len(value), headers=headers,
    )  # fmt: skip
    return record, *codec.decode_escalated(record.key, record.value, record.headers)


def test_the_llms_final_goes_to_the_partition_fixed_when_the_event_was_first_decided():
    """Key, partition, revision and payload are those of the escalation; answers and action of both models."""
    box, codec = outbox()
    record, original, event = escalated_record(codec, revision=1)
    outcome = box.answered(record, original, event, GOT, 1_000)
    out, _label = outcome.outgoing
    decision = json.loads(out.value)
    assert (out.topic, out.partition, out.key) == ("shop-decisions", 2, b"k")
    assert (decision["kind"], decision["revision"], decision["decided_by"]) == ("final", 1, "llm")
    assert decision["answers"]["sentiment"]["label"] == "negative"
    assert decision["answers"]["sentiment"]["escalated_because"] == "unsure"
    assert decision["enrichment"] == {"reason": "it says so"}
    assert decision["recommended_action"] == "review"
    assert decision["usage"]["request_id"] == "req_1"
    assert decision["payload"] == {"shelf": "x" * 10}


def test_certified_is_null_where_no_small_answer_was_taken():
    """With nothing but the LLM's answers there is nothing a certificate could speak of."""
    box, codec = outbox()
    decision = box.answered(*escalated_record(codec, sure={}, tasks=("sentiment",)), GOT, 1_000).decision
    assert decision is not None
    assert decision.certified is None


@pytest.mark.parametrize("reason", ["deadline", "budget", "outage", "refused", "invalid_answer"])
def test_a_degraded_final_says_why_and_goes_on_to_people_or_to_be_asked_again(reason):
    """The small answers stand, none of the unsure ones certified; people get refusals and unusable answers."""
    box, codec = outbox()
    outcome = box.unanswered(*escalated_record(codec), NoAnswer(reason, "why", None), 1_000)
    topics = [out.topic for out in outcome.outgoing]
    copy = "shop-review" if reason in {"refused", "invalid_answer"} else "shop-parked"
    assert topics == ["shop-decisions", copy]
    decision = outcome.decision
    assert decision is not None
    assert (decision.degraded, decision.degraded_reason, decision.certified) == (True, reason, False)
    assert decision.answers["sentiment"].label == "positive"
    assert decision.answers["toxicity"].certified is True
    assert decision.usage is None
    if copy == "shop-review":
        headers = dict(outcome.outgoing[1].headers)
        assert headers["shunt-source"] == b"reviews/2/6"
        assert "shunt-escalation" in headers


@pytest.mark.parametrize("reason", ["deadline", "budget", "outage"])
def test_giving_up_is_a_dead_letter_where_the_settings_say_so(reason):
    """The record as it first came in: its own headers only, and its first source."""
    box, codec = outbox(**{f"on_{reason}": "dlq"})
    record, original, event = escalated_record(codec)
    outcome = box.unanswered(record, original, event, NoAnswer(reason, "no answer", None), 1_000)
    (out,) = outcome.outgoing
    assert (out.topic, out.key, out.value) == ("shop-dlq", b"k", record.value)
    assert out.headers[0] == ("shop", b"one")
    headers = dict(out.headers)
    assert (headers["shunt-source"], headers["shunt-cause"]) == (b"reviews/2/6", f"llm_{reason}".encode())
    assert outcome.dead_cause == f"llm_{reason}"


def test_a_final_too_large_for_its_topic_is_a_dead_letter_that_fits():
    """Sizes are checked before the transaction: the broker would refuse it again and again."""
    box, codec = outbox(bytes_max=4_000)
    outcome = box.answered(*escalated_record(codec, shelf=5_000), GOT, 1_000)
    (out,) = outcome.outgoing
    assert (out.topic, outcome.dead_cause) == ("shop-dlq", "output_too_large")
    assert record_batch_bytes(out.key, out.value, out.headers) <= 4_000


def test_a_copy_too_large_for_its_topic_is_cut():
    """People see at least what it was about and where the whole record stands."""
    box, codec = outbox(review_bytes_max=3_000)
    record, original, event = escalated_record(codec, shelf=2_600)
    outcome = box.unanswered(record, original, event, NoAnswer("refused", "no", None), 1_000)
    assert [out.topic for out in outcome.outgoing] == ["shop-decisions", "shop-review"]
    copy = outcome.outgoing[1]
    assert record_batch_bytes(copy.key, copy.value, copy.headers) <= 3_000
    assert dict(copy.headers)["truncated"] == b"true"


@pytest.mark.parametrize("reason", ["deadline", "budget", "outage"])
def test_a_final_without_the_llm_leaves_together_with_what_will_be_asked_after_all(reason):
    """One outcome, so one transaction: the escalation byte for byte, and which final its answer would replace."""
    box, codec = outbox()
    record, original, event = escalated_record(codec, revision=1)
    outcome = box.unanswered(record, original, event, NoAnswer(reason, "why", None), 1_000)
    final, parked = outcome.outgoing
    assert outcome.parked
    assert (final.topic, parked.topic) == ("shop-decisions", "shop-parked")
    assert (parked.partition, parked.key, parked.value, parked.timestamp_ms) == (1, record.key, record.value, 1_000)
    assert parked.headers[:-1] == tuple(record.headers)
    told, again, same = codec.decode_parked(parked.key, parked.value, parked.headers)
    assert told == Parked("reviews/2/6#1", 1, reason)
    assert (again, same) == (original, event)


def test_the_answer_after_all_replaces_the_final_where_it_stands():
    """Same key, same partition, one revision more, the LLM's answers and their cost; nothing is degraded any more."""
    box, codec = outbox()
    record, original, event = escalated_record(codec, revision=1)
    final = box.unanswered(record, original, event, NoAnswer("outage", "why", None), 1_000).outgoing[0]
    outcome = box.corrected(record, original, event, Parked("reviews/2/6#1", 1, "outage"), GOT, 2_000)
    out, _label = outcome.outgoing
    assert (out.topic, out.partition, out.key) == (final.topic, final.partition, final.key)
    decision = json.loads(out.value)
    assert (decision["kind"], decision["revision"], decision["replaces"]) == ("correction", 2, 1)
    assert (decision["degraded"], decision["degraded_reason"], decision["decided_by"]) == (False, None, "llm")
    assert decision["answers"]["sentiment"]["label"] == "negative"
    assert decision["usage"]["cost_usd"] == 0.0001
    assert dict(out.headers)["kind"] == b"correction"
    assert dict(out.headers)["ce_id"] == b"reviews/2/6#2"


def test_a_correction_that_does_not_fit_leaves_the_final_standing():
    """No dead letter: the record has its outcome, and must not get a second one."""
    box, codec = outbox(bytes_max=4_000)
    record, original, event = escalated_record(codec, shelf=5_000)
    outcome = box.corrected(record, original, event, Parked("reviews/2/6#0", 0, "outage"), GOT, 2_000)
    assert (outcome.outgoing, outcome.decision, outcome.gave_up) == ((), None, "output_too_large")


def test_an_escalation_too_large_to_park_still_has_its_final():
    """Parking is a second chance, not a condition."""
    box, codec = outbox(parked_bytes_max=1_000)
    outcome = box.unanswered(*escalated_record(codec, shelf=2_000), NoAnswer("outage", "why", None), 1_000)
    assert [out.topic for out in outcome.outgoing] == ["shop-decisions"]
    assert not outcome.parked


@pytest.mark.parametrize("hurt", ["settings", "escalation"])
def test_a_parked_event_that_cannot_be_read_any_more_keeps_its_final(hurt):
    """`[events]` changed while it was parked, say: a dead letter would be a second outcome beside its final."""
    box, codec = outbox()
    record, original, event = escalated_record(codec)
    parked = box.unanswered(record, original, event, NoAnswer("outage", "why", None), 1_000).outgoing[1]
    headers = parked.headers if hurt == "settings" else (("shunt-escalation", b"{}"), parked.headers[-1])
    with pytest.raises(UnreadableRecord) as caught:
        Codec(Events(text_fields=("body",)), "shop").decode_parked(parked.key, parked.value, headers)
    assert caught.value.cause == {"settings": "missing_text", "escalation": "bad_escalation"}[hurt]
    outcome = box.unreadable_parked(record, caught.value)
    assert (outcome.outgoing, outcome.dead_cause, outcome.gave_up) == ((), None, "unreadable")


@pytest.mark.parametrize("headers", [(), (("shunt-parked", b"{}"),)], ids=["none", "of-no-use"])
def test_a_record_of_the_parked_topic_that_is_not_parked_is_a_dead_letter(headers):
    """Somebody else's: it has no final that stands."""
    box, codec = outbox()
    record = replace(escalated_record(codec)[0], topic="shop-parked", headers=headers)
    with pytest.raises(UnreadableRecord) as caught:
        codec.decode_parked(record.key, record.value, record.headers)
    outcome = box.unreadable_parked(record, caught.value)
    assert outcome.dead_cause == "bad_parked"
    (out,) = outcome.outgoing
    assert (out.topic, dict(out.headers)["shunt-source"]) == ("shop-dlq", b"shop-parked/1/9")
