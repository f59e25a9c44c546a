"""Train a fast model: NB-SVM over hashed n-grams, pruned into one small table.

Wang and Manning, "Baselines and Bigrams" (ACL 2012): binary n-grams scaled by their log-count ratio,
then a linear SVM. Here every row has the norm 1/sqrt(count + 1), so that the model is one table of
weights: the SVM is fitted on all n-grams, the features that weigh most are kept, and it is fitted
again on those. A logistic layer over the scores of a text's parts turns them into probabilities; it
is fitted on scores that come from models which never saw the text's group.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC

from stream_app.training.templates.fast import scoring

Floats = NDArray[np.float64]
Targets = NDArray[np.int64]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

SHORT_CHARACTERS = 300
"""Texts of a median length below this are learned from by their characters too."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the outcome of training, all of it recorded in the model card."""

    with_characters: bool
    rows_min: int
    smoothing: float
    penalty_c: float
    features_max: int = 65_536
    layer_c: float = 1.0
    folds: int = 4
    seed: int = 7


LONG_TEXTS = Recipe(with_characters=False, rows_min=4, smoothing=1.0, penalty_c=1.0)
SHORT_TEXTS = Recipe(with_characters=True, rows_min=2, smoothing=0.3, penalty_c=0.3)
"""Chosen on the validation rows of reviews (long) and of comments (short)."""


def recipe_for(texts: Sequence[str]) -> Recipe:
    """The recipe for texts of this length."""
    return SHORT_TEXTS if np.median([len(text) for text in texts]) < SHORT_CHARACTERS else LONG_TEXTS


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts as rows of distinct features: a matrix of ones, and the hashed feature of each column."""

    matrix: sparse.csr_array
    features: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Table:
    """The features kept, and a weight per feature and column (one column for two labels)."""

    features: NDArray[np.int32]
    weights: Floats


@dataclass(frozen=True, slots=True)
class Packed:
    """A table as it is served: its features, int8 weights [features, columns], and what one step is worth."""

    features: NDArray[np.int32]
    weights: NDArray[np.int8]
    step: float


@dataclass(frozen=True, slots=True)
class Layer:
    """log-odds = scores @ weights + bias, with shapes [segments * columns, labels] and [labels]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FastModel:
    """A trained model, and the cross-fitted probabilities of its training rows [rows, labels]."""

    table: Packed
    layer: Layer
    recipe: Recipe
    cross_fitted: Floats


