"""Train the models that are shipped: `python -m stream_app.training.shipped NAME --data DIR --out DIR`.

`sentiment_minilm` is trained twice: once as the others, into some folder FIRST, then with `--start
FIRST/sentiment_minilm --threads 2`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from stream_app.training.evaluation import Figures
from stream_app.training.making import TrainingSet
from stream_app.training.rows import LabelledRow, in_half_a, read_rows
from stream_app.training.train import SEED, ModelForm, train_rows

NAMES = ("sentiment_fast", "toxicity_fast", "department_fast", "sentiment_minilm")
UNSHIPPED = ("toxicity_minilm",)
"""Made by the same command, left out of the repository: another 23 MB."""
WITH_CURVE = ("toxicity_fast", "department_fast")
"""The fast models whose rows are few enough to ask whether more would pay; a curve takes as long again."""
PRODUCT_ROWS_MINILM = 12_000
"""Product reviews beside 24,799 film reviews: MiniLM learns an hour on one core as it is."""
PRODUCT_ROWS_AGAIN = 5_000
"""Further ones in its second pass, so that it does not forget products over films."""

DEPARTMENT_LIMITS = (
    "`kitchen` and `kitchen_housewares` are one department from two sources, `dvd` and `video` nearly one.",
    "Ten departments came lower-cased and tokenised only; endings split off were joined again, traces may be left.",
)
_SPLIT_OFF = re.compile(r" (n't|'(?:s|re|ve|ll|d|m))\b")


def training_set(name: str, data: Path, *, again: bool = False) -> TrainingSet:
    """The rows a shipped model is trained on; `again`: those of MiniLM's second pass."""
    if name == "department_fast":
        rows = departments(data / "product_reviews_train.jsonl.gz")
        sources = ["product_reviews_train, its rows with a domain"]
        return TrainingSet([joined_up(row) for row in rows], sources, limits=DEPARTMENT_LIMITS)
    films = read_rows(data / "imdb_train.jsonl.gz")
    products = read_rows(data / "product_reviews_train.jsonl.gz")
    if name == "sentiment_fast":
        domains = ["films"] * len(films) + ["products"] * len(products)
        return TrainingSet(films + products, ["imdb_train", "product_reviews_train"], domains=domains)
    if name.startswith("toxicity_"):
        rows = read_rows(data / "toxicity_train.jsonl.gz")
        # Short comments alone would leave most English words unknown.
        return TrainingSet(rows, ["toxicity_train"], vocabulary=[row.text for row in films + products])
    raw = raw_rows(products)
    sample = Random(7).sample(raw, PRODUCT_ROWS_MINILM)  # noqa: S311 - repeatable, not secret
    if not again:
        return TrainingSet(
            films + sample, ["imdb_train", f"{PRODUCT_ROWS_MINILM:,} raw rows of product_reviews_train"]
        )
    seen = {row.id for row in sample}
    others = [row for row in raw if row.id not in seen]
    sources = [
        "imdb_train",
        f"{PRODUCT_ROWS_AGAIN:,} raw rows of product_reviews_train",
        f"after a first pass over imdb_train and {PRODUCT_ROWS_MINILM:,} other raw rows",
    ]
    further = Random(7).sample(others, PRODUCT_ROWS_AGAIN)  # noqa: S311
    return TrainingSet(films + further, sources)


def validation_sets(task: str, data: Path) -> Mapping[str, Sequence[LabelledRow]]:
    """The rows a shipped model's card reports on; none of them was trained on.

    The test rows are not among them: they are for the final candidates, once.
    """
    if task == "toxicity":
        return {name: read_rows(data / f"{name}.jsonl.gz") for name in ("toxicity_validation", "toxicity_llm_replay")}
    if task == "department":
        rows = departments(data / "product_reviews_validation.jsonl.gz")
        return {"validation": rows, "validation, raw": raw_rows(rows)}
    films = read_rows(data / "imdb_llm_calibration.jsonl.gz")
    return {
        "films, half A": [row for row in films if in_half_a(row)],
        "films, half B": [row for row in films if not in_half_a(row)],
        "products, validation, raw": raw_rows(read_rows(data / "product_reviews_validation.jsonl.gz")),
    }


def raw_rows(rows: Sequence[LabelledRow]) -> list[LabelledRow]:
    """The rows whose text is as it was written, not tokenised and lower-cased by the source."""
    return [row for row in rows if row.style == "raw"]


def departments(path: Path) -> list[LabelledRow]:
    """The rows that name their department, labelled with it."""
    return read_rows(path, label_field="domain")


def joined_up(row: LabelledRow) -> LabelledRow:
    """The row with the clitics that a tokenised source split off put back: "do n't" as people write it.

    Ten of the fifteen departments come tokenised only, and a model would take "n't" for the name of a department.
    """
    return row if row.style == "raw" else replace(row, text=_SPLIT_OFF.sub(r"\1", row.text))


def main() -> None:
    """Train one shipped model into `--out`, replacing what is there; go on with a run that was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=(*NAMES, *UNSHIPPED))
    parser.add_argument("--data", type=Path, required=True, help="the folder of the evaluation data")
    parser.add_argument("--out", type=Path, default=Path("triton_models"))
    parser.add_argument("--start", type=Path, help="the folder of a MiniLM, for its second pass")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    task, _, form = asked.name.partition("_")
    forms: dict[str, ModelForm] = {"fast": "fast", "minilm": "minilm"}
    trained = train_rows(
        training_set(asked.name, asked.data, again=asked.start is not None),
        task=task,
        folder=asked.out / asked.name,
        model=forms[form],
        validation=validation_sets(task, asked.data),
        seed=SEED if asked.start is None else SEED + 1,
        curve=asked.name in WITH_CURVE,
        start=asked.start,
        threads=asked.threads,
        replace_model=True,
        progress=_Lines().show,
    )
    for name, found in trained.figures.items():
        if isinstance(found, Figures):
            print(f"{name}: {found.accuracy:.4f} of {found.rows:,} right")


class _Lines:
    """Progress as lines on standard error, one a per cent."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, doing: str, share: float) -> None:
        line = f"{doing} {share:.0%}"
        if line != self._last:
            print(line, file=sys.stderr, flush=True)
            self._last = line


if __name__ == "__main__":
    main()
