"""Speed of sentiment_fast inside Triton against scikit-learn, film reviews, one core each, in one run.

    SHUNT_DATA=DIR python -m benchmarks.fast_model [--texts N] [--tokenizers]

Triton (gRPC, one instance) is pinned to one core and the client that feeds it to the others; then
scikit-learn's HashingVectorizer with the same n-grams and feature count + LogisticRegression runs
pinned to the same core. Both are given twice: by the clock, and by CPU seconds spent, which other
work on the machine disturbs less. `--tokenizers` adds the bare cost of other tokenisers, in Python.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from stream_app.classify.triton import TritonModels
from stream_app.local.stack import Stack
from stream_app.training.rows import read_rows

MODEL = "sentiment_fast"
MODELS = Path(__file__).parent.parent / "triton_models"
BATCH_TEXTS = 512
IN_FLIGHT = 3
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """Texts a second by the clock and by CPU seconds, best of the rounds."""

    by_clock: float
    by_cpu: float


def best(rounds: Sequence[Speed]) -> Speed:
    return Speed(max(each.by_clock for each in rounds), max(each.by_cpu for each in rounds))


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def triton_processes(parent: psutil.Process) -> list[psutil.Process]:
    return [each for each in parent.children(recursive=True) if "triton" in each.name()]


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


async def measure_triton(texts: list[str], core: int, others: set[int]) -> Speed:
    with tempfile.TemporaryDirectory() as folder:
        async with Stack.start(
            dir=Path(folder), kafka=False, llm=False, model_repository=MODELS, load_models=[MODEL]
        ) as stack:
            processes = triton_processes(psutil.Process())
            for process in processes:
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, {core})
            with pinned(others):
                return best([await one_triton_round(stack.triton_grpc, texts, processes) for _ in range(ROUNDS)])


async def one_triton_round(url: str, texts: list[str], processes: Sequence[psutil.Process]) -> Speed:
    async with TritonModels.connect(url, timeout_s=120) as models:
        model = await models.describe(MODEL)
        await models.infer(model, texts[:BATCH_TEXTS])
        batches = iter([texts[at : at + BATCH_TEXTS] for at in range(0, len(texts), BATCH_TEXTS)])

        async def feed() -> None:
            for batch in batches:
                await models.infer(model, batch)

        spent, start = cpu_s(processes), time.perf_counter()
        await asyncio.gather(*(feed() for _ in range(IN_FLIGHT)))
        return Speed(len(texts) / (time.perf_counter() - start), len(texts) / (cpu_s(processes) - spent))


def timed(work: Callable[[list[str]], object], texts: list[str]) -> Speed:
    spent, start = time.process_time(), time.perf_counter()
    for at in range(0, len(texts), BATCH_TEXTS):
        work(texts[at : at + BATCH_TEXTS])
    return Speed(len(texts) / (time.perf_counter() - start), len(texts) / (time.process_time() - spent))


def measure_sklearn(texts: list[str], labels: list[str], core: int) -> Speed:
    vectorizer = HashingVectorizer(ngram_range=(1, 3), n_features=2**16)
    model = LogisticRegression(max_iter=50).fit(vectorizer.transform(texts[:2000]), labels[:2000])
    with pinned({core}):
        return best([
            timed(lambda part: model.predict_proba(vectorizer.transform(part)), texts) for _ in range(2)
        ])


def measure_tokenisers(texts: list[str], core: int) -> dict[str, Speed]:
    """Each candidate's own work on the same texts: `numba` is the whole model, the others tokenise only."""
    from stream_app.training.evaluation import load_scorer

    scorer = load_scorer(MODELS / MODEL)
    found: dict[str, Callable[[list[str]], object]] = {
        "numba over the bytes, whole model": lambda part: scorer.answer([text.encode() for text in part])
    }
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        words.normalizer = normalizers.Lowercase()
        words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+('[a-z]+)?|\d+|[^\w\s]"), "isolated")
        found["tokenizers, tokens only"] = lambda part: words.encode_batch_fast(part)
    except ImportError as error:
        print(f"not measured: {error}", file=sys.stderr)
    try:
        measure = onnx_extension()
        found["onnxruntime-extensions, tokens only"] = measure
    except ImportError as error:
        print(f"not measured: {error}", file=sys.stderr)
    with pinned({core}):
        return {name: best([timed(work, texts) for _ in range(3)]) for name, work in found.items()}


def onnx_extension() -> Callable[[list[str]], object]:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper
    from onnxruntime_extensions import get_library_path

    nodes = [
        helper.make_node(
            "StringRegexSplitWithOffsets", ["text", "split", "keep"], ["words", "starts", "ends", "rows"],
            domain="ai.onnx.contrib",
        )
    ]
    strings = [helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in ("text", "split", "keep")]
    words = [helper.make_tensor_value_info("words", TensorProto.STRING, [None])]
    graph = helper.make_graph(nodes, "split", strings, words)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    pattern = np.array([r"([a-z]+('[a-z]+)?|\d+|[^\w\s])"], object)
    return lambda part: session.run(
        ["words"], {"text": np.array([text.lower() for text in part], object), "split": pattern, "keep": pattern}
    )


def measure(texts_max: int, *, tokenisers: bool) -> dict[str, object]:
    """All of it, in one run; raises KeyError without SHUNT_DATA."""
    rows = read_rows(Path(os.environ["SHUNT_DATA"]) / "imdb_train.jsonl.gz")[:texts_max]
    texts = [row.text for row in rows]
    cores = sorted(os.sched_getaffinity(0))
    core, others = cores[0], set(cores[1:]) or set(cores)
    triton = asyncio.run(measure_triton(texts, core, others))
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
    if "SHUNT_DATA" not in os.environ:
        sys.exit("set SHUNT_DATA to the folder of the evaluation data")
    print(json.dumps(measure(asked.texts, tokenisers=asked.tokenizers), indent=1))


if __name__ == "__main__":
    main()
