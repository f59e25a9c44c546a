"""Speed of sentiment_minilm, alone and behind sentiment_fast, inside Triton on one core, in one run.

    SHUNT_DATA=DIR python -m benchmarks.tiers [--texts N] [--scores FOLDER]

Film reviews of `imdb_llm_calibration`. Measured by the clock and by Triton's own CPU seconds, which other work on the
machine disturbs less: MiniLM on reviews cut to 64 tokens (bar: 250 texts/s), MiniLM on whole reviews, and the pair on
the same reviews, of which the least certain fifth goes on to MiniLM (bar: three times MiniLM alone). Beside them the
accuracy of both over all rows (bar: the pair's is not less). Exits 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.evaluation_data import evaluation_data
from benchmarks.kept_scores import add_folder, kept_scores
from benchmarks.one_core import MODELS, PinnedTriton, Speed, pinned_triton, speed
from stream_app.training.recorded import label_indexes, read_recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from stream_app.classify.triton import TritonModels
    from stream_app.training.recorded import RecordedFile

FAST, MINILM = "sentiment_fast", "sentiment_minilm"
TOKENS, ROUNDS, IN_FLIGHT, BATCH_TEXTS = 64, 3, 3, 128
ASKED = 0.2
PER_S_MIN, TIMES_MIN = 250.0, 3.0


def cut(texts: Sequence[str]) -> list[str]:
    """Their beginnings of TOKENS tokens, the two at the ends included."""
    tokenizer = Tokenizer.from_file(str(MODELS / MINILM / "1" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    long = [(text, one.offsets[TOKENS - 3][1]) for text, one in zip(texts, found, strict=True) if len(one) >= TOKENS]
    return [text[:end] for text, end in long]


async def fed(models: TritonModels, name: str, texts: Sequence[str]) -> list[Any]:
    """All answers of a model, some batches in flight."""
    model = await models.describe(name)
    starts = list(range(0, len(texts), BATCH_TEXTS))
    found = dict[int, Any]()
    left = iter(starts)

    async def feed() -> None:
        for at in left:
            found[at] = (await models.infer(model, texts[at : at + BATCH_TEXTS])).probabilities

    await asyncio.gather(*(feed() for _ in range(IN_FLIGHT)))
    return [found[at] for at in starts]


def alone(texts: Sequence[str]) -> Callable[[TritonModels], Awaitable[object]]:
    return lambda models: fed(models, MINILM, texts)


def pair(texts: Sequence[str]) -> Callable[[TritonModels], Awaitable[object]]:
    async def work(models: TritonModels) -> None:
        sure = np.concatenate(await fed(models, FAST, texts)).max(axis=1)
        await fed(
            models, MINILM, [texts[int(at)] for at in np.argsort(sure, kind="stable")[: round(ASKED * len(texts))]]
        )

    return work


async def measured(triton: PinnedTriton, texts: Sequence[str], work: Callable[..., Awaitable[object]]) -> Speed:
    rounds = [await triton.round(len(texts), work) for _ in range(ROUNDS + 1)]
    return speed(rounds[1:])  # the first warms up


def accuracies(file: RecordedFile, kept: Path) -> tuple[float, float]:
    """Of MiniLM alone and of the pair, the least certain ASKED decided by the mean of both models' log-odds."""
    fast, minilm = (kept_scores(name, file, kept).probabilities.astype(np.float64) for name in (FAST, MINILM))
    truth = np.array(label_indexes(file.rows, ("negative", "positive")))
    said = fast.argmax(axis=1)
    unsure = np.argsort(fast.max(axis=1), kind="stable")[: round(ASKED * len(truth))]
    said[unsure] = (np.log(fast[unsure] + 1e-9) + np.log(minilm[unsure] + 1e-9)).argmax(axis=1)
    return float((minilm.argmax(axis=1) == truth).mean()), float((said == truth).mean())


async def measure(texts: Sequence[str]) -> tuple[Speed, Speed, Speed]:
    short = cut(texts)
    async with pinned_triton([FAST, MINILM]) as triton:
        return (
            await measured(triton, short, alone(short)),
            await measured(triton, texts, alone(texts)),
            await measured(triton, texts, pair(texts)),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    add_folder(parser)
    given = parser.parse_args()
    file = read_recorded(evaluation_data() / "imdb_llm_calibration.jsonl.gz", "sentiment")
    minilm_right, pair_right = accuracies(file, given.scores)
    short, whole, both = asyncio.run(measure([row.text for row in file.rows[: given.texts]]))
    found = {
        "minilm_64_tokens_texts_per_s": asdict(short),
        "minilm_texts_per_s": asdict(whole),
        "pair_texts_per_s": asdict(both),
        "pair_times_minilm": asdict(Speed(both.by_clock / whole.by_clock, both.by_cpu / whole.by_cpu)),
        "accuracy": {"minilm": round(minilm_right, 4), "pair": round(pair_right, 4), "rows": len(file.rows)},
    }
    print(json.dumps(found, indent=1))
    held = (
        max(short.by_clock, short.by_cpu) >= PER_S_MIN
        and both.by_cpu >= TIMES_MIN * whole.by_cpu
        and pair_right >= minilm_right
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
