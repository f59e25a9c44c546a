"""How a model of each form is made from rows: weights, held-out answers for the learning curve, resumable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from stream_app.errors import SettingsError
from stream_app.training import fast, minilm, minilm_export
from stream_app.training.gold import Gold, TaskKind
from stream_app.training.recipe import Recipe as FastRecipe
from stream_app.training.rows import LabelledRow, MarkedRow
from stream_app.training.table import Floats, Places
from stream_app.training.templates.fast.scoring import weights_sha256
from stream_app.training.vocabulary import Vocabulary, learn_vocabulary
from stream_app.training.work import Work

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of that done, 0 to 1."""

DOMAIN_ROWS_PER_LABEL_MIN = 1_000
"""A domain of fewer rows of a label would learn its own noise: all files are then learned as one."""

HOLD_OUT_FOLDS = 4
"""A quarter of the groups is held out for the learning curve of an encoder."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows and where they come from, for the card; `vocabulary` holds further texts in the model's languages.

    `domains` names the domain of each row, where the rows come from several; `limits` are lines for the card.
    """

    rows: Sequence[LabelledRow] | Sequence[MarkedRow]
    sources: Sequence[str]
    vocabulary: Sequence[str] = ()
    domains: Sequence[str] = ()
    limits: Sequence[str] = ()

    @property
    def texts(self) -> list[str]:
        """The rows' texts."""
        return [row.text for row in self.rows]

    @property
    def groups(self) -> list[str]:
        """What keeps each row with others in every split: its group, else it stands alone."""
        return [row.id if row.group is None else row.group for row in self.rows]


@dataclass(frozen=True, slots=True)
class Made:
    """A trained model that is still to be written, and its answers to rows it did not see.

    `held_out` maps numbers of training rows to probabilities [rows, labels] for the rows `held_out_rows`.
    """

    write_weights: Callable[[Path], str]
    held_out: Mapping[int, Floats] = field(default_factory=dict[int, Floats])
    held_out_rows: Places = field(default_factory=lambda: np.zeros(0, np.int64))


def make_fast(
    data: TrainingSet, gold: Gold, recipe: FastRecipe, work: Work, progress: Progress, *, curve: bool
) -> Made:
    """A table and a layer; see `fast.fit`. Raises SettingsError for rows that cannot be cut into folds."""
    texts = data.texts
    shares = fast.CURVE_SHARES if curve else ()
    try:
        model = fast.fit(texts, gold, data.groups, _domains(data, gold), recipe, work, progress, shares)
    except ValueError as error:
        raise SettingsError(
            f"cannot train on these rows ({error})", advice="label more texts of each label"
        ) from error
    words = learn_vocabulary([*texts, *data.vocabulary])
    return Made(lambda version: write_fast(model, words, version), model.held_out, np.arange(len(texts)))


def write_fast(model: fast.FastModel, words: Vocabulary, version: Path) -> str:
    """Write a fast model's weights into a version folder; their sha-256."""
    np.savez_compressed(
        version / "weights.npz",
        features=model.table.features,
        weights=model.table.weights,
        words=words.words,
        word_classes=words.classes,
        with_characters=np.array(model.recipe.with_characters),
        **_served_layer(model),
    )
    return weights_sha256(version)


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


def _domains(data: TrainingSet, gold: Gold) -> Places:
    """Each row's domain by number; all zero unless every domain has rows enough of every label for an expert."""
    names = sorted(set(data.domains))
    if len(names) < 2 or gold.kind is TaskKind.ANY_OF:
        return np.zeros(len(data.rows), np.int64)
    domains = np.array([names.index(name) for name in data.domains], np.int64)
    counts = np.stack([gold.yes[domains == number].sum(axis=0) for number in range(len(names))])
    return domains if counts.min() >= DOMAIN_ROWS_PER_LABEL_MIN else np.zeros(len(data.rows), np.int64)


def make_minilm(
    data: TrainingSet,
    gold: Gold,
    recipe: minilm.Recipe,
    work: Work,
    progress: Progress,
    *,
    curve: bool,
    start: Path | None = None,
) -> Made:
    """A fine-tuned encoder, which goes on from the version `start` of a served one.

    Its curve holds a quarter of the groups out and trains once more for each point.
    """
    texts = data.texts

    def trained(rows: Places, name: str, version: Path) -> str:
        chosen = [texts[row] for row in rows.tolist()]
        doing = progress if name == "model" else lambda said, share: progress(f"learning curve: {said}", share)
        checkpoint = minilm.fine_tune(chosen, gold.of(rows), work.place / name, recipe, doing, start)
        return minilm_export.export(checkpoint, len(gold.labels), version, recipe, doing)

    def answers(rows: Places, unseen: Places, name: str) -> Floats:
        from stream_app.training.templates.minilm.scoring import Scorer  # noqa: PLC0415 - onnxruntime

        version = work.place / f"{name}-version"
        version.mkdir(parents=True, exist_ok=True)
        scorer = Scorer(version, trained(rows, name, version), {"kind": gold.kind.value})
        asked = [texts[row].encode(errors="replace") for row in unseen.tolist()]
        parts = [scorer.answer(asked[at : at + 32])[0] for at in range(0, len(asked), 32)]
        return np.concatenate(parts).astype(np.float64)

    held_out, unseen = dict[int, Floats](), np.zeros(0, np.int64)
    if curve:
        folds = StratifiedGroupKFold(HOLD_OUT_FOLDS, shuffle=True, random_state=recipe.seed)
        seen, unseen = next(iter(folds.split(texts, gold.strata, data.groups)))
        for share in (*fast.CURVE_SHARES, 1.0):
            rows = fast.some_groups(data.groups, seen, share, recipe.seed)
            name = f"curve-{share:g}"
            held_out[rows.size] = work.array(name, lambda rows=rows, name=name: answers(rows, unseen, name))
    every = np.arange(len(texts))
    return Made(lambda version: trained(every, "model", version), held_out, unseen)
