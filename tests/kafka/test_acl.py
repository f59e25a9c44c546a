"""A broker with ACLs: a right that is missing ends the worker with one line that names what to grant, on what."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiokafka.structs import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stream_app.errors import DeliveryRefused, ShuntError, StartError
from stream_app.escalate.start import escalate_lane, group_of
from stream_app.events import Outgoing
from stream_app.kafka.admin import lane_lag
from stream_app.kafka.connection import Connection
from stream_app.kafka.transactions import TransactionalOutput
from stream_app.local.llm.options import StandInOptions
from stream_app.local.stack import Stack
from stream_app.settings import Kafka
from stream_app.telemetry import Metrics
from tests.classify.lanes import caught_up, classifying, pipeline
from tests.conftest import model_repositories, run_apart
from tests.escalate import escalated
from tests.kafka.reading import committed_and_end, produce, read_all

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.BROKER
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID
READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
US = "User:ANONYMOUS"
EVENTS = [b'{"id": "r-%d", "text": "it is good"}' % number for number in range(10)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    """A broker that asks its ACLs; everybody may do what none speaks of."""
    running = Stack(
        tmp_path_factory.mktemp("acl"),
        llm_options=StandInOptions(latency_median_ms=20),
        model_repository=model_repositories(),
        load_models=["scripted"],
        kafka_properties={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
    )
    run_apart(running.open())
    yield running
    run_apart(running.close())


def grant_others(stack: Stack, kind: ResourceType, name: str) -> None:
    """An ACL for somebody else, which leaves us without any right on the resource."""
    _create(stack, [_binding(kind, name, "User:somebody", AclOperation.ALL, AclPermissionType.ALLOW)])


def deny(stack: Stack, kind: ResourceType, name: str, operation: AclOperation) -> None:
    """Takes exactly this right from us, and no other."""
    _create(
        stack,
        [
            _binding(kind, name, US, AclOperation.ALL, AclPermissionType.ALLOW),
            _binding(kind, name, US, operation, AclPermissionType.DENY),
        ],
    )


def _binding(kind, name, principal, operation, permission) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, principal, "*", operation, permission)


def _create(stack: Stack, bindings: list[AclBinding]) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    for created in admin.create_acls(bindings).values():
        created.result()


def names_of(settings) -> dict[str, str]:
    """What an ACL may be about, in a pipeline of one partition."""
    group = f"{settings.kafka.group}-classify"
    topics = settings.kafka.names
    return {
        "decisions": topics.decisions,
        "input": topics.input,
        "group": group,
        "transactional id": f"{group}:{topics.input}:0",
    }


def said_of(error: BaseException | None) -> str:
    """The one line of the error, or of the one inside a lane's group of errors, on which the process ends with 1."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ShuntError), repr(error)
    assert error.exit_status == 1
    assert "\n" not in error.one_line()
    return error.one_line()


RIGHTS = [
    (TOPIC, "decisions", WRITE, "WRITE on topic '{}'"),
    (TOPIC, "input", READ, "READ on topic '{}'"),
    (GROUP, "group", READ, "READ on group '{}'"),
    (TRANSACTIONAL_ID, "transactional id", WRITE, "WRITE and DESCRIBE on transactional id '{}'"),
    (TRANSACTIONAL_ID, "transactional id", DESCRIBE, "WRITE and DESCRIBE on transactional id '{}'"),
]
IDS = [f"{operation.name} {what}" for _, what, operation, _ in RIGHTS]


@pytest.mark.parametrize(("kind", "what", "operation", "to_grant"), RIGHTS, ids=IDS)
async def test_a_worker_without_a_right_ends(stack, make_topic, unique_name, kind, what, operation, to_grant):
    """Each right that a lane needs, taken alone: the lane ends by itself with status 1, its line names the right and
    the resource, nothing was decided, and no record was committed."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    name = names_of(settings)[what]
    produce(stack.bootstrap_servers, settings.kafka.names.input, EVENTS)
    deny(stack, kind, name, operation)
    async with classifying(settings) as task:
        await asyncio.wait({task}, timeout=30)
        assert task.done()
    assert f"grant this worker's user {to_grant.format(name)}" in said_of(task.exception())
    group = names_of(settings)["group"]
    assert committed_and_end(stack.bootstrap_servers, settings.kafka.names.input, group)[0][0] <= 0
    assert read_all(stack.bootstrap_servers, settings.kafka.names.decisions) == []


@pytest.mark.parametrize(("kind", "what", "operation", "to_grant"), RIGHTS[:-1], ids=IDS[:-1])
async def test_a_right_taken_from_a_worker_ends_it(stack, make_topic, unique_name, kind, what, operation, to_grant):
    """A right taken while the lane is at work: the same end, and what was committed before it stands. (DESCRIBE on
    the transactional id is only asked for when its coordinator is looked up.)"""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    source, name = settings.kafka.names.input, names_of(settings)[what]
    produce(stack.bootstrap_servers, source, EVENTS)
    async with classifying(settings) as task:
        await caught_up(settings, task)
        deny(stack, kind, name, operation)
        produce(stack.bootstrap_servers, source, EVENTS)
        await asyncio.wait({task}, timeout=30)
        assert task.done()
    assert f"grant this worker's user {to_grant.format(name)}" in said_of(task.exception())
    committed, end = committed_and_end(stack.bootstrap_servers, source, names_of(settings)["group"])[0]
    assert (committed, end) == (10, 20)
    assert len(read_all(stack.bootstrap_servers, settings.kafka.names.decisions)) == 10


async def test_a_right_granted_to_others_only(stack, make_topic, unique_name):
    """How it happens: an ACL for another user on the output leaves the worker without a right on it."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    produce(stack.bootstrap_servers, settings.kafka.names.input, EVENTS)
    grant_others(stack, TRANSACTIONAL_ID, names_of(settings)["transactional id"])
    async with classifying(settings) as task:
        await asyncio.wait({task}, timeout=30)
        assert task.done()
    assert "a prefixed ACL" in said_of(task.exception())


