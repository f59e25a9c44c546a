"""Labelled rows in, a ready Triton model folder out: what `shunt train` does."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import SettingsError, StartError
from stream_app.training import fast, minilm
from stream_app.training.card import model_card
from stream_app.training.evaluation import Figures, answer_rows, figures, targets_of
from stream_app.training.folder import FAST, MINILM, check_target, write_folder
from stream_app.training.rows import LabelledRow, UnreadableRow, labels_of, read_rows
from stream_app.training.templates.fast.scoring import weights_sha256
from stream_app.training.vocabulary import learn_vocabulary

KindName = Literal["fast", "minilm"]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share of that done, 0 to 1."""

ROWS_PER_LABEL_MIN = 8
"""Below two rows of a label a fold there is nothing to learn or to calibrate on."""
DOMAIN_ROWS_PER_LABEL_MIN = 1_000
"""A domain of fewer rows of a label would learn its own noise: all files are then learned as one."""
GROUPS_PER_LABEL_MIN = 4
"""Groups are kept together: every fold needs one of its own."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that was written, and how good it is on each validation set."""

    folder: Path
    labels: tuple[str, ...]
    rows: int
    weights_sha256: str
    cross_fitted_accuracy: float | None
    figures: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows and where they come from, for the card; `vocabulary` holds further texts in the model's languages.

    `domains` names the domain of each row, where the rows come from several.
    """

    rows: Sequence[LabelledRow]
    sources: Sequence[str]
    vocabulary: Sequence[str] = ()
    domains: Sequence[str] = ()


def silent(_doing: str, _share: float) -> None:
    """The progress callback of one who does not watch."""


def train(
    files: Sequence[Path],
    *,
    task: str,
    out: Path,
    kind: KindName = "fast",
    name: str | None = None,
    validation: Path | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train on labelled JSON Lines files and write the model folder `out`/`name` (`<task>_<kind>` unless named).

    Raises SettingsError (files, labels or target unusable) and StartError (a package of the `train` extra missing).
    """
    try:
        parts = [read_rows(path) for path in files]
        sets = {} if validation is None else {validation.name: read_rows(validation)}
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give labelled JSON Lines, plain or gzip") from error
    data = TrainingSet(
        [row for part in parts for row in part],
        [path.name for path in files],
        domains=[str(number) for number, part in enumerate(parts) for _ in part],
    )
    return train_rows(
        data,
        task=task,
        folder=out / (name or f"{task}_{kind}"),
        kind=kind,
        validation=sets,
        replace=replace,
        progress=progress,
    )


