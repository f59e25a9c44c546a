"""The small models, asked over Triton's gRPC: texts in, probabilities out, every call bounded.

The requests are built on Triton's own protocol messages rather than through `tritonclient`'s `InferInput`, whose
way to BYTES goes through an object array: this takes half the CPU, about 0.5 us a text of 200 bytes at 1,024 a
request.
"""

import struct
from asyncio import Semaphore, TaskGroup
from collections.abc import Sequence
from typing import Any, Final, Self, cast

import numpy as np
from google.protobuf.json_format import MessageToDict
from grpc import RpcError, StatusCode, aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from stream_app.errors import ModelRefused, ModelUnavailable, StartError
from stream_app.routing.models import FloatArray, Scores, ServedModel

_protocol: Final = cast("Any", service_pb2)  # generated code without types
_TEXT, _PROBABILITIES, _KNOWN_SHARE = "TEXT", "PROBABILITIES", "KNOWN_SHARE"
_LENGTH: Final = struct.Struct("<I").pack

_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own back-off grows to two minutes; a Triton that was restarted is to be used at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

WEIGHTS = "weights_sha256"
SMALL_BATCH_RECORDS = 256
IN_FLIGHT_MAX, IN_FLIGHT_MAX_SMALL = 4, 2
"""Requests to one model at a time. Four keep a fast model busy (two reach 93 % of its speed); a model that takes
small batches takes long for each, and a request that waits in Triton's queue waits on its own time limit."""

_REFUSALS: Final = frozenset(
    {StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL, StatusCode.RESOURCE_EXHAUSTED, StatusCode.OUT_OF_RANGE}
)
"""Only what these say can be the batch's own fault; whatever else goes wrong is tried again, since a wrong
guess here would dead-letter good records. RESOURCE_EXHAUSTED is gRPC's word for a message too large."""

_PASSING: Final = ("stub process", "rst_stream", "goaway", "shared memory", "connection")
"""What INTERNAL says when the model's process or the connection died under the call."""