class Characters:
    """Texts into hashed features, by the same compiled code that serves the models."""

    def __init__(self) -> None:
        self._tables = scoring.character_tables()

    def corpus(self, texts: Sequence[str], *, with_characters: bool) -> Corpus:
        """The texts' n-grams; with_characters adds the 3-5-grams of their characters."""
        found, pointers = scoring.distinct_features(*joined(texts), *self._tables, with_characters)
        features, columns = np.unique(found, return_inverse=True)
        ones = np.ones(found.size, np.float32)
        return Corpus(
            sparse.csr_array((ones, columns.astype(np.int32), pointers), shape=(len(texts), features.size)),
            features.astype(np.int32),
        )

    def distinct_words(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """The distinct word features of each text, one text after the other."""
        return scoring.distinct_words(*joined(texts), *self._tables)[0]

    def scores(self, table: Packed, texts: Sequence[str], *, with_characters: bool) -> Floats:
        """The texts' scores by the served code, [texts, segments * columns], in units of weight."""
        no_words = scoring.table(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        learned = scoring.table(table.features, table.weights)
        served = scoring.FastText(learned, no_words, with_characters)
        parts, _ = served.scores([text.encode(errors="replace") for text in texts])
        return parts.reshape(len(texts), -1) * np.float64(table.step)


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as UTF-8 in one buffer; a lone surrogate, which JSON can hold, becomes a question mark."""
    return scoring.joined([text.encode(errors="replace") for text in texts])


def fit(
    texts: Sequence[str], targets: Targets, groups: Sequence[str], recipe: Recipe, progress: Progress
) -> FastModel:
    """Train on all rows; the logistic layer on scores from models of other groups' rows.

    Raises ValueError when a label is in fewer groups than there are folds.
    """
    label_count = int(targets.max()) + 1
    characters = Characters()
    progress("reading n-grams", 0.0)
    corpus = characters.corpus(texts, with_characters=recipe.with_characters)
    folds = StratifiedGroupKFold(recipe.folds, shuffle=True, random_state=recipe.seed)
    scores: Floats | None = None
    splits = cast("Iterable[tuple[Targets, Targets]]", folds.split(corpus.matrix, targets, groups))
    for number, (seen, unseen) in enumerate(splits):
        progress("cross-fitting", (number + 0.5) / (recipe.folds + 1))
        table = pack(fit_table(Corpus(corpus.matrix[seen], corpus.features), targets[seen], label_count, recipe))
        found = characters.scores(table, _chosen(texts, unseen), with_characters=recipe.with_characters)
        scores = np.zeros((len(texts), found.shape[1])) if scores is None else scores
        scores[unseen] = found
    if scores is None:
        raise ValueError("no folds to cross-fit")
    progress("fitting on all rows", recipe.folds / (recipe.folds + 1))
    table = pack(fit_table(corpus, targets, label_count, recipe))
    layer, probabilities = _fit_layer(scores, targets, recipe)
    progress("fitted", 1.0)
    return FastModel(table, layer, recipe, probabilities)


def _chosen(texts: Sequence[str], rows: Targets) -> list[str]:
    numbers: list[int] = rows.tolist()
    return [texts[number] for number in numbers]


def fit_table(corpus: Corpus, targets: Targets, label_count: int, recipe: Recipe) -> Table:
    """Fit, keep the features that weigh most, fit again."""
    seen = np.bincount(corpus.matrix.indices, minlength=corpus.features.size)
    kept = np.flatnonzero(seen >= recipe.rows_min)
    weights = _fit_columns(corpus.matrix[:, kept], targets, label_count, recipe)
    worth = np.abs(weights).max(axis=1) * np.sqrt(seen[kept])
    kept = kept[np.sort(np.argsort(-worth, kind="stable")[: recipe.features_max])]
    return Table(corpus.features[kept], _fit_columns(corpus.matrix[:, kept], targets, label_count, recipe))


def _fit_columns(matrix: sparse.csr_array, targets: Targets, label_count: int, recipe: Recipe) -> Floats:
    norms = 1 / np.sqrt(np.diff(matrix.indptr) + 1.0)
    columns = [1] if label_count == 2 else range(label_count)  # two labels: one margin says both
    return np.stack([_fit_column(matrix, norms, targets == label, recipe) for label in columns], 1)


def _fit_column(matrix: sparse.csr_array, norms: Floats, positive: NDArray[np.bool_], recipe: Recipe) -> Floats:
    inside = recipe.smoothing + np.asarray(matrix[positive].sum(axis=0)).ravel()
    outside = recipe.smoothing + np.asarray(matrix[~positive].sum(axis=0)).ravel()
    ratio = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
    values = np.repeat(norms, np.diff(matrix.indptr)) * ratio[matrix.indices]
    # liblinear takes 32-bit indices only
    narrow = (matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    svm = LinearSVC(C=recipe.penalty_c, random_state=recipe.seed)
    svm.fit(sparse.csr_matrix((values, *narrow), shape=matrix.shape), positive)
    return np.asarray(svm.coef_[0] * ratio)


def pack(table: Table) -> Packed:
    """The table as int8. The few largest weights are clipped, so that the many small ones keep their steps."""
    step = max(float(np.quantile(np.abs(table.weights), 0.9995)), 1e-9) / 127
    return Packed(table.features, np.rint(table.weights / step).clip(-127, 127).astype(np.int8), step)


def _fit_layer(scores: Floats, targets: Targets, recipe: Recipe) -> tuple[Layer, Floats]:
    fitted = LogisticRegression(C=recipe.layer_c, max_iter=2000).fit(scores, targets)
    weights, bias = fitted.coef_.T, fitted.intercept_
    if weights.shape[1] == 1:  # two labels: scikit-learn keeps the second one's log-odds against the first
        weights = np.hstack([np.zeros_like(weights), weights])
        bias = np.array([0.0, bias[0]])
    layer = Layer(weights.astype(np.float32), bias.astype(np.float32))
    return layer, np.asarray(fitted.predict_proba(scores))
