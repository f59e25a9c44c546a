"""Train a fast model: one small table of n-gram weights, and a last layer over the scores of a text's parts.

The layer turns scores into probabilities. It is fitted on scores that come from tables which never saw the text's
group, and so is the learning curve: the same again with fewer rows. Everything that takes time is kept in `work`,
so that an interrupted run goes on where it stood.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from stream_app.training.corpus import Characters, Corpus
from stream_app.training.gold import Gold
from stream_app.training.layer import MEASURED_TOLERANCE, SERVED_TOLERANCE, Layer, fit_layer
from stream_app.training.recipe import Recipe
from stream_app.training.table import Floats, Packed, Places, Questions, ask, fit_table, pack
from stream_app.training.work import Work

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

CURVE_SHARES = (0.125, 0.25, 0.5)
"""The learning curve's points below all rows: each doubles the one before, and all cost half the training again."""


@dataclass(frozen=True, slots=True)
class FastModel:
    """A trained model, and how it does on rows it did not see, by the rows it was trained on.

    `held_out` maps the number of training rows to probabilities [rows, labels] from tables and layers that saw
    no row of the same group; the most rows are those of all folds but one.
    """

    table: Packed
    layer: Layer
    recipe: Recipe
    held_out: dict[int, Floats]

    @property
    def cross_fitted(self) -> Floats:
        """Probabilities of all training rows [rows, labels], each from the models of the other folds."""
        return self.held_out[max(self.held_out)]

    def answers(self, texts: Sequence[str]) -> Floats:
        """Probabilities of new texts [texts, labels], by the code that serves the model."""
        scores = self.table.scores(texts, self.recipe)
        labels = self.table.steps.size - self.layer.gate.shape[0]
        return self.layer.probabilities(scores[:, :, :labels].reshape(len(texts), -1), scores[:, 0, labels:])


@dataclass(frozen=True, slots=True)
class Trust:
    """How much each row's label counts [rows], and which rows are labelled texts; the others stand aside.

    Those aside, a model's guesses and reasons for labels, shape the table. Only labelled texts fit the last layer,
    which says how sure the model may be, and only they are measured.
    """

    weights: Floats
    given: NDArray[np.bool_]

    @classmethod
    def whole(cls, rows: int) -> "Trust":
        """All labels were given and count alike."""
        return cls(np.ones(rows), np.ones(rows, np.bool_))


@dataclass(frozen=True, slots=True)
class _Fold:
    seen: Places
    unseen: Places


