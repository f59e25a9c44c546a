"""Which versions of a model Triton serves: another one is loaded beside the one that decides, and the old one let go.

Needs Triton's explicit model control. A model's versions share one configuration, so each version's weights are named
by a parameter of its own, `weights_sha256_<version>`, which Triton is given with the load.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2

from stream_app.classify.triton import TritonModels, weights_parameter
from stream_app.errors import ModelError, ModelUnavailable, StartError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_protocol: Final = cast("Any", service_pb2)
LOAD_WITHIN_S = 180.0
"""An encoder takes seconds to load, its first time on a cold disk more."""


class ModelControl(TritonModels):
    """A connection that may change what is served. `connect` it with `LOAD_WITHIN_S`."""

    async def served(self, model: str) -> frozenset[str]:
        """The model's versions that are ready; none where it is not loaded. StartError where Triton is away."""
        request = _protocol.ModelMetadataRequest(name=model)
        try:
            answer = await self._call(self._stub.ModelMetadata, request)
        except ModelUnavailable as error:
            if await self.ready():
                return frozenset()
            raise StartError(error.message, advice="start Triton, or correct [triton] url (the gRPC port)") from error
        return frozenset(answer.versions)

    async def add(self, model: str, weights: Mapping[str, str]) -> None:
        """Serves these versions too (version -> its weights' sha-256); those that are served are asked on meanwhile.

        Raises StartError where Triton cannot serve one.
        """
        served = await self.served(model)
        try:
            config = await self._config(model)
            parameters = config.setdefault("parameters", {})
            for version, sha256 in weights.items():
                parameters[weights_parameter(version)] = {"string_value": sha256}
            await self._load(model, config, served | set(weights))
            for version in weights:
                await self.describe(model, version)
        except ModelError as error:
            missing = sorted(set(weights) - served) or sorted(weights)
            raise StartError(
                f"Triton does not serve {model}, version {' and '.join(missing)}: {error.message}",
                advice="put the version's folder into its model repository; it needs explicit model control",
            ) from error

    async def let_go(self, model: str, versions: Collection[str]) -> None:
        """Serves these versions no more; nothing where no other is served. Raises StartError where Triton refuses."""
        left = await self.served(model) - set(versions)
        if not left or not versions:
            return
        try:
            await self._load(model, await self._config(model), left)
        except ModelError as error:
            raise StartError(f"Triton does not let {model} go: {error.message}") from error

    async def _load(self, model: str, config: dict[str, Any], versions: Collection[str]) -> None:
        config["version_policy"] = {"specific": {"versions": sorted(map(int, versions))}}
        request = _protocol.RepositoryModelLoadRequest(model_name=model)
        request.parameters["config"].string_param = json.dumps(config)
        await self._call(self._stub.RepositoryModelLoad, request)

    async def _config(self, model: str) -> dict[str, Any]:
        """The model's configuration as it is served; one that is not loaded is loaded as its own file says."""
        request = _protocol.ModelConfigRequest(name=model)
        try:
            answer = await self._call(self._stub.ModelConfig, request)
        except ModelUnavailable:
            await self._call(self._stub.RepositoryModelLoad, _protocol.RepositoryModelLoadRequest(model_name=model))
            answer = await self._call(self._stub.ModelConfig, request)
        return MessageToDict(answer.config, preserving_proto_field_name=True)
