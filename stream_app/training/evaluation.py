"""How good a model folder is on labelled rows, answered by the code that Triton runs, in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from stream_app.training.folder import kind_in, labels_in, weights_sha256_in
from stream_app.training.gold import Gold, gold_of
from stream_app.training.rows import LabelledRow, MarkedRow

Floats = NDArray[np.float32]
BATCH_TEXTS = 256


class TextScorer(Protocol):
    """What every model's `scoring.py` offers."""

    def answer(self, texts: list[bytes]) -> tuple[Floats, Floats]:
        """Probabilities [texts, labels] and known shares [texts]."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to rows: probabilities [rows, labels], known shares [rows]."""

    labels: tuple[str, ...]
    probabilities: Floats
    known_shares: Floats

    def accuracy(self, rows: Sequence[LabelledRow]) -> float:
        """The share of rows whose most probable label is the gold one."""
        return float(np.mean(self.probabilities.argmax(1) == targets_of(rows, self.labels)))


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Precision and recall of one label; NaN where nothing was found or nothing was there."""

    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model card says of one set of rows."""

    rows: int
    accuracy: float
    log_loss: float
    by_label: Mapping[str, LabelFigures]
    known_share_low: float
    """The known share that 1.5 % of the rows fall below."""


def load_scorer(folder: Path, number: str = "1") -> TextScorer:
    """The scorer of a version of a model folder, its weights checked against the config."""
    version, settings = folder / number, {"kind": kind_in(folder).value}
    if (version / "model.onnx").exists():
        from stream_app.training.templates.minilm.scoring import Scorer as MinilmScorer  # noqa: PLC0415 - onnxruntime

        return cast("TextScorer", MinilmScorer(version, weights_sha256_in(folder, number), settings))
    from stream_app.training.templates.fast.scoring import Scorer as FastScorer  # noqa: PLC0415 - numba

    return cast("TextScorer", FastScorer(version, weights_sha256_in(folder, number), settings))


def answer_rows(folder: Path, rows: Sequence[LabelledRow] | Sequence[MarkedRow], version: str = "1") -> Answers:
    """Ask a version of the model about every row, in batches."""
    scorer = load_scorer(folder, version)
    texts = [row.text.encode(errors="replace") for row in rows]
    parts = [scorer.answer(texts[at : at + BATCH_TEXTS]) for at in range(0, len(texts), BATCH_TEXTS)]
    return Answers(
        labels=labels_in(folder),
        probabilities=np.concatenate([probabilities for probabilities, _ in parts]),
        known_shares=np.concatenate([known for _, known in parts]),
    )


@dataclass(frozen=True, slots=True)
class MarkFigures:
    """How one label of which any may be right was found, over the rows where it is known.

    Precision and recall are of a probability of one half and more. Average precision is precision over all cuts
    (scikit-learn's): a label drawn by lot has its share of yes.
    """

    known: int
    yes: int
    precision: float
    recall: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class AnyOfFigures:
    """What a model card says of one set of rows where any of the labels may be right."""

    rows: int
    by_label: Mapping[str, MarkFigures]
    known_share_low: float

    @property
    def mean_average_precision(self) -> float:
        """Over the labels that have both answers among the rows."""
        return float(np.nanmean([each.average_precision for each in self.by_label.values()]))


def any_of_figures(probabilities: NDArray[np.floating[Any]], known_shares: Floats, gold: Gold) -> AnyOfFigures:
    """Each label by itself."""
    return AnyOfFigures(
        rows=len(probabilities),
        by_label={
            label: _mark_figures(probabilities[gold.known[:, at], at], gold.yes[gold.known[:, at], at])
            for at, label in enumerate(gold.labels)
        },
        known_share_low=float(np.quantile(known_shares, 0.015)),
    )


def _mark_figures(probabilities: NDArray[np.floating[Any]], yes: NDArray[np.bool_]) -> MarkFigures:
    said = probabilities >= 0.5
    both = 0 < yes.sum() < yes.size
    return MarkFigures(
        known=yes.size,
        yes=int(yes.sum()),
        precision=_share(yes[said]),
        recall=_share(said[yes]),
        average_precision=float(average_precision_score(yes, probabilities)) if both else float("nan"),
    )


def figures(answers: Answers, rows: Sequence[LabelledRow]) -> Figures:
    """Accuracy, log loss, per-label precision and recall, and the low end of the known share."""
    targets = targets_of(rows, answers.labels)
    said = answers.probabilities.argmax(1)
    chances = answers.probabilities[np.arange(len(rows)), targets].clip(1e-12)
    return Figures(
        rows=len(rows),
        accuracy=answers.accuracy(rows),
        log_loss=float(-np.log(chances).mean()),
        by_label={
            label: LabelFigures(_share(targets[said == at] == at), _share(said[targets == at] == at))
            for at, label in enumerate(answers.labels)
        },
        known_share_low=float(np.quantile(answers.known_shares, 0.015)),
    )


def targets_of(rows: Sequence[LabelledRow], labels: Sequence[str]) -> NDArray[np.int64]:
    """Each row's place in the label set. Raises SettingsError for a label outside it."""
    return gold_of(rows, labels).places


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if right.size else float("nan")
