"""The embedded stack serves real clients, survives restarts of its servers, and keeps to its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tritonclient.grpc as triton
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

if TYPE_CHECKING:
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
