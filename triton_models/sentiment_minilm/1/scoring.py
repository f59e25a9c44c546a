"""From the bytes of texts to label probabilities with a small encoder in ONNX Runtime.

This file is copied into every minilm model's folder and stands alone: numpy, tokenizers and
onnxruntime (or onnxruntime-gpu, then CUDA is used) are all it needs. A text longer
than one window is read as several: its head with its tail, as the encoder was trained to, and the
windows between; their log-odds are averaged by their number of tokens. On a CPU every window runs
alone: its int8 activations are scaled per run, so that padding and company would change its answer,
and one core is no faster with many (measured: slower from 64 tokens on). On a GPU windows of like
length run together.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

GPU_BATCH_TOKENS = 4096
"""Tokens, padding included, in one run of the encoder on a GPU."""


class WeightsMismatchError(RuntimeError):
    """The weights beside the code are not the ones the model's config names."""


class Scorer:
    """A fine-tuned encoder: texts in, label probabilities and known shares out."""

    FILES = ("model.onnx", "tokenizer.json", "windows.json")

    def __init__(self, folder: Path, sha256: str, settings: dict[str, str] | None = None) -> None:
        """Load the encoder in `folder`, raising WeightsMismatchError unless the files' sha-256 is `sha256`.

        `settings` may give `threads` (1 unless set), and `kind`: any_of for independent probabilities. CUDA is used
        where the installed ONNX Runtime has it.
        """
        found = weights_sha256(folder)
        if found != sha256:
            raise WeightsMismatchError(f"{folder} has sha-256 {found}, the config names {sha256}")
        settings = settings or {}
        self._any_of = settings.get("kind") == "any_of"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings.get("threads", "1"))
        options.inter_op_num_threads = 1
        on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        self._batch_tokens = GPU_BATCH_TOKENS if on_gpu else 0
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx",
            options,
            providers=["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"],
        )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        windows = json.loads((folder / "windows.json").read_text())
        self._head, self._tail = windows["head_tokens"], windows["tail_tokens"]
        self._window, self._windows_max = windows["window_tokens"], windows["windows_max"]
        self._characters_max = windows["characters_max"]
        self._temperature = windows["temperature"]
        self._ends = windows["first_token"], windows["last_token"]
        self.answer([b"ready"])

    def answer(self, texts: list[bytes]) -> tuple[Any, Any]:
        """Probabilities [texts, labels] and known shares [texts], float32; any bytes will do.

        The known share is 1: word pieces cover every text, so the encoder cannot say what it knows.
        """
        log_odds = self.log_odds(texts)
        known = np.ones(len(texts), np.float32)
        if self._any_of:
            return ((1 + np.tanh(log_odds / 2)) / 2).astype(np.float32), known
        odds = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
        probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return probabilities, known

    def log_odds(self, texts: list[bytes]) -> Any:
        """Unnormalised log-probabilities, [texts, labels]."""
        clipped = [self._clipped(text) for text in texts]
        encoded = self._tokenizer.encode_batch_fast(clipped, add_special_tokens=False)
        windows: list[list[int]] = []
        owners: list[int] = []
        for owner, one in enumerate(encoded):
            for window in self.windows(one.ids):
                windows.append(window)
                owners.append(owner)
        logits = self._run(windows)
        lengths = np.array([len(window) + 1 for window in windows], np.float64)
        total = np.zeros((len(texts), logits.shape[1]))
        np.add.at(total, owners, logits * lengths[:, None])
        return total / np.bincount(owners, lengths, len(texts))[:, None] / self._temperature

    def windows(self, ids: list[int]) -> list[list[int]]:
        """The text whole if it fits, else head and tail joined, then the middle in windows."""
        fits = self._head + self._tail
        if len(ids) <= fits:
            return [ids]
        middle = ids[self._head : -self._tail]
        parts = [middle[at : at + self._window] for at in range(0, len(middle), self._window)]
        if len(parts) > self._windows_max:  # evenly spread over a very long text
            chosen = np.linspace(0, len(parts) - 1, self._windows_max).round().astype(int)
            parts = [parts[at] for at in chosen]
        return [ids[: self._head] + ids[-self._tail :], *parts]

    def _clipped(self, text: bytes) -> str:
        """The text, or both ends of one too long to tokenise whole."""
        readable = text.decode("utf-8", errors="replace")
        if len(readable) <= self._characters_max:
            return readable
        half = self._characters_max // 2
        return f"{readable[:half]} {readable[-half:]}"

    def _run(self, windows: list[list[int]]) -> Any:
        order = sorted(range(len(windows)), key=lambda at: len(windows[at]))
        logits: list[Any] = [None] * len(windows)
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * (len(windows[order[stop]]) + 2) <= self._batch_tokens:
                stop += 1
            batch = order[start:stop]
            for at, row in zip(batch, self._logits([windows[at] for at in batch]), strict=True):
                logits[at] = row
            start = stop
        return np.array(logits, np.float64)

    def _logits(self, windows: list[list[int]]) -> Any:
        first, last = self._ends
        ids = np.zeros((len(windows), max(map(len, windows)) + 2), np.int64)
        mask = np.zeros_like(ids)
        for row, window in enumerate(windows):
            ids[row, : len(window) + 2] = [first, *window, last]
            mask[row, : len(window) + 2] = 1
        return self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def weights_sha256(folder: Path) -> str:
    """The sha-256 over the encoder, its tokeniser and how texts are cut, in this order."""
    digest = hashlib.sha256()
    for name in Scorer.FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
