"""Labelled rows in, a ready Triton model folder out: what `shunt train` does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Literal

import numpy as np

from stream_app.errors import SettingsError, without_training_packages
from stream_app.training import minilm
from stream_app.training.card import Described, model_card
from stream_app.training.curve import Curve, learning_curve
from stream_app.training.curve_plot import write_plot
from stream_app.training.enough import check_enough
from stream_app.training.evaluation import AnyOfFigures, Figures, answer_rows, any_of_figures, figures
from stream_app.training.folder import FAST, MINILM, check_target, held_in, newest_version, write_folder
from stream_app.training.gold import Gold, TaskKind, gold_of
from stream_app.training.held_out import HeldOut, read_held_out
from stream_app.training.making import Made, Progress, TrainingSet, make_fast, make_minilm
from stream_app.training.recipe import Recipe as FastRecipe
from stream_app.training.recipe import recipe_for
from stream_app.training.rows import (
    LABEL,
    LABELS,
    LabelledRow,
    MarkedRow,
    UnreadableRow,
    holds_marks,
    labels_of,
    read_marked,
    read_rows,
)
from stream_app.training.teaching import read_teaching
from stream_app.training.work import Work, fingerprint, open_work

ModelForm = Literal["fast", "minilm"]
SEED = 7
Rows = Sequence[LabelledRow] | Sequence[MarkedRow]


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that was written, how good it is on each validation set, and whether more labels would pay.

    `held_out` is where any label may be right: the labels' figures over training rows that were held out.
    """

    folder: Path
    kind: TaskKind
    labels: tuple[str, ...]
    rows: int
    weights_sha256: str
    figures: Mapping[str, Figures | AnyOfFigures]
    held_out: AnyOfFigures | None
    curve: Curve | None
    went_on: bool = False
    """Whether an interrupted run had left something to go on with."""
    left_out: int = 0
    """Rows that may not teach: held out, validated on, or asked by an audit."""

    @property
    def cross_fitted_accuracy(self) -> float | None:
        """The share right of training rows while they were held out; None where it was not measured."""
        return self.curve.points[-1].score if self.curve and self.kind is TaskKind.ONE_OF else None


def silent(_doing: str, _share: float) -> None:
    """The progress callback of one who does not watch."""