async def test_the_slow_lane_without_a_right_ends(stack, make_topic, unique_name):
    """The lane of the LLM too: the answer that may not be written ends it, and its escalation is not committed."""
    fast = pipeline(stack, make_topic, unique_name, partitions=1)
    names = fast.kafka.names
    settings = escalated.settings(stack.bootstrap_servers, stack.llm_base_url, names.input)
    escalated.produce(stack.bootstrap_servers, names.escalations, escalated.texts(5), partitions=1)
    deny(stack, TOPIC, names.decisions, WRITE)
    async with escalate_lane(settings, Metrics()) as lane:
        task = asyncio.create_task(lane.run(asyncio.Event()))
        await asyncio.wait({task}, timeout=30)
        assert task.done()
    assert f"WRITE on topic {names.decisions!r}" in said_of(task.exception())
    assert committed_and_end(stack.bootstrap_servers, names.escalations, group_of(settings))[0][0] <= 0


@pytest.mark.parametrize(("kind", "what"), [(TOPIC, "out"), (GROUP, "group"), (TRANSACTIONAL_ID, "id")])
async def test_a_refused_transaction_leaves_nothing_unseen(stack, make_topic, unique_name, caplog, kind, what):
    """Every future that aiokafka fails with the refusal is looked at: no complaint comes after the end."""
    names = {"in": make_topic("in"), "out": make_topic("out"), "group": unique_name("group"), "id": unique_name("id")}
    connection = _connection(stack, names["in"])
    output = TransactionalOutput(lambda: connection.transactional_producer(names["id"]), names["group"], 10)
    await output.open()
    deny(stack, kind, names[what], READ if kind is GROUP else WRITE)
    with pytest.raises(DeliveryRefused, match=names[what]):
        await output.commit([Outgoing(names["out"], 0, b"k", b"v", ())], TopicPartition(names["in"], 0), 1, "")
    await output.close()
    del output
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_offsets_of_a_topic_one_may_not_read(stack, make_topic, unique_name):
    """Kafka refuses to commit offsets of a topic without READ on it, and aiokafka hides which: we name the source."""
    source, target, group = make_topic("in"), make_topic("out"), unique_name("group")
    connection = _connection(stack, source)
    output = TransactionalOutput(lambda: connection.transactional_producer(f"{group}:{source}:0"), group, 10)
    await output.open()
    deny(stack, TOPIC, source, READ)
    with pytest.raises(DeliveryRefused) as caught:
        await output.commit([Outgoing(target, 0, b"k", b"v", ())], TopicPartition(source, 0), 1, "")
    await output.close()
    assert f"READ on topic {source!r}" in said_of(caught.value)
    assert read_all(stack.bootstrap_servers, target) == []


async def test_idempotent_write_is_not_asked_of_transactions(stack, make_topic, unique_name):
    """IDEMPOTENT_WRITE on the cluster is for producers without a transactional id: a lane works without it."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    produce(stack.bootstrap_servers, settings.kafka.names.input, EVENTS)
    deny(stack, CLUSTER, "kafka-cluster", AclOperation.IDEMPOTENT_WRITE)
    async with classifying(settings) as task:
        await caught_up(settings, task)
    assert len(read_all(stack.bootstrap_servers, settings.kafka.names.decisions)) == 10


@pytest.mark.parametrize(
    ("operation", "to_grant"),
    [(DESCRIBE, "DESCRIBE on topic '{}'"), (AclOperation.DESCRIBE_CONFIGS, "DESCRIBE_CONFIGS on topic '{}'")],
)
async def test_a_topic_one_may_not_look_at(stack, make_topic, unique_name, operation, to_grant):
    """A hidden topic looks as if it did not exist, hidden settings as if they were the defaults: a start says what to
    grant, and does not go on with a guess."""
    settings = pipeline(stack, make_topic, unique_name, partitions=1)
    decisions = settings.kafka.names.decisions
    deny(stack, TOPIC, decisions, operation)
    with pytest.raises(StartError) as caught:
        async with classifying(settings):
            pass
    assert f"grant this worker's user {to_grant.format(decisions)}" in said_of(caught.value)


async def test_offsets_of_a_group_one_may_not_look_at(stack, make_topic, unique_name):
    """`shunt status` of a group without DESCRIBE on it ends at once and names the right."""
    source, group = make_topic("in"), unique_name("group")
    deny(stack, GROUP, f"{group}-classify", DESCRIBE)
    async with asyncio.timeout(15):
        with pytest.raises(StartError) as caught:
            await lane_lag(_connection(stack, source, group), "classify", source, 1)
    assert f"grant this user DESCRIBE on group '{group}-classify'" in said_of(caught.value)


def _connection(stack: Stack, source: str, group: str = "shunt") -> Connection:
    return Connection(
        Kafka.model_validate({"bootstrap_servers": stack.bootstrap_servers, "input_topic": source, "group": group})
    )
