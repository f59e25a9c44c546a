"""A fine-tuned MiniLM as ONNX, with its tokeniser and how texts are cut: what the served code reads.

int8 is for processors, and small. Graphics cards scale int8 activations on the processor, layer by layer: half
precision is for them.
"""

import importlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stream_app.training.minilm import (
    FIRST_TOKEN,
    HEAD_TOKENS,
    LAST_TOKEN,
    TAIL_TOKENS,
    Precision,
    Recipe,
    encoder_folder,
    network,
    padded,
    pooled_logits,
)

WINDOWS: dict[str, float] = {
    "head_tokens": HEAD_TOKENS,
    "tail_tokens": TAIL_TOKENS,
    "window_tokens": 254,
    "windows_max": 8,
    "characters_max": 40_000,
    "temperature": 1.0,
    "first_token": FIRST_TOKEN,
    "last_token": LAST_TOKEN,
}
"""How a text is cut when the model is served; its `scoring.py` says what each is for."""

INT8_MAX = 127

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""


def export(checkpoint: Path, label_count: int, version: Path, recipe: Recipe, progress: Progress) -> str:
    """Write the checkpoint as ONNX with its tokeniser into `version`; the sha-256 of it all."""
    torch: Any = importlib.import_module("torch")
    encoder, head = network(torch, label_count, recipe)
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    encoder.load_state_dict(state["encoder"])
    head.load_state_dict(state["head"])
    return write_served(torch, encoder, head, version, recipe.precision, progress)


def write_served(torch: Any, encoder: Any, head: Any, version: Path, precision: Precision, progress: Progress) -> str:
    """Write the network as ONNX with its tokeniser into `version`; the sha-256 of it all.

    With `int8` weights have a step for each output of a layer and for each word piece: one step for all, which the
    largest weight decides, costs accuracy and saves no time. Activations are quantised as they come (ONNX Runtime's
    dynamic quantisation). The head is a thousand weights, and stays as it is. With `fp16` all is half precision but
    the logits.
    """
    scoring: Any = importlib.import_module("stream_app.training.templates.minilm.scoring")
    progress("exporting", 0.0)
    plain = version / "plain.onnx"
    _export_plain(torch, encoder.eval(), head.eval(), plain)
    progress("rounding", 0.5)
    if precision == "fp16":
        _halve(plain, version / "model.onnx")
    else:
        _quantise(plain, version / "model.onnx")
    plain.unlink()
    shutil.copyfile(encoder_folder() / "tokenizer.json", version / "tokenizer.json")
    (version / "windows.json").write_text(json.dumps(WINDOWS, indent=1) + "\n")
    return str(scoring.weights_sha256(version))


def _halve(plain: Path, written: Path) -> None:
    onnx: Any = importlib.import_module("onnx")
    float16: Any = importlib.import_module("onnxruntime.transformers.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(plain), keep_io_types=True), written)


def _quantise(plain: Path, written: Path) -> None:
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    layers = plain.with_name("layers.onnx")
    quantization.quantize_dynamic(
        plain, layers, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=quantization.QuantType.QInt8
    )
    quantise_tables(layers, written)
    layers.unlink()


def quantise_tables(given: Path, written: Path) -> None:
    """Write an ONNX file with every float table that is only looked up in (`Gather`) as int8, a step for each row."""
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(given)
    graph = model.graph
    tables = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    nodes = list[Any]()
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2 or table.dtype != np.float32:
            nodes.append(node)
            continue
        name, looked_up, found = node.input[0], node.input[1], node.output[0]
        steps = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / INT8_MAX
        rounded = np.rint(table / steps).astype(np.int8)
        graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(rounded, f"{name}_quantized"),
                onnx.numpy_helper.from_array(steps.astype(np.float32), f"{name}_scale"),
            ]
        )
        make = onnx.helper.make_node
        nodes += [
            make("Gather", [f"{name}_quantized", looked_up], [f"{found}_int8"]),
            make("Gather", [f"{name}_scale", looked_up], [f"{found}_step"]),
            make("Cast", [f"{found}_int8"], [f"{found}_whole"], to=onnx.TensorProto.FLOAT),
            make("Mul", [f"{found}_whole", f"{found}_step"], [found]),
        ]
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, written)


def _export_plain(torch: Any, encoder: Any, head: Any, path: Path) -> None:
    class Classifier(torch.nn.Module):
        """The network as one module, which is what the exporter takes."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = encoder, head

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return pooled_logits(self.encoder, self.head, input_ids, attention_mask)

    ids, mask = padded(torch, [[2023, 2003], [1037]])
    rows_and_width = {0: "rows", 1: "width"}
    with warnings.catch_warnings():  # the tracer's, of constants that are none: lengths and padding are tested
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Classifier().eval(),
            (ids, mask),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": rows_and_width, "attention_mask": rows_and_width, "logits": {0: "rows"}},
            opset_version=17,
            dynamo=False,  # the tracing exporter keeps both axes dynamic and makes the smaller graph
        )
