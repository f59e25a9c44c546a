"""The topics of a pipeline: what each is for, how it should be made, and what is wrong with those that are there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

from stream_app.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka.admin import AIOKafkaAdminClient

    from stream_app.kafka.connection import Connection
    from stream_app.settings import Kafka

DAY_MS = 24 * 60 * 60 * 1000
KEEP_PARKED_MS = 8 * DAY_MS
"""A day more than `llm.parked_max_age_s` may be."""
PARTITIONS_DEFAULT = 6
"""Of an input topic that is made here: as many workers can share a lane."""
BROKER_MESSAGE_BYTES_MAX = 1_048_588
"""Kafka's default `max.message.bytes`."""
HEADROOM_BYTES = 128 * 1024
"""What an escalation or a dead letter adds to the record it carries: its headers, and a batch's own frame."""
REPLICAS_MAX = 3
VERDICT_USERS = ("shunt feedback", "escalate")
AUDIT_USERS = ("escalate, shunt feedback", "classify")
CONTROL_USERS = ("shunt promote, classify", "classify")
WAITED_FOR = frozenset({"escalations", "parked", "dlq", "review", "feedback", "verdicts", "audits", "audit_results"})
"""Topics whose records may wait for long: kept for less than planned, they may be gone before they are read."""
TOPIC_ALREADY_EXISTS = 36
VISIBLE_WITHIN_S = 20.0


class Cleanup(StrEnum):
    """Kafka's `cleanup.policy`."""

    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be. `use` is its name in `[kafka.topics]` (`input` for the input topic)."""

    use: str
    name: str
    partitions: int
    retention_ms: int
    message_bytes_max: int
    written_by: str
    read_by: str
    cleanup: Cleanup = Cleanup.DELETE


@dataclass(frozen=True, slots=True)
class TopicFound:
    """One topic as it is. `retention_ms` is -1 where nothing expires."""

    name: str
    partitions: int
    cleanup: str
    retention_ms: int
    message_bytes_max: int

    @property
    def each_partition(self) -> list[TopicPartition]:
        """All its partitions."""
        return [TopicPartition(self.name, number) for number in range(self.partitions)]

    def partition_of(self, key: bytes) -> int:
        """The key's partition, as Java clients choose it."""
        return (murmur2(key) & 0x7FFFFFFF) % self.partitions


@dataclass(frozen=True, slots=True)
class Difference:
    """What is wrong with a topic. `breaks`: a guarantee does not hold with it, or the worker cannot start."""

    topic: str
    what: str
    breaks: bool


def plan(
    kafka: Kafka, source: TopicFound | None, *, partitions: int | None = None, escalations: int | None = None
) -> tuple[TopicPlan, ...]:
    """The topics as they should be, the input topic first.

    `source` is the input topic where there is one: decisions have its number of partitions, so that they keep
    its numbers, and outputs take its largest record and `HEADROOM_BYTES` more. `partitions` is for an input
    topic that is still to be made, `escalations` that topic's own number (the input's when left out), which the
    topics of parked events and of audits share. The former takes a little more: a parked record is an escalation and
    a word about its final. Audit results have one partition: everybody reads them in one order.
    """
    names = kafka.names
    count = source.partitions if source else partitions or PARTITIONS_DEFAULT
    bytes_max = source.message_bytes_max if source else BROKER_MESSAGE_BYTES_MAX
    roomy = bytes_max + HEADROOM_BYTES
    retention = source.retention_ms if source else 7 * DAY_MS
    month = 30 * DAY_MS
    both = "classify, escalate"
    return (
        TopicPlan("input", names.input, count, retention, bytes_max, "you", "classify"),
        TopicPlan("decisions", names.decisions, count, 7 * DAY_MS, roomy, both, "you, feeds"),
        TopicPlan("escalations", names.escalations, escalations or count, 7 * DAY_MS, roomy, "classify", "escalate"),
        TopicPlan("parked", names.parked, escalations or count, KEEP_PARKED_MS, roomy + 4096, "escalate", "escalate"),
        TopicPlan("dlq", names.dlq, count, month, roomy, both, "shunt dlq"),
        TopicPlan("review", names.review, count, month, roomy, "escalate", "people"),
        TopicPlan("feedback", names.feedback, count, month, roomy, "escalate, shunt feedback", "shunt distill"),
        TopicPlan("verdicts", names.verdicts, escalations or count, month, BROKER_MESSAGE_BYTES_MAX, *VERDICT_USERS),
        TopicPlan("audits", names.audits, escalations or count, KEEP_PARKED_MS, roomy, "classify", "escalate"),
        TopicPlan("audit_results", names.audit_results, 1, 3 * month, BROKER_MESSAGE_BYTES_MAX, *AUDIT_USERS),
        TopicPlan("control", names.control, 1, -1, BROKER_MESSAGE_BYTES_MAX, *CONTROL_USERS, Cleanup.COMPACT),
    )


def differences(planned: Iterable[TopicPlan], found: Mapping[str, TopicFound]) -> list[Difference]:
    """What of `found` is missing or is not as `planned`; what only works better or longer is not named."""
    named: list[Difference] = []
    planned = list(planned)
    escalations = next((found.get(topic.name) for topic in planned if topic.use == "escalations"), None)
    for topic in planned:
        there = found.get(topic.name)
        if there is None:
            named.append(Difference(topic.name, "does not exist", breaks=True))
        else:
            named += [Difference(topic.name, what, breaks) for what, breaks in _complaints(topic, there)]
            if (
                topic.use in {"parked", "audits"}
                and escalations is not None
                and there.partitions != escalations.partitions
            ):
                what = f"has {there.partitions} partitions, {escalations.name} {escalations.partitions}"
                named.append(Difference(topic.name, f"{what}: some of either go without an equal", breaks=False))
    return named


