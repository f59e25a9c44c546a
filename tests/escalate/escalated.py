"""Escalations as the hot path writes them, made here without it, and what became of them read without us."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from stream_app.codec import encode_audit, encode_escalation, encode_parked
from stream_app.events import Answer, Ask, Audit, Escalation, Event, Parked, Source
from stream_app.settings import Settings
from tests.kafka.reading import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONS = 3
PHRASES = (
    "great kettle, boils fast and looks lovely",
    "awful, it broke after a week and they refused to help",
    "fine I suppose, the lid is loose but it does the job",
    "oh wonderful, another charger that dies within a month",
)


def small(label: str = "positive", share: float = 0.6) -> Answer:
    """What the small model says of a sentiment it is not sure of."""
    other = {"positive": "negative", "negative": "positive"}[label]
    return Answer(
        label, share, {label: share, other: 1 - share}, 0.93, "small", "sentiment_fast:1", False, "demo@1", "unsure"
    )


SURE = Answer("none", 0.99, {"none": 0.99, "toxic": 0.01}, 0.9, "small", "toxicity_fast:1", True, "demo@1")


def escalation(offset: int, *, partition: int = 0, timestamp_ms: int | None = None) -> Escalation:
    """An escalation of one unsure sentiment beside a sure toxicity."""
    stamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    ask = Ask("sentiment", ("negative", "positive"), small(), "unsure")
    source = Source("reviews", partition, offset, stamp_ms)
    return Escalation(source, (ask.task, "toxicity"), (ask,), {"toxicity": SURE}, "demo@1", 0, partition, stamp_ms)


def event(text: str) -> Event:
    """The event of `escalation(0)`."""
    return Event("r-0", text, b"{}", escalation(0).source, b"k0")


def settings(bootstrap_servers: str, base_url: str, prefix: str, **llm: Any) -> Settings:
    """Settings of a pipeline whose topics begin with `prefix`."""
    endpoint = {"base_url": base_url, "requests_per_minute": 1e6, "tokens_per_minute": 1e9, **llm.pop("endpoint", {})}
    given: dict[str, Any] = {
        "kafka": {"bootstrap_servers": bootstrap_servers, "group": prefix, "input_topic": prefix},
        "tasks": [{"name": "sentiment", "tiers": ["sentiment_fast"], "threshold": 0.9}],
        "escalate": {"linger_ms": 100},
        "llm": {"usd_per_hour": 1000, "usd_per_day": 10_000, "endpoints": [endpoint], **llm},
    }
    return Settings(**given)


def produce(
    bootstrap_servers: str,
    topic: str,
    texts: list[str],
    *,
    first_offset: int = 0,
    partitions: int = PARTITIONS,
    parked: bool = False,
    made: Callable[[int, int], Escalation] | None = None,
) -> None:
    """Writes one escalation for each text, text i to partition i modulo `partitions`, its source offset i.

    `parked`: as the lane parks it after it decided without the LLM. `made` gives the escalation of a number and
    partition, instead of `escalation`.
    """
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5})
    for number, text in enumerate(texts, first_offset):
        partition = number % partitions
        value = json.dumps({"id": f"r-{number}", "text": text, "n": number}).encode()
        asked = escalation(number, partition=partition) if made is None else made(number, partition)
        headers = encode_escalation(asked, [("shop", b"one")])
        if parked:
            headers = encode_parked(Parked(f"reviews/{partition}/{number}#0", 0, "outage"), headers)
        producer.produce(topic, value=value, key=f"k{number}".encode(), partition=partition, headers=list(headers))
        producer.poll(0)
    assert producer.flush(30) == 0


def audit(offset: int, partition: int) -> Audit:
    """An audit of a sentiment that was accepted as positive, and of a toxicity."""
    sure = replace(small(share=0.97), escalated_because=None, certified=True)
    answers = {"sentiment": sure, "toxicity": SURE}
    labels = {"sentiment": ("negative", "positive", "mixed"), "toxicity": ("none", "toxic")}
    return Audit(Source("reviews", partition, offset, int(time.time() * 1000)), answers, labels, "demo@1", 0)


def produce_audits(bootstrap_servers: str, topic: str, texts: list[str], *, partitions: int = PARTITIONS) -> None:
    """Writes one audit for each text, as `produce` does escalations."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5})
    for number, text in enumerate(texts):
        partition = number % partitions
        value = json.dumps({"id": f"r-{number}", "text": text, "n": number}).encode()
        headers = encode_audit(audit(number, partition), [("shop", b"one")])
        producer.produce(topic, value=value, key=f"k{number}".encode(), partition=partition, headers=list(headers))
        producer.poll(0)
    assert producer.flush(30) == 0


def texts(count: int, start: int = 0) -> list[str]:
    """Different texts, none of them anybody's."""
    return [f"{PHRASES[number % len(PHRASES)]} (order {number})" for number in range(start, start + count)]


def finals(bootstrap_servers: str, topic: str) -> list[dict[str, Any]]:
    """Every committed decision, in JSON."""
    return [json.loads(message.value()) for message in read_all(bootstrap_servers, topic)]


def corrections_per_source(decisions: list[dict[str, Any]]) -> Counter[int]:
    """How many corrections each source offset has."""
    return Counter(decision["source"]["offset"] for decision in decisions if decision["kind"] == "correction")


def finals_per_source(decisions: list[dict[str, Any]]) -> Counter[int]:
    """How many finals each source offset has."""
    return Counter(decision["source"]["offset"] for decision in decisions if decision["kind"] == "final")


TROUBLE = {"insult": 0.62, "spam": 0.01, "threat": 0.3}


def any_of_escalation(offset: int = 0) -> Escalation:
    """An escalation of a task of which any label may be right, beside a sure one that found nothing."""
    cuts = dict.fromkeys(TROUBLE, 0.9)
    model, policy = "trouble_fast:1", "demo@1"
    unsure = Answer(("insult",), 0.62, TROUBLE, cuts, "small", model, False, policy, "unsure")
    nothing = Answer((), 0.99, dict.fromkeys(("ad", "link"), 0.01), {"ad": 0.9, "link": None}, "small", "x:1", True)
    ask = Ask("trouble", tuple(TROUBLE), unsure, "unsure")
    source = Source("reviews", 0, offset, 1)
    return Escalation(source, ("trouble", "about"), (ask,), {"about": nothing}, policy, 0, 0, 1)