def train(
    files: Sequence[Path],
    *,
    task: str,
    out: Path,
    model: ModelForm = "fast",
    kind: TaskKind | None = None,
    label_field: str | None = None,
    name: str | None = None,
    validation: Path | None = None,
    held_out: Sequence[Path] = (),
    seed: int = SEED,
    curve: bool | None = None,
    start: Path | None = None,
    threads: int = 1,
    precision: minilm.Precision = "int8",
    replace_model: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train on labelled JSON Lines files and write the model folder `out`/`name` (`<task>_<model>` unless named).

    `kind` None goes by the files: any_of where rows have `labels`, true or false each, and no `label`. `label_field`
    names another field to take labels from; rows without it are left out. So are rows that an audit asked, what is in
    `held_out` (policies, lists, labelled files) by id or text, and what is in `validation` by text. `curve` None
    measures the learning curve of a fast model, not of a minilm, which would take four more trainings. `start` is the
    folder of a minilm with the same labels to go on from; `threads` are those of a minilm's training, `precision` is
    that of its served weights. An interrupted run of the same files goes on where it stood. Raises SettingsError
    (files, labels or target unusable) and StartError (a package of the `train` extra missing).
    """
    try:
        any_of = all(holds_marks(path, label_field) for path in files) if kind is None else kind is TaskKind.ANY_OF
        read = partial(read_marked, label_field=label_field or LABELS)
        if not any_of:
            read = partial(read_rows, label_field=label_field or LABEL)
        sets = {} if validation is None else {validation.name: read(validation)}
        barred = reduce(HeldOut.__or__, map(read_held_out, held_out), HeldOut())
        barred |= HeldOut.of((None, row.text) for rows in sets.values() for row in rows)  # ids may be a file's own
        teaching = read_teaching(files, lambda path, passed_over: read(path, passed_over=passed_over), barred)
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give labelled JSON Lines, plain or gzip") from error
    data = TrainingSet(
        [row for part in teaching.parts for row in part],  # pyright: ignore[reportArgumentType] - one form, by `read`
        [path.name for path in files],
        domains=[str(number) for number, part in enumerate(teaching.parts) for _ in part],
    )
    left_out = teaching.audited + teaching.held_out
    if left_out and not data.rows:
        raise SettingsError("all rows are held out", advice="give rows that calibrate, validate and test nothing")
    trained = train_rows(
        data,
        task=task,
        folder=out / (name or f"{task}_{model}"),
        model=model,
        validation=sets,
        seed=seed,
        curve=curve,
        start=start,
        threads=threads,
        precision=precision,
        replace_model=replace_model,
        progress=progress,
    )
    return replace(trained, left_out=left_out)


def train_rows(
    data: TrainingSet,
    *,
    task: str,
    folder: Path,
    model: ModelForm = "fast",
    validation: Mapping[str, Rows],
    seed: int = SEED,
    curve: bool | None = None,
    start: Path | None = None,
    threads: int = 1,
    precision: minilm.Precision = "int8",
    replace_model: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train on rows in memory; see `train`. What was made so far is kept beside `folder` until it is whole."""
    gold = gold_of(data.rows, labels_of(data.rows))
    check_enough(gold, data.groups)
    check_target(folder, gold.labels, replace=replace_model)
    for rows in validation.values():
        gold_of(rows, gold.labels)
    if model == "minilm":
        _require_packages()
        recipe = _minilm_recipe(gold, len(data.rows), start, curve)
        recipe = replace(recipe, seed=seed, threads=threads, precision=precision)
    elif start is not None:
        raise SettingsError("a fast model is learned anew", advice="leave --start out, or train a minilm")
    elif precision != "int8":
        raise SettingsError("a fast model's weights are int8", advice="leave --precision out, or train a minilm")
    else:
        recipe = replace(recipe_for(data.texts, gold), seed=seed)
    work, goes_on = open_work(folder.parent / f".{folder.name}.training", fingerprint(_parts(data, gold, recipe)))
    if goes_on:
        progress("going on where the last run stood", 0.0)
    try:
        curve = model == "fast" if curve is None else curve
        made = _make(data, gold, recipe, work, progress, curve=curve, start=start)
        trained = _write(made, data, gold, recipe, task, folder, validation, progress)
    except SettingsError:  # these rows cannot be learned from: there is nothing to go on with
        work.close()
        raise
    work.close()
    progress("done", 1.0)
    return replace(trained, went_on=goes_on)


def _require_packages() -> None:
    try:
        minilm.require_packages()
    except ImportError as error:
        raise without_training_packages(error) from error


def _make(
    data: TrainingSet,
    gold: Gold,
    recipe: FastRecipe | minilm.Recipe,
    work: Work,
    progress: Progress,
    *,
    curve: bool,
    start: Path | None,
) -> Made:
    if isinstance(recipe, FastRecipe):
        return make_fast(data, gold, recipe, work, progress, curve=curve)
    version = None if start is None else start / newest_version(start)
    return make_minilm(data, gold, recipe, work, progress, curve=curve, start=version)


def _minilm_recipe(gold: Gold, rows: int, start: Path | None, curve: bool | None) -> minilm.Recipe:
    """Raises SettingsError for a model that cannot be gone on from."""
    if start is None:
        return minilm.Recipe()
    held = held_in(start)
    if (held.labels, held.kind) != (gold.labels, gold.kind):
        says = f"the rows say {', '.join(gold.labels)} ({gold.kind})"
        told = f"{start} answers {', '.join(held.labels)} ({held.kind}), {says}"
        raise SettingsError(told, advice="go on from a model with the rows' labels, or from none")
    if curve:
        advice = "leave the curve out: the model may know the very rows that it would hold out"
        raise SettingsError("a learning curve cannot go on from a model", advice=advice)
    return minilm.going_on(held.weights_sha256, rows)


def _write(
    made: Made,
    data: TrainingSet,
    gold: Gold,
    recipe: FastRecipe | minilm.Recipe,
    task: str,
    folder: Path,
    validation: Mapping[str, Rows],
    progress: Progress,
) -> Trained:
    """Write the folder with its card; measured before it is there, so that it is never there without its figures."""
    held_out = gold.of(made.held_out_rows)
    every = data.groups
    groups = [every[row] for row in made.held_out_rows.tolist()]
    curve = learning_curve(held_out, groups, made.held_out, recipe.seed) if made.held_out else None
    unseen = None
    if made.held_out and gold.kind is TaskKind.ANY_OF:
        probabilities = made.held_out[max(made.held_out)]
        unseen = any_of_figures(probabilities, np.ones(len(probabilities), np.float32), held_out)
    found = dict[str, Figures | AnyOfFigures]()

    def describe(folder: Path) -> None:
        for number, (title, rows) in enumerate(validation.items()):
            progress(f"measuring on {title}", number / len(validation))
            found[title] = _measured(folder, rows, gold)
        described = Described(folder.name, task, gold, tuple(data.sources), recipe, found, unseen, curve, data.limits)
        if curve is not None and curve.gain is not None:
            write_plot(curve, folder.name, folder / "learning_curve.svg")
        (folder / "MODEL_CARD.md").write_text(model_card(described))

    form = FAST if isinstance(recipe, FastRecipe) else MINILM
    written = write_folder(folder, form, gold, made.write_weights, describe)
    return Trained(folder, gold.kind, gold.labels, len(data.rows), written, found, unseen, curve)


def _measured(folder: Path, rows: Rows, gold: Gold) -> Figures | AnyOfFigures:
    answers = answer_rows(folder, rows)
    if gold.kind is TaskKind.ANY_OF:
        return any_of_figures(answers.probabilities, answers.known_shares, gold_of(rows, gold.labels))
    return figures(answers, rows)  # pyright: ignore[reportArgumentType] - rows of one label


def _parts(data: TrainingSet, gold: Gold, recipe: FastRecipe | minilm.Recipe) -> Iterator[bytes]:
    """Rows, labels and recipe: what makes a run the same one as another."""
    yield json.dumps([gold.kind, gold.labels, asdict(recipe), list(data.domains)]).encode()
    yield gold.marks.tobytes()
    for row, group in zip(data.rows, data.groups, strict=True):
        yield json.dumps([row.text, group]).encode()