def _complaints(topic: TopicPlan, there: TopicFound) -> list[tuple[str, bool]]:
    complaints: list[tuple[str, bool]] = []
    if Cleanup.COMPACT in there.cleanup and topic.cleanup is Cleanup.DELETE and topic.use != "input":
        complaints.append(("is compacted: records with the same key would be dropped (cleanup.policy=delete)", True))
    if topic.use == "control" and (there.cleanup != Cleanup.COMPACT or there.partitions != 1):
        what = "does not keep the policy in force: give it one partition and cleanup.policy=compact"
        complaints.append((what, True))
    if topic.use == "audit_results" and there.partitions != 1:
        complaints.append(("has several partitions: workers would read its records in different orders", True))
    if there.partitions != topic.partitions and topic.use == "decisions":
        complaints.append(
            (f"has {there.partitions} partitions, the input {topic.partitions}: the key chooses the partition", False)
        )
    if there.message_bytes_max < topic.message_bytes_max and topic.use != "input":
        complaints.append(
            (
                f"takes records up to {there.message_bytes_max} bytes: max.message.bytes={topic.message_bytes_max}",
                False,
            )
        )
    if 0 <= there.retention_ms < topic.retention_ms and topic.use in WAITED_FOR:
        complaints.append(
            (f"keeps records for {_days(there.retention_ms)}: retention.ms={topic.retention_ms}", False)
        )
    return complaints


def _days(duration_ms: int) -> str:
    return f"{duration_ms / DAY_MS:.3g} days"


async def look_up(connection: Connection, names: Iterable[str]) -> dict[str, TopicFound]:
    """Those of `names` that exist, as they are. Raises StartError when Kafka cannot be reached."""
    facts = await connection.topics(names)
    if not facts:
        return {}
    configs = await connection.ask(lambda admin: _configs(admin, list(facts)))
    return {
        name: TopicFound(
            name=name,
            partitions=fact.partitions,
            cleanup=configs[name].get("cleanup.policy", Cleanup.DELETE),
            retention_ms=int(configs[name].get("retention.ms", -1)),
            message_bytes_max=fact.message_bytes_max,
        )
        for name, fact in facts.items()
    }


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    responses = cast("list[Any]", await admin.describe_configs(resources))
    return {
        name: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        for response in responses
        for _code, _message, _kind, name, entries in response.resources
    }


async def create(connection: Connection, planned: Iterable[TopicPlan]) -> list[str]:
    """Make those topics that do not exist; their names. One that appears meanwhile is as good as made.

    Raises StartError, which names the topic and Kafka's reason.
    """
    missing = list(planned)
    there = await connection.topics(topic.name for topic in missing)
    missing = [topic for topic in missing if topic.name not in there]
    if not missing:
        return []
    async with connection.admin() as admin:
        brokers = (await admin.describe_cluster())["brokers"]
        replicas = min(len(brokers), REPLICAS_MAX)
        response = cast("Any", await admin.create_topics([_request(topic, replicas) for topic in missing]))
    for name, code, *reason in response.topic_errors:
        if code not in {0, TOPIC_ALREADY_EXISTS}:
            why = next((text for text in reason if text), None) or for_code(code).__name__
            raise StartError(f"topic {name!r} cannot be made", advice=str(why))
    names = [topic.name for topic in missing]
    await visible(connection, names)
    return names


async def visible(connection: Connection, names: Sequence[str]) -> None:
    """Returns when every broker asked knows the topics: a new one takes a moment to be told to all of them.

    Raises StartError when that takes longer than `VISIBLE_WITHIN_S`.
    """
    try:
        async with asyncio.timeout(VISIBLE_WITHIN_S):
            while set(names) - set(await connection.topics(names)):  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise StartError(
            f"the new topics are not there after {VISIBLE_WITHIN_S:.0f} s", advice="look at the brokers' logs"
        ) from error


def _request(topic: TopicPlan, replicas: int) -> NewTopic:
    configs = {
        "cleanup.policy": topic.cleanup.value,
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(topic.message_bytes_max),
    }
    return NewTopic(topic.name, topic.partitions, replicas, topic_configs=configs)


async def require(connection: Connection) -> dict[str, TopicFound]:
    """The pipeline's topics by name, for a worker that starts.

    Raises StartError, one line that says what to change, when Kafka cannot be reached, or a topic is missing
    or would break a guarantee.
    """
    names = connection.kafka.names
    found = await look_up(connection, names.model_dump().values())
    broken = [wrong for wrong in differences(plan(connection.kafka, found.get(names.input)), found) if wrong.breaks]
    if broken:
        first, *more = broken
        others = f", and {len(more)} more" if more else ""
        missing = any(wrong.what == "does not exist" for wrong in broken)
        # Kafka does not list what one may not see.
        make = "make the topics with `shunt topics create`, or correct [kafka], or grant this worker's user DESCRIBE"
        advice = f"{make} on topic {first.topic!r}" if missing else "see `shunt check`"
        raise StartError(f"topic {first.topic!r} {first.what}{others}", advice=advice)
    return found