class TritonModels:
    """One connection to a Triton server. Use as an async context manager, or call `close`."""

    def __init__(self, channel: aio.Channel, url: str, timeout_s: float) -> None:
        self._channel = channel
        self._stub = cast("Any", service_pb2_grpc.GRPCInferenceServiceStub(channel))
        self._url = url
        self._timeout_s = timeout_s
        self._turns = dict[ServedModel, Semaphore]()

    @classmethod
    def connect(cls, url: str, timeout_s: float) -> Self:
        """A client for the gRPC address `url`; `timeout_s` bounds every call. Connects with the first call."""
        return cls(aio.insecure_channel(url, options=_CHANNEL_OPTIONS), url, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls in flight fail with ModelUnavailable."""
        await self._channel.close()

    async def ready(self) -> bool:
        """Whether Triton answers and says it is ready. Never raises for a server that is away."""
        try:
            answer = await self._call(self._stub.ServerReady, _protocol.ServerReadyRequest())
        except (ModelUnavailable, ModelRefused):
            return False
        return bool(answer.ready)

    async def describe(self, model: str, version: str = "") -> ServedModel:
        """The model as served: its newest ready version unless one is named.

        Raises ModelUnavailable (Triton away, model not loaded) and StartError (the model does not have the
        inputs and outputs Shunt asks for, or says nothing of its weights or labels).
        """
        metadata = await self._call(
            self._stub.ModelMetadata, _protocol.ModelMetadataRequest(name=model, version=version)
        )
        newest = version or max(metadata.versions, key=int, default="1")
        answer = await self._call(self._stub.ModelConfig, _protocol.ModelConfigRequest(name=model, version=newest))
        config = MessageToDict(answer.config, preserving_proto_field_name=True)
        check_shape(model, config)
        parameters = config.get("parameters", {})
        own = parameters.get(weights_parameter(newest)) or parameters.get(WEIGHTS, {})
        sha256 = own.get("string_value", "")
        if not sha256:
            raise StartError(
                f"model {model} does not name its weights",
                advice="its config.pbtxt needs the parameter weights_sha256",
            )
        return ServedModel(
            name=model,
            version=newest,
            labels=await self._labels(model, newest, _label_count(config)),
            weights_sha256=sha256,
            batch_records_max=int(config["max_batch_size"]),
            kind=parameters.get("kind", {}).get("string_value", "one_of"),
        )

    async def infer(self, model: ServedModel, texts: Sequence[str | bytes]) -> Scores:
        """The model's scores for the texts, in order: one request, or several past the model's batch size.

        Waits for its turn where more of a model is asked at once than Triton can work on; only the time from then
        on is bounded. Raises ModelUnavailable (try the same again later) or ModelRefused (these texts fail for good).
        """
        if not texts:
            return Scores(np.empty((0, len(model.labels)), np.float32), np.empty(0, np.float32))
        step = model.batch_records_max
        if len(texts) <= step:
            return await self._infer(model, texts)
        try:
            async with TaskGroup() as group:
                asked = [
                    group.create_task(self._infer(model, texts[at : at + step])) for at in range(0, len(texts), step)
                ]
        except ExceptionGroup as failed:
            # All of one call fail alike or for one batch: the first says it, the others were cancelled with it.
            raise failed.exceptions[0] from failed
        parts = [task.result() for task in asked]
        return Scores(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.known_share for part in parts]),
        )

    async def _infer(self, model: ServedModel, texts: Sequence[str | bytes]) -> Scores:
        request = _request(model.name, model.version, texts)
        async with self._turn(model):
            answer = await self._call(self._stub.ModelInfer, request)
        outputs = {
            output.name: (output, content)
            for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
        probabilities = _floats(*outputs[_PROBABILITIES])
        known_share = _floats(*outputs[_KNOWN_SHARE])
        if probabilities.size != len(texts) * len(model.labels) or known_share.size != len(texts):
            raise ModelRefused(f"model {model.ref} answered {len(texts)} texts with another number of rows or labels")
        scores = Scores(probabilities.reshape(len(texts), -1), known_share)
        # One NaN or infinity anywhere makes the sum so, and the sum costs a tenth of looking at each.
        if not np.isfinite(scores.probabilities.sum() + scores.known_share.sum()):
            raise ModelRefused(f"model {model.ref} answered with a number that is not finite")
        return scores

    def _turn(self, model: ServedModel) -> Semaphore:
        if model not in self._turns:
            small = model.batch_records_max < SMALL_BATCH_RECORDS
            self._turns[model] = Semaphore(IN_FLIGHT_MAX_SMALL if small else IN_FLIGHT_MAX)
        return self._turns[model]

    async def _labels(self, model: str, version: str, count: int) -> tuple[str, ...]:
        """The label file's lines, which Triton tells only through its classification extension."""
        request = _request(model, version, [b"label"])
        output = request.outputs.add(name=_PROBABILITIES)
        output.parameters["classification"].int64_param = count
        answer = await self._call(self._stub.ModelInfer, request)
        by_index = dict[int, str]()
        for entry in _strings(answer.raw_output_contents[0]):
            _, index, *label = entry.split(":", 2)
            if label:
                by_index[int(index)] = label[0]
        if len(by_index) != count:
            raise StartError(
                f"model {model} does not name its labels",
                advice="its config.pbtxt needs a label_filename on PROBABILITIES, one line a label",
            )
        return tuple(by_index[index] for index in range(count))

    async def _call(self, method: Any, request: Any) -> Any:
        """One bounded call, its errors translated: the only place that knows gRPC's."""
        try:
            return await method(request, timeout=self._timeout_s)
        except RpcError as error:
            failed = cast("aio.AioRpcError", error)
            code, details = failed.code(), failed.details() or "no details"
            message = f"Triton at {self._url}: {code.name.lower()}: {details}"
            passing = code is StatusCode.INTERNAL and any(word in details.lower() for word in _PASSING)
            if code in _REFUSALS and not passing:
                raise ModelRefused(message) from error
            raise ModelUnavailable(message, advice="is it running, and is the model loaded?") from error
        except aio.UsageError as error:  # the channel was closed while the call was being made
            raise ModelUnavailable(f"Triton at {self._url}: the connection is closed") from error


def weights_parameter(version: str) -> str:
    """The parameter that names the weights of one version, where a model has several."""
    return f"{WEIGHTS}_{version}"


def _request(model: str, version: str, texts: Sequence[str | bytes]) -> Any:
    """A ModelInferRequest: TEXT [N, 1], each text's UTF-8 bytes behind its length (4 bytes, little endian)."""
    request = _protocol.ModelInferRequest(model_name=model, model_version=version)
    tensor = request.inputs.add(name=_TEXT, datatype="BYTES")
    tensor.shape.extend((len(texts), 1))
    raw = [text if isinstance(text, bytes) else _utf8(text) for text in texts]
    parts = [b""] * (2 * len(raw))
    parts[::2] = map(_LENGTH, map(len, raw))
    parts[1::2] = raw
    request.raw_input_contents.append(b"".join(parts))
    return request


def _utf8(text: str) -> bytes:
    """The text's bytes. Half a surrogate pair (JSON may escape one) has no UTF-8: a question mark stands there."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _floats(output: Any, content: bytes) -> FloatArray:
    if output.datatype != "FP32":
        raise ModelRefused(f"output {output.name} is {output.datatype}, not FP32")
    return np.frombuffer(content, dtype="<f4")


def _strings(content: bytes) -> list[str]:
    """The texts of a BYTES tensor's raw content."""
    found, at = list[str](), 0
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        found.append(content[at + 4 : end].decode("utf-8", "replace"))
        at = end
    return found


def _label_count(config: dict[str, Any]) -> int:
    by_name = {output["name"]: output for output in config["output"]}
    return int(by_name[_PROBABILITIES]["dims"][-1])


def check_shape(model: str, config: dict[str, Any]) -> None:
    """Raise StartError where the model is not of the kind Shunt asks: the contract of `triton_models/`."""
    inputs = {item["name"]: item["data_type"] for item in config.get("input", [])}
    outputs = {item["name"]: item["data_type"] for item in config.get("output", [])}
    wanted = {_PROBABILITIES: "TYPE_FP32", _KNOWN_SHARE: "TYPE_FP32"}
    if inputs != {_TEXT: "TYPE_STRING"} or any(outputs.get(name) != kind for name, kind in wanted.items()):
        raise StartError(
            f"model {model} does not take TEXT (TYPE_STRING) and give PROBABILITIES and KNOWN_SHARE (TYPE_FP32)",
            advice="see docs/deciding.md",
        )
    if int(config.get("max_batch_size", 0)) < 1:
        raise StartError(f"model {model} takes no batches", advice="set max_batch_size in its config.pbtxt")
