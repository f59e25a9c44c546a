"""A served MiniLM as the weights that fine-tuning goes on from: its rounded numbers become what they stand for."""

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import SettingsError

HALF_A_STEP = 0.5 + 1e-3
"""How far rounding moves a weight at the most, in steps; and a little for the arithmetic."""

_LAYER = re.compile(r"/(?:Gemm_)?MatMul(?:_quant)?$")


@dataclass(frozen=True, slots=True)
class _Stored:
    """One tensor of a model file; `step` is that of its rounding, one, by row or by number, 0 where it was kept."""

    values: NDArray[np.float32]
    step: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))


def go_on_from(version: Path, torch: Any, encoder: Any, head: Any) -> None:
    """Give the network the weights of a version that `minilm_export.write_served` wrote.

    What was never trained is taken from the packaged encoder, exactly: its weights are all within half a step of the
    file's. Raises SettingsError for a file that holds other weights than this network has.
    """
    stored = _stored(version / "model.onnx")
    for prefix, module in (("encoder", encoder), ("head", head)):
        state = module.state_dict()
        for name, before in state.items():
            found = stored.pop(f"{prefix}.{name}", None)
            if found is None or _is_packaged(before.numpy(), found):
                continue
            if before.shape != found.values.shape:
                raise _foreign(version, f"{prefix}.{name}")
            state[name] = torch.tensor(found.values)
        module.load_state_dict(state)
    if stored:
        raise _foreign(version, min(stored))


def _is_packaged(packaged: NDArray[np.float32], found: _Stored) -> bool:
    if packaged.shape != found.values.shape:
        return False
    return bool((np.abs(packaged - found.values) <= found.step * HALF_A_STEP).all())


def _foreign(version: Path, name: str) -> SettingsError:
    return SettingsError(
        f"{version} is no minilm that can be gone on from ({name})", advice="name one of shunt train's"
    )


def _stored(file: Path) -> dict[str, _Stored]:
    """All weights of the file by their names in the network, matrices as torch's linear layers have them."""
    onnx: Any = importlib.import_module("onnx")
    graph = onnx.load(file).graph
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    found = dict[str, _Stored]()
    for node in graph.node:
        if node.op_type not in {"MatMulInteger", "MatMul"} or node.input[1] not in tensors:
            continue
        layer = _LAYER.sub("", node.name).strip("/").replace("/", ".")
        if node.op_type == "MatMulInteger":
            whole = _unpacked(tensors, node.input[1].removesuffix("_quantized"))
            step = whole.step.reshape(-1, 1)  # one, or one for each of the layer's outputs
            found[f"{layer}.weight"] = _Stored(np.ascontiguousarray(whole.values.T), step)
        else:
            found[f"{layer}.weight"] = _halved(np.ascontiguousarray(tensors[node.input[1]].T))
    for name, values in tensors.items():
        if name.startswith(("encoder.", "head.")) and values.dtype == np.float16:
            found[name] = _halved(values)
        elif name.startswith(("encoder.", "head.")) and values.dtype == np.float32 and not name.endswith("_scale"):
            found[name] = _Stored(values)
        elif name.startswith("encoder.") and name.endswith("_quantized"):
            plain = name.removesuffix("_quantized")
            found[plain] = _unpacked(tensors, plain)
    return found


def _halved(values: NDArray[Any]) -> _Stored:
    """The converter raises what is smaller than half precision's least number to it: off by that, and no less."""
    step = np.spacing(np.abs(values.astype(np.float16))).astype(np.float32)
    return _Stored(
        values.astype(np.float32), np.maximum(step, 2 * np.float32(np.finfo(np.float16).smallest_subnormal))
    )


def _unpacked(tensors: dict[str, NDArray[Any]], name: str) -> _Stored:
    scale = tensors[f"{name}_scale"].astype(np.float32)
    zero = tensors.get(f"{name}_zero_point", np.zeros(1)).astype(np.float32)
    return _Stored((tensors[f"{name}_quantized"].astype(np.float32) - zero) * scale, scale)
