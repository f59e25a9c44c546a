"""The Triton client against the real Triton."""

import asyncio
import dataclasses
import socket
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from grpc import StatusCode, aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from stream_app.classify.triton import TritonModels, check_shape
from stream_app.errors import ModelRefused, ModelUnavailable, StartError
from stream_app.routing.models import ServedModel


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


class Saying(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A gRPC server that answers every inference with one status, or with these numbers for one text."""

    def __init__(self, code=None, details="", probabilities=(0.5, 0.5)):
        self.code, self.details, self.probabilities = code, details, probabilities

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        if self.code is not None:
            await context.abort(self.code, self.details)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, numbers in (("KNOWN_SHARE", (1.0,)), ("PROBABILITIES", self.probabilities)):
            answer.outputs.add(name=name, datatype="FP32", shape=[1, len(numbers)])
            answer.raw_output_contents.append(np.float32(numbers).tobytes())
        return answer


@asynccontextmanager
async def saying(servicer, timeout_s=5):
    """A client of a server with that servicer."""
    server = aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with TritonModels.connect(f"127.0.0.1:{port}", timeout_s) as models:
        yield models
    await server.stop(None)


class Slow(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A model of 16 texts a batch that works on one batch at a time, 0.3 s each, and counts who waits."""

    def __init__(self):
        self.waiting = self.waiting_max = 0
        self.busy = asyncio.Lock()

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        async with self.busy:
            await asyncio.sleep(0.3)
        self.waiting -= 1
        count = request.inputs[0].shape[0]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, numbers in (("KNOWN_SHARE", [1.0]), ("PROBABILITIES", [0.5, 0.5])):
            answer.outputs.add(name=name, datatype="FP32", shape=[count, len(numbers)])
            answer.raw_output_contents.append(np.float32(numbers * count).tobytes())
        return answer


MODEL = ServedModel("any", "1", ("no", "yes"), "0" * 64, 16)


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (StatusCode.INVALID_ARGUMENT, "unexpected shape", ModelRefused),
        (StatusCode.INTERNAL, "ValueError in the model's execute", ModelRefused),
        (StatusCode.RESOURCE_EXHAUSTED, "message larger than max", ModelRefused),
        (StatusCode.INTERNAL, "Stub process 'any_0_0' is not healthy", ModelUnavailable),
        (StatusCode.UNAVAILABLE, "model is not ready", ModelUnavailable),
        (StatusCode.NOT_FOUND, "unknown model", ModelUnavailable),
        (StatusCode.UNKNOWN, "stream removed", ModelUnavailable),
        (StatusCode.UNIMPLEMENTED, "not a Triton at all", ModelUnavailable),
    ],
)
async def test_only_the_batchs_own_fault_refuses_it(code, details, error):
    """What may be the texts' fault is a refusal; all else is tried again, and never dead-letters a record."""
    async with saying(Saying(code, details)) as models:
        with pytest.raises(error, match=details):
            await models.infer(MODEL, ["text"])


@pytest.mark.parametrize("number", [np.nan, np.inf])
async def test_a_number_that_is_not_finite_is_refused(number):
    """NaN from a model never becomes a decision."""
    async with saying(Saying(probabilities=(number, 0.5))) as models:
        with pytest.raises(ModelRefused, match="not finite"):
            await models.infer(MODEL, ["text"])


async def test_waiting_for_a_slow_model_costs_no_call_its_time():
    """More texts than a model answers within the time limit are all answered: each call has the limit to itself.

    Else a batch that is too large for one limit would time out, be tried again, and time out for ever.
    """
    slow = Slow()
    async with saying(slow, timeout_s=1.5) as models:
        both = await asyncio.gather(*(models.infer(MODEL, ["text"] * 64) for _ in range(2)))
    assert [len(scores.known_share) for scores in both] == [64, 64]
    assert slow.waiting_max == 2


async def test_outputs_are_taken_by_name():
    """The order in which a server lists its outputs does not matter."""
    async with saying(Saying(probabilities=(0.25, 0.75))) as models:
        scores = await models.infer(MODEL, ["text"])
        assert scores.probabilities.tolist() == [[0.25, 0.75]]
        assert scores.known_share.tolist() == [1.0]


GOOD = {
    "max_batch_size": 8,
    "input": [{"name": "TEXT", "data_type": "TYPE_STRING"}],
    "output": [
        {"name": "PROBABILITIES", "data_type": "TYPE_FP32"},
        {"name": "KNOWN_SHARE", "data_type": "TYPE_FP32"},
    ],
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"input": [{"name": "INPUT_IDS", "data_type": "TYPE_INT64"}]}, "does not take TEXT"),
        ({"output": [{"name": "PROBABILITIES", "data_type": "TYPE_FP32"}]}, "KNOWN_SHARE"),
        ({"max_batch_size": 0}, "takes no batches"),
    ],
)
def test_a_model_of_another_kind_is_refused_at_the_start(change, complaint):
    """A model that cannot be asked as Shunt asks is told before anything is consumed."""
    check_shape("any", GOOD)
    with pytest.raises(StartError, match=complaint):
        check_shape("any", GOOD | change)