def train_rows(
    data: TrainingSet,
    *,
    task: str,
    folder: Path,
    kind: KindName = "fast",
    validation: Mapping[str, Sequence[LabelledRow]],
    replace: bool = False,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train on rows in memory; see `train`. `work_dir` keeps the checkpoint of a MiniLM run that is to resume."""
    labels = labels_of(data.rows)
    _check_labels(data.rows)
    check_target(folder, labels, replace=replace)
    for rows in validation.values():
        targets_of(rows, labels)
    try:
        made = (_train_fast if kind == "fast" else _train_minilm)(data, labels, work_dir, progress)
    except ImportError as error:
        advice = 'install the training packages: pip install "shunt-stream[train]"'
        raise StartError(f"{error.name} is not installed", advice=advice) from error

    def card(found: Mapping[str, Figures]) -> str:
        return model_card(
            name=folder.name, task=task, kind=kind, rows=data.rows, sources=data.sources, recipe=made.recipe,
            cross_fitted_accuracy=made.cross_fitted_accuracy, figures=found,
        )  # fmt: skip

    written = write_folder(folder, FAST if kind == "fast" else MINILM, labels, card({}), made.write_weights)
    found: dict[str, Figures] = {}
    for number, (title, rows) in enumerate(validation.items()):
        progress(f"measuring on {title}", number / len(validation))
        found[title] = figures(answer_rows(folder, rows), rows)
    (folder / "MODEL_CARD.md").write_text(card(found))
    progress("done", 1.0)
    return Trained(folder, labels, len(data.rows), written, made.cross_fitted_accuracy, found)


@dataclass(frozen=True, slots=True)
class _Made:
    recipe: fast.Recipe | minilm.Recipe
    cross_fitted_accuracy: float | None
    write_weights: Callable[[Path], str]


def _check_labels(rows: Sequence[LabelledRow]) -> None:
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        raise SettingsError(f"the rows have {len(counts)} label(s)", advice="give rows of at least two labels")
    label, found = min(counts.items(), key=lambda item: item[1])
    if found < ROWS_PER_LABEL_MIN:
        advice = f"label at least {ROWS_PER_LABEL_MIN} texts of each"
        raise SettingsError(f"label {label!r} has {found} row(s)", advice=advice)
    label, found = min(((each, _groups(rows, each)) for each in counts), key=lambda item: item[1])
    if found < GROUPS_PER_LABEL_MIN:
        advice = f"label texts of at least {GROUPS_PER_LABEL_MIN} groups"
        raise SettingsError(f"label {label!r} is in {found} group(s)", advice=advice)


def _groups(rows: Sequence[LabelledRow], label: str) -> int:
    return len({row.id if row.group is None else row.group for row in rows if row.label == label})


def _train_fast(data: TrainingSet, labels: tuple[str, ...], _work_dir: Path | None, progress: Progress) -> _Made:
    texts = [row.text for row in data.rows]
    targets = targets_of(data.rows, labels)
    groups = [row.id if row.group is None else row.group for row in data.rows]
    recipe = fast.recipe_for(texts)
    try:
        model = fast.fit(texts, targets, groups, _domains(data, targets), recipe, progress)
    except ValueError as error:
        raise SettingsError(
            f"cannot train on these rows ({error})", advice="label more texts of each label"
        ) from error
    words = learn_vocabulary([*texts, *data.vocabulary])

    def write_weights(version: Path) -> str:
        np.savez_compressed(
            version / "weights.npz",
            features=model.table.features,
            weights=model.table.weights,
            words=words.words,
            word_classes=words.classes,
            with_characters=np.array(recipe.with_characters),
            **_served_layer(model),
        )
        return weights_sha256(version)

    return _Made(recipe, float(np.mean(model.cross_fitted.argmax(1) == targets)), write_weights)


def _served_layer(model: fast.FastModel) -> dict[str, NDArray[np.float32]]:
    """The last layer for scores in int8 steps instead of units of weight."""
    layer, steps = model.layer, model.table.steps
    gates = layer.gate.shape[0]
    labels = steps.size - gates
    by_score = np.tile(steps[:labels], layer.experts.shape[1] // labels)
    served = {
        "experts": layer.experts * by_score[None, :, None],
        "expert_bias": layer.expert_bias,
        "gate": layer.gate * steps[labels:, None],
        "gate_bias": layer.gate_bias,
    }
    return {name: values.astype(np.float32) for name, values in served.items()}


def _domains(data: TrainingSet, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's domain by number; all zero unless every domain has rows enough of every label for an expert."""
    names = sorted(set(data.domains))
    domains = np.array([names.index(name) for name in data.domains], np.int64)
    counts = np.zeros((len(names) or 1, int(targets.max()) + 1), np.int64)
    if len(names) < 2:
        return np.zeros(len(targets), np.int64)
    np.add.at(counts, (domains, targets), 1)
    enough = counts.min() >= DOMAIN_ROWS_PER_LABEL_MIN
    return domains if enough else np.zeros(len(targets), np.int64)


def _train_minilm(data: TrainingSet, labels: tuple[str, ...], work_dir: Path | None, progress: Progress) -> _Made:
    minilm.require_packages()
    recipe = minilm.Recipe()
    texts = [row.text for row in data.rows]
    targets = targets_of(data.rows, labels).tolist()

    def write_weights(version: Path) -> str:
        with tempfile.TemporaryDirectory() as temporary:
            kept = Path(temporary) if work_dir is None else work_dir
            checkpoint = minilm.fine_tune(texts, targets, len(labels), kept, recipe, progress)
            return minilm.export(checkpoint, len(labels), version, recipe, progress)

    return _Made(recipe, None, write_weights)
