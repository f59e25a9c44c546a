"""What pruning the labels of a prompt costs and saves: `python -m stream_app.training.pruning --data DIR`.

The rows of `product_reviews_validation` that name their department are asked of `department_fast`. Each half of them
is judged with the temperature that the other fits, as `shunt calibrate` does; the least certain rows are taken as
escalated, and their labels pruned as the stream does it. Prints one JSON object: for each escalated share and eps,
how often the true label is kept, how many labels are left on the mean, and which share of the labels' characters in
the prompt.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stream_app.routing.calibration import fit_weights, pool
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.prune import pruned
from stream_app.training.evaluation import answer_rows, targets_of
from stream_app.training.rows import in_half_a
from stream_app.training.shipped import validation_sets

MODEL = "department_fast"
SHARES = (0.2, 0.4, 0.6, 1.0)
EPS = (0.02, 0.01, 0.005)


@dataclass(frozen=True, slots=True)
class Pruning:
    """Over rows that were escalated: how often the true label stays, and what is left of the label set."""

    rows: int
    kept: float
    labels_left: float
    characters_left: float


def pruning(labels: Sequence[str], probabilities: FloatArray, truth: IndexArray, eps: float) -> Pruning:
    """Prune the labels of each row by its calibrated probabilities [rows, labels]."""
    left = [pruned(dict(zip(labels, row, strict=True)), eps) for row in probabilities.tolist()]
    characters = sum(map(len, labels))
    return Pruning(
        rows=len(left),
        kept=float(np.mean([labels[true] in kept for true, kept in zip(truth.tolist(), left, strict=True)])),
        labels_left=float(np.mean([len(kept) for kept in left])),
        characters_left=float(np.mean([sum(map(len, kept)) / characters for kept in left])),
    )


def department_pruning(data: Path, models: Path) -> dict[str, Pruning]:
    """The measurement of the module's docstring, by its case."""
    rows = validation_sets("department", data)["validation"]
    answers = answer_rows(models / MODEL, rows)
    truth = targets_of(rows, answers.labels)
    first = np.array([in_half_a(row) for row in rows])
    calibrated = np.empty_like(answers.probabilities)
    for here, there in ((first, ~first), (~first, first)):
        weights = fit_weights([answers.probabilities[there]], truth[there])
        calibrated[here] = pool([answers.probabilities[here]], weights)
    by_doubt = np.argsort(calibrated.max(axis=1), kind="stable")
    found = dict[str, Pruning]()
    for share in SHARES:
        escalated = by_doubt[: round(share * len(truth))]
        for eps in EPS:
            case = f"{share:.0%} escalated, eps {eps:g}"
            found[case] = pruning(answers.labels, calibrated[escalated], truth[escalated], eps)
    return found


def main() -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the evaluation data")
    parser.add_argument("--models", type=Path, default=Path("triton_models"))
    asked = parser.parse_args()
    found = department_pruning(asked.data, asked.models)
    print(json.dumps({case: asdict(each) for case, each in found.items()}, indent=1))


if __name__ == "__main__":
    main()