class _Steps:
    """Progress over tables that are fitted, each at its cost, all of which together are `whole`."""

    def __init__(self, progress: Progress, whole: float) -> None:
        self._progress, self._whole, self._done = progress, whole, 0.0

    def next(self, doing: str, cost: float) -> None:
        """The next table is begun."""
        self._progress(doing, min(1.0, self._done / self._whole))
        self._done += cost


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a run is about, and the work kept of it."""

    texts: Sequence[str]
    gold: Gold
    groups: Sequence[str]
    domains: Places
    recipe: Recipe
    trust: Trust
    corpus: Corpus
    questions: Questions
    work: Work
    steps: _Steps


def fit(
    texts: Sequence[str],
    gold: Gold,
    groups: Sequence[str],
    domains: Places,
    recipe: Recipe,
    work: Work,
    progress: Progress,
    curve_shares: Sequence[float] = CURVE_SHARES,
    trust: Trust | None = None,
) -> FastModel:
    """Train on all rows; the last layer on scores from models of other groups' rows.

    `domains` numbers each row's domain from 0; all zero where there is one. Without `trust` all labels count alike.
    The held-out answers of rows aside stay zero. Raises ValueError when the rows cannot
    be cut into folds that all hold every label.
    """
    progress("reading n-grams", 0.0)
    corpus = Characters().corpus(texts, with_characters=recipe.with_characters)
    trust = trust or Trust.whole(len(texts))
    questions = ask(gold, domains, trust.weights, with_parts=recipe.with_parts)
    steps = _Steps(progress, 1 + recipe.folds * (1 + sum(curve_shares)))
    run = _Rows(texts, gold, groups, domains, recipe, trust, corpus, questions, work, steps)
    folds = _folds(run)
    scores = _cross_scores(run, folds, 1.0, "cross-fitting")
    steps.next("fitting on all rows", 1)
    table = pack(fit_table(corpus, run.questions, recipe, work.part("all")))
    layer = _layer(run, scores, np.flatnonzero(trust.given), SERVED_TOLERANCE)
    held_out = {_seen(folds): work.array("1-held-out", lambda: _held_out(run, folds, scores))}
    for share in curve_shares:
        held_out |= _curve_point(run, folds, share)
    progress("fitted", 1.0)
    return FastModel(table, layer, recipe, dict(sorted(held_out.items())))


def _folds(run: _Rows) -> list[_Fold]:
    """The rows with given labels, held out in turn; those aside are seen but where their group is held out."""
    folds = StratifiedGroupKFold(run.recipe.folds, shuffle=True, random_state=run.recipe.seed)
    given, aside = np.flatnonzero(run.trust.given), np.flatnonzero(~run.trust.given)
    kinds = (run.gold.strata * (int(run.domains.max()) + 1) + run.domains)[given]
    groups = np.asarray(run.groups)
    splits = cast("Iterable[tuple[Places, Places]]", folds.split(kinds, kinds, groups[given].tolist()))
    found = list[_Fold]()
    for seen, unseen in splits:
        beside = aside[~np.isin(groups[aside], groups[given[unseen]])]
        found.append(_Fold(np.sort(np.concatenate([given[seen], beside])), given[unseen]))
    return found


def _seen(folds: Sequence[_Fold]) -> int:
    return round(float(np.mean([fold.seen.size for fold in folds])))


def _cross_scores(run: _Rows, folds: Sequence[_Fold], share: float, doing: str) -> Floats:
    """Scores [rows, segments, columns] from tables that saw other groups' rows, or a share of those groups."""

    def scores(number: int, fold: _Fold) -> Floats:
        kept = run.work.part(f"{share:g}-fold-{number}")
        table = pack(fit_table(run.corpus.rows(fold.seen), run.questions.of(fold.seen), run.recipe, kept))
        return table.scores(run.corpus.rows(fold.unseen).texts, run.recipe)

    parts = list[Floats]()
    for number, fold in enumerate(folds):
        run.steps.next(doing, share)
        parts.append(run.work.array(f"{share:g}-scores-{number}", lambda at=number, fold=fold: scores(at, fold)))
    found = np.zeros((len(run.texts), *parts[0].shape[1:]))
    for fold, part in zip(folds, parts, strict=True):
        found[fold.unseen] = part
    return found


def _curve_point(run: _Rows, folds: Sequence[_Fold], share: float) -> dict[int, Floats]:
    """The point of the curve where a share of the groups is learned from; none where that is too few rows."""
    fewer = [_Fold(some_groups(run.groups, fold.seen, share, run.recipe.seed), fold.unseen) for fold in folds]
    try:
        scores = _cross_scores(run, fewer, share, "learning curve")
        answers = run.work.array(f"{share:g}-held-out", lambda: _held_out(run, folds, scores))
    except ValueError:  # a label has no row left
        return {}
    return {_seen(fewer): answers}


def some_groups(groups: Sequence[str], rows: Places, share: float, seed: int) -> Places:
    """Of `rows` those of a share of the groups: the same groups and more for a larger share."""
    owners = np.asarray(groups)[rows]
    names = np.unique(owners)
    order = np.random.default_rng(seed).permutation(names)
    return rows[np.isin(owners, order[: round(share * names.size)])]


def _held_out(run: _Rows, folds: Sequence[_Fold], scores: Floats) -> Floats:
    """Probabilities [rows, labels], each fold's by a layer that was fitted on the other folds' scores."""
    found = np.zeros((len(run.texts), len(run.gold.labels)))
    given = np.flatnonzero(run.trust.given)
    for fold in folds:
        layer = _layer(run, scores, np.setdiff1d(given, fold.unseen), MEASURED_TOLERANCE)
        found[fold.unseen] = layer.probabilities(*_layer_scores(run, scores[fold.unseen]))
    return found


def _layer(run: _Rows, scores: Floats, rows: Places, tolerance: float) -> Layer:
    flat, gate_scores = _layer_scores(run, scores[rows])
    return fit_layer(flat, gate_scores, run.gold.of(rows), run.domains[rows], run.recipe.layer_c, tolerance)


def _layer_scores(run: _Rows, scores: Floats) -> tuple[Floats, Floats]:
    """The labels' scores [rows, segments x columns], and the gate's [rows, gate columns]."""
    labels = sum(not question.gate for question in run.questions.columns)
    return scores[:, :, :labels].reshape(len(scores), -1), scores[:, 0, labels:]
