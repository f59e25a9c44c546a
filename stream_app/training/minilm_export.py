"""A fine-tuned MiniLM as int8 ONNX, with its tokeniser and how texts are cut: what the served code reads."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stream_app.training.minilm import (
    FIRST_TOKEN,
    HEAD_TOKENS,
    LAST_TOKEN,
    TAIL_TOKENS,
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

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""


def export(checkpoint: Path, label_count: int, version: Path, recipe: Recipe, progress: Progress) -> str:
    """Write the checkpoint as int8 ONNX with its tokeniser into `version`; the sha-256 of it all.

    Weights are int8, activations are quantised as they come (ONNX Runtime's dynamic quantisation).
    """
    torch: Any = importlib.import_module("torch")
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    scoring: Any = importlib.import_module("stream_app.training.templates.minilm.scoring")
    progress("exporting", 0.0)
    encoder, head = network(torch, label_count, recipe)
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    encoder.load_state_dict(state["encoder"])
    head.load_state_dict(state["head"])
    plain = version / "plain.onnx"
    _export_plain(torch, encoder.eval(), head.eval(), plain)
    progress("quantising", 0.5)
    quantization.quantize_dynamic(plain, version / "model.onnx", weight_type=quantization.QuantType.QInt8)
    plain.unlink()
    shutil.copyfile(encoder_folder() / "tokenizer.json", version / "tokenizer.json")
    (version / "windows.json").write_text(json.dumps(WINDOWS, indent=1) + "\n")
    return str(scoring.weights_sha256(version))


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
