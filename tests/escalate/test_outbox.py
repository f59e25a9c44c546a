"""What leaves for each event, without Kafka: finals, dead letters, copies for people; sizes are checked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord

from stream_app.codec import Codec, encode_escalation, record_batch_bytes
from stream_app.escalate.answer import Valid
from stream_app.escalate.outbox import Outbox
from stream_app.escalate.question import GotAnswer, NoAnswer
from stream_app.events import Usage
from stream_app.kafka.topics import TopicFound
from tests.escalate import escalated

USAGE = Usage("gpt-4o-mini", "abc", 400, 8, 0.0001, 512.0, False, "req_1")
GOT = GotAnswer(Valid({"sentiment": "negative"}, {"reason": "it says so"}), USAGE)


def outbox(bytes_max: int = 1_000_000, review_bytes_max: int = 1_000_000, **llm):
    settings = escalated.settings("127.0.0.1:1", "http://127.0.0.1:1/v1", "shop", **llm)
    table = {"recommended_action": {"negative": "review", "toxic": "remove", "none": "publish"}}
    settings = settings.model_copy(update={"decisions": settings.decisions.model_copy(update=table)})
    names = settings.kafka.names.model_dump().values()
    topics = {name: TopicFound(name, 4, "delete", -1, bytes_max) for name in names}
    topics["shop-review"] = replace(topics["shop-review"], message_bytes_max=review_bytes_max)
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
    (out,) = outcome.outgoing
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
def test_a_degraded_final_says_why_and_people_get_what_the_llm_would_not_answer(reason):
    """The small answers stand, none of the unsure ones certified; copies for refusals and unusable answers."""
    box, codec = outbox()
    outcome = box.unanswered(*escalated_record(codec), NoAnswer(reason, "why", None), 1_000)
    topics = [out.topic for out in outcome.outgoing]
    copied = reason in {"refused", "invalid_answer"}
    assert topics == ["shop-decisions", "shop-review"] if copied else topics == ["shop-decisions"]
    decision = outcome.decision
    assert decision is not None
    assert (decision.degraded, decision.degraded_reason, decision.certified) == (True, reason, False)
    assert decision.answers["sentiment"].label == "positive"
    assert decision.answers["toxicity"].certified is True
    assert decision.usage is None
    if copied:
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
