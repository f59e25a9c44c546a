"""Every accuracy the project states of its small models: `python -m stream_app.training.figures --data DIR`.

Prints one JSON object: each shipped model, scikit-learn's TF-IDF + LogisticRegression trained on the same
rows in the same run (`--baseline`), and both sentiment tiers together by the share that asks the second.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from stream_app.training.evaluation import Answers, answer_rows, targets_of
from stream_app.training.rows import LabelledRow
from stream_app.training.shipped import NAMES, training_set, validation_sets

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
"""Shares of the texts, the least certain ones, that the second tier is asked about."""
Floats = NDArray[np.float64]


def log_odds_mean(answers: Sequence[Answers]) -> Floats:
    """Probabilities of the mean of the models' log-odds, as the routing's ensembles take it."""
    logs = np.mean([np.log(each.probabilities.astype(np.float64).clip(1e-9)) for each in answers], axis=0)
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def plain_mean(answers: Sequence[Answers]) -> Floats:
    """The plain mean of the models' probabilities."""
    return np.mean([each.probabilities.astype(np.float64) for each in answers], axis=0)


def tiers_accuracy(first: Answers, second: Floats, targets: NDArray[np.int64], share: float) -> float:
    """The share right when the second tier answers the texts the first is least certain of."""
    unsure = np.argsort(first.probabilities.max(axis=1), kind="stable")[: round(share * targets.size)]
    said = first.probabilities.argmax(1)
    said[unsure] = second[unsure].argmax(1)
    return float(np.mean(said == targets))


def sentiment_tiers(fast: Answers, minilm: Answers, rows: Sequence[LabelledRow]) -> dict[str, object]:
    """Both sentiment models, every way of putting them together, on one set of rows."""
    targets = targets_of(rows, fast.labels)
    ways: dict[str, Floats] = {
        "minilm alone": minilm.probabilities.astype(np.float64),
        "plain mean": plain_mean([fast, minilm]),
        "log-odds mean": log_odds_mean([fast, minilm]),
    }
    return {
        way: {f"{share:.0%} asked": round(tiers_accuracy(fast, second, targets, share), 4) for share in SHARES}
        for way, second in ways.items()
    }


def baseline(name: str, data: Path) -> dict[str, float]:
    """scikit-learn's TF-IDF over 1-2-grams with LogisticRegression, trained on the shipped model's rows."""
    rows = cast("Sequence[LabelledRow]", training_set(name, data).rows)
    model = cast("Any", make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000)))
    model.fit([row.text for row in rows], [row.label for row in rows])
    return {
        title: round(float(model.score([row.text for row in found], [row.label for row in found])), 4)
        for title, found in validation_sets(name.partition("_")[0], data).items()
    }


def all_figures(data: Path, models: Path, *, with_baseline: bool) -> Mapping[str, object]:
    """The whole object; `models` is the folder of the shipped models."""
    found: dict[str, object] = {}
    answers: dict[tuple[str, str], Answers] = {}
    for name in (name for name in NAMES if (models / name).exists()):
        accuracies: dict[str, float] = {}
        for title, rows in validation_sets(name.partition("_")[0], data).items():
            answers[name, title] = answer_rows(models / name, rows)
            accuracies[title] = round(answers[name, title].accuracy(rows), 4)
        found[name] = accuracies
        if with_baseline and name.endswith("_fast"):
            found[f"TF-IDF + LogisticRegression on the rows of {name}"] = baseline(name, data)
    if (models / "sentiment_minilm").exists():
        for title, rows in validation_sets("sentiment", data).items():
            fast, minilm = answers["sentiment_fast", title], answers["sentiment_minilm", title]
            found[f"both sentiment tiers, {title}"] = sentiment_tiers(fast, minilm, rows)
    return found


def main() -> None:
    """Print the figures of the models in `--models`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the evaluation data")
    parser.add_argument("--models", type=Path, default=Path("triton_models"))
    parser.add_argument("--baseline", action="store_true", help="train scikit-learn's baseline too (minutes)")
    asked = parser.parse_args()
    print(json.dumps(all_figures(asked.data, asked.models, with_baseline=asked.baseline), indent=1))


if __name__ == "__main__":
    main()
