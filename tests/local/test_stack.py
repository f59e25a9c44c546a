"""The embedded stack serves real clients, and its servers come back where they were after a stop or a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_app.local.console import GET_OFFSETS, ConsoleRecord, ToolError, consume_all, end_offsets, run_tool
from stream_app.local.kafka_server import Node, server_properties

if TYPE_CHECKING:
    from pathlib import Path

    from stream_app.local.stack import Stack


async def test_kafka_takes_transactions(stack: Stack, topic: str) -> None:
    """A read_committed reader sees what a transaction committed and nothing of one that was aborted."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, transactional_id=f"{topic}-t")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, b"kept")
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"aborted")
    await producer.abort_transaction()
    async with producer.transaction():
        await producer.send_and_wait(topic, b"kept too")
    await producer.stop()
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=stack.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    async with consumer:
        values = {(await consumer.getone()).value for _ in range(2)}
    assert values == {b"kept", b"kept too"}


def test_triton_answers_in_the_contract_of_models(stack: Stack) -> None:
    """The echo model takes TEXT and gives PROBABILITIES (rows that sum to one), KNOWN_SHARE and its labels."""
    client = triton.InferenceServerClient(stack.triton_grpc)
    texts = triton.InferInput("TEXT", [3, 1], "BYTES")
    texts.set_data_from_numpy(np.array([[b"good"], ["schlecht ✗".encode()], [b""]], dtype=object))
    answer = client.infer("echo", [texts])
    assert np.allclose(answer.as_numpy("PROBABILITIES").sum(axis=1), 1)
    assert answer.as_numpy("KNOWN_SHARE").tolist() == [[1.0]] * 3
    config = client.get_model_config("echo").config
    assert config.output[0].label_filename == "labels.txt"
    assert len(config.parameters["weights_sha256"].string_value) == 64


async def test_triton_comes_back(stack: Stack) -> None:
    """A stopped or killed Triton refuses its clients; started again it serves at the same address."""
    address = stack.triton_grpc
    for end in (stack.stop_triton, stack.kill_triton):
        await end()
        with pytest.raises(triton.InferenceServerException):
            triton.InferenceServerClient(address).is_server_ready()
        assert stack.ended() == ["Triton"]
        await stack.start_triton()
        assert stack.triton_grpc == address
        assert triton.InferenceServerClient(address).is_model_ready("echo")


async def test_kafka_keeps_records_over_a_kill(stack: Stack, topic: str) -> None:
    """What was acknowledged before kill -9 of the broker is read after its restart."""
    async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers) as producer:
        for n in range(10):
            await producer.send_and_wait(topic, b"%d" % n, key=b"k")
    await stack.kill_kafka()
    await stack.start_kafka()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        assert [(await consumer.getone()).value for _ in range(10)] == [b"%d" % n for n in range(10)]


async def test_kafkas_own_tools_agree(stack: Stack, topic: str) -> None:
    """The console consumer reads committed records only; GetOffsetShell counts offsets, markers included."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, transactional_id=f"{topic}-t")
    async with producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b'{"a": 1}', partition=1, headers=[("shunt-source", b"r/0/7")])
            await producer.send_and_wait(topic, None, key=b"gone", partition=1)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=1)
        await producer.abort_transaction()
    assert await consume_all(stack.bootstrap_servers, topic) == [
        ConsoleRecord(1, 0, "shunt-source:r/0/7", "null", '{"a": 1}'),
        ConsoleRecord(1, 1, "NO_HEADERS", "gone", "null"),
    ]
    assert await end_offsets(stack.bootstrap_servers, topic) == {0: 0, 1: 5, 2: 0}
    with pytest.raises(ToolError, match="failed"):
        await run_tool(GET_OFFSETS, "--no-such-flag")


def test_cluster_settings_fit_the_number_of_brokers(tmp_path: Path) -> None:
    """One broker keeps one copy of everything, three keep three and need two; all know the same voters."""
    nodes = [Node(n, 9090 + n, 9190 + n) for n in (1, 2, 3)]
    single = server_properties(nodes[0], nodes[:1], tmp_path)
    assert "transaction.state.log.replication.factor=1\n" in single
    for node in nodes:
        settings = server_properties(node, nodes, tmp_path)
        assert "offsets.topic.replication.factor=3\n" in settings
        assert "min.insync.replicas=2\n" in settings
        assert "voters=1@127.0.0.1:9191,2@127.0.0.1:9192,3@127.0.0.1:9193\n" in settings
        assert "0.0.0.0" not in settings
