"""The Triton client against the real Triton."""

import asyncio
import dataclasses
import socket
import time

import numpy as np
import pytest

from stream_app.classify.triton import TritonModels
from stream_app.errors import ModelRefused, ModelUnavailable


@pytest.fixture
async def models(stack):
    async with TritonModels.connect(stack.triton_grpc, timeout_s=10) as connected:
        yield connected


async def test_a_model_says_what_it_is(models):
    """Version, labels in order, weights and batch size come from Triton, not from a file of ours."""
    echo = await models.describe("echo")
    assert (echo.name, echo.version, echo.labels) == ("echo", "1", ("negative", "positive"))
    assert len(echo.weights_sha256) == 64
    assert echo.batch_records_max == 4096
    assert echo.ref == "echo:1"
    assert await models.ready()


async def test_scores_come_back_in_order_and_shape(models):
    """Str and bytes, empty and long, any script: one row of probabilities and one known share each."""
    echo = await models.describe("echo")
    texts = ["", "short", "déjà vu \ud800", "x" * 100_000, b"raw bytes \xff", "多字节"]
    scores = await models.infer(echo, texts)
    assert scores.probabilities.shape == (6, 2)
    assert scores.probabilities.dtype == np.float32
    assert scores.probabilities.sum(axis=1) == pytest.approx(np.ones(6))
    assert scores.known_share.shape == (6,)


async def test_more_texts_than_a_batch_holds(models):
    """A request past the model's batch size is cut and put together again; an empty one is not refused."""
    echo = await models.describe("echo")
    small = dataclasses.replace(echo, batch_records_max=100)
    scores = await models.infer(small, ["text"] * 250)
    assert scores.probabilities.shape == (250, 2)
    assert scores.known_share.shape == (250,)
    none = await models.infer(echo, [])
    assert none.probabilities.shape == (0, 2)


async def test_a_version_that_is_gone_pauses(models):
    """The request names its version: another one is never asked in its place, and the error is retriable."""
    echo = await models.describe("echo")
    for gone in (dataclasses.replace(echo, version="7"), dataclasses.replace(echo, name="nosuch")):
        with pytest.raises(ModelUnavailable) as refused:
            await models.infer(gone, ["text"])
        assert refused.value.retriable
    with pytest.raises(ModelUnavailable):
        await models.describe("nosuch")


async def test_what_can_never_work_is_refused(models):
    """More rows than the batch allows fail for good, so that the batch is bisected and not tried for ever."""
    echo = await models.describe("echo")
    with pytest.raises(ModelRefused):
        await models.infer(dataclasses.replace(echo, batch_records_max=100_000), ["text"] * 5000)


async def test_another_number_of_labels_is_refused(models):
    """An answer that does not fit the labels is never cut to fit."""
    echo = await models.describe("echo")
    with pytest.raises(ModelRefused, match="another number"):
        await models.infer(dataclasses.replace(echo, labels=("a", "b", "c")), ["text"] * 4)


async def test_triton_away_is_retriable_and_quick():
    """A closed port is told at once as something to try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with TritonModels.connect(f"127.0.0.1:{port}", timeout_s=3) as away:
        assert not await away.ready()
        with pytest.raises(ModelUnavailable):
            await away.describe("echo")


async def test_a_server_that_never_answers_is_left_in_time():
    """No call is unbounded: a port that accepts and stays silent costs `timeout_s` and no more."""
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(30), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with TritonModels.connect(f"127.0.0.1:{port}", timeout_s=0.5) as mute:
        started = time.monotonic()
        with pytest.raises(ModelUnavailable):
            await mute.describe("echo")
        assert time.monotonic() - started < 3
    silent.close()


async def test_a_closed_connection_is_no_crash(stack):
    """A call after `close` is a ModelUnavailable, as a lane that is ending expects."""
    models = TritonModels.connect(stack.triton_grpc, timeout_s=5)
    echo = await models.describe("echo")
    await models.close()
    with pytest.raises(ModelUnavailable):
        await models.infer(echo, ["text"])
