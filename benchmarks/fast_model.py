"""Speed of sentiment_fast inside Triton against scikit-learn, film reviews, one core each, in one run.

    SHUNT_DATA=DIR python -m benchmarks.fast_model [--texts N] [--tokenizers]

Triton (gRPC, one instance) is pinned to one core and the client that feeds it to the others; then
scikit-learn's HashingVectorizer with the same n-grams and feature count + LogisticRegression runs
pinned to the same core. Both are given twice: by the clock, and by CPU seconds spent, which other
work on the machine disturbs less. `--tokenizers` adds the bare cost of other tokenisers, in Python.
"""

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.evaluation_data import evaluation_data
from benchmarks.one_core import MODELS, Round, Speed, pinned, pinned_triton, speed
from stream_app.classify.triton import TritonModels
from stream_app.training.evaluation import load_scorer
from stream_app.training.rows import read_rows

MODEL = "sentiment_fast"
BATCH_TEXTS = 512
IN_FLIGHT = 3
ROUNDS = 5


async def measure_triton(texts: list[str]) -> Speed:
    async def work(models: TritonModels) -> None:
        model = await models.describe(MODEL)
        batches = iter([texts[at : at + BATCH_TEXTS] for at in range(0, len(texts), BATCH_TEXTS)])

        async def feed() -> None:
            for batch in batches:
                await models.infer(model, batch)

        await asyncio.gather(*(feed() for _ in range(IN_FLIGHT)))

    async with pinned_triton([MODEL]) as triton:
        rounds = [await triton.round(len(texts), work) for _ in range(ROUNDS + 1)]
    return speed(rounds[1:])  # the first round warms up: shared memory grows, caches fill


def timed(work: Callable[[list[str]], object], texts: list[str]) -> Round:
    spent, start = time.process_time(), time.perf_counter()
    for at in range(0, len(texts), BATCH_TEXTS):
        work(texts[at : at + BATCH_TEXTS])
    return Round(len(texts), time.perf_counter() - start, time.process_time() - spent)


def measure_sklearn(texts: list[str], labels: list[str], core: int) -> Speed:
    vectorizer = HashingVectorizer(ngram_range=(1, 3), n_features=2**16)
    model = LogisticRegression(max_iter=50).fit(vectorizer.transform(texts[:2000]), labels[:2000])
    with pinned({core}):
        return speed([timed(lambda part: model.predict_proba(vectorizer.transform(part)), texts) for _ in range(2)])


def measure_tokenisers(texts: list[str], core: int) -> dict[str, Speed]:
    """Each candidate's own work on the same texts: `numba` is the whole model, the others tokenise only."""
    scorer = load_scorer(MODELS / MODEL)
    found: dict[str, Callable[[list[str]], object]] = {
        "numba over the bytes, whole model": lambda part: scorer.answer([text.encode() for text in part])
    }
    for name, make in (("tokenizers", with_tokenizers), ("onnxruntime-extensions", with_onnx_extensions)):
        try:
            found[f"{name}, tokens only"] = make()
        except ImportError as error:
            print(f"not measured: {error}", file=sys.stderr)
    with pinned({core}):
        return {name: speed([timed(work, texts) for _ in range(3)]) for name, work in found.items()}


def with_tokenizers() -> Callable[[list[str]], object]:
    tokenizers = importlib.import_module("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, "?"))
    words.normalizer = tokenizers.normalizers.Lowercase()
    split = tokenizers.Regex(r"[a-z]+('[a-z]+)?|\d+|[^\w\s]")
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(split, "isolated")
    return words.encode_batch_fast


def with_onnx_extensions() -> Callable[[list[str]], object]:
    onnxruntime = importlib.import_module("onnxruntime")
    extensions = importlib.import_module("onnxruntime_extensions")
    onnx = importlib.import_module("onnx")
    helper, string = onnx.helper, onnx.TensorProto.STRING
    nodes = [
        helper.make_node(
            "StringRegexSplitWithOffsets",
            ["text", "split", "keep"],
            ["words", "starts", "ends", "rows"],
            domain="ai.onnx.contrib",
        )
    ]
    strings = [helper.make_tensor_value_info(name, string, [None]) for name in ("text", "split", "keep")]
    words = [helper.make_tensor_value_info("words", string, [None])]
    graph = helper.make_graph(nodes, "split", strings, words)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    pattern = np.array([r"([a-z]+('[a-z]+)?|\d+|[^\w\s])"], object)
    return lambda part: session.run(
        ["words"], {"text": np.array([text.lower() for text in part], object), "split": pattern, "keep": pattern}
    )


def measure(texts_max: int, *, tokenisers: bool) -> dict[str, object]:
    """All of it, in one run."""
    rows = read_rows(evaluation_data() / "imdb_train.jsonl.gz")[:texts_max]
    texts = [row.text for row in rows]
    core = min(os.sched_getaffinity(0))
    triton = asyncio.run(measure_triton(texts))
    sklearn = measure_sklearn(texts, [row.label for row in rows], core)
    result: dict[str, object] = {
        "texts": len(texts),
        "characters_mean": sum(map(len, texts)) / len(texts),
        "triton_texts_per_s": asdict(triton),
        "sklearn_texts_per_s": asdict(sklearn),
        "times_faster": asdict(Speed(triton.by_clock / sklearn.by_clock, triton.by_cpu / sklearn.by_cpu)),
    }
    if tokenisers:
        result["tokenisers"] = {name: asdict(speed) for name, speed in measure_tokenisers(texts, core).items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--tokenizers", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.texts, tokenisers=asked.tokenizers), indent=1))


if __name__ == "__main__":
    main()
