"""The topics beside the escalations: as many partitions, and kept for longer than anything may wait there."""

from __future__ import annotations

from stream_app.kafka.topics import TopicFound, differences, plan
from stream_app.settings import PARKED_AGE_MAX_S, Kafka

KAFKA = Kafka(input_topic="shop")


def found(**partitions: int) -> dict[str, TopicFound]:
    """The topics as they are planned, with those numbers of partitions instead."""
    return {
        topic.name: TopicFound(
            topic.name,
            partitions.get(topic.use, topic.partitions),
            topic.cleanup.value,
            topic.retention_ms,
            topic.message_bytes_max,
        )
        for topic in plan(KAFKA, None, partitions=3)
    }


def test_it_follows_the_escalation_topic():
    """Equal numbers share limits and budget: other counts work, and are named."""
    planned = {topic.use: topic for topic in plan(KAFKA, None, partitions=6, escalations=2)}
    assert planned["parked"].partitions == planned["escalations"].partitions == 2
    assert differences(plan(KAFKA, None, partitions=3), found()) == []
    for use in ("parked", "audits"):
        assert planned[use].partitions == planned["escalations"].partitions
        (named,) = differences(plan(KAFKA, None, partitions=3), found(**{use: 5}))
        assert (named.topic, named.breaks) == (f"shop-{use}", False)
        assert "has 5 partitions, shop-escalations 3" in named.what
    assert differences(plan(KAFKA, None, partitions=3), found(parked=5, audits=5, escalations=5)) == []


def test_audit_results_have_one_partition():
    """Every worker must read them in the same order: a topic with more is refused."""
    assert next(topic for topic in plan(KAFKA, None) if topic.use == "audit_results").partitions == 1
    (named,) = differences(plan(KAFKA, None, partitions=3), found(audit_results=2))
    assert (named.topic, named.breaks) == ("shop-audit-results", True)


def test_it_keeps_what_may_still_be_corrected():
    """Nothing expires unread while it could be asked; a shorter retention is named, and a missing topic breaks."""
    parked = next(topic for topic in plan(KAFKA, None) if topic.use == "parked")
    assert parked.retention_ms > PARKED_AGE_MAX_S * 1000
    there = found()
    there["shop-parked"] = TopicFound("shop-parked", 3, "delete", 3_600_000, parked.message_bytes_max)
    (named,) = differences(plan(KAFKA, None, partitions=3), there)
    assert "keeps records for" in named.what
    del there["shop-parked"]
    (missing,) = differences(plan(KAFKA, None, partitions=3), there)
    assert missing.breaks


def test_a_parked_escalation_of_the_largest_size_fits():
    """It is the escalation and one short header more."""
    planned = {topic.use: topic for topic in plan(KAFKA, None)}
    assert planned["parked"].message_bytes_max > planned["escalations"].message_bytes_max
