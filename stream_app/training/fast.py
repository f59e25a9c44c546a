"""Train a fast model: NB-SVM over hashed n-grams, pruned into one small table.

Wang and Manning, "Baselines and Bigrams" (ACL 2012): binary n-grams scaled by their log-count ratio,
then a linear SVM. Here every row has the norm 1/sqrt(count + 1), so that the model is one table of
weights: the SVM is fitted on all n-grams, the features that weigh most are kept, and it is fitted
again on those. Where the rows come from several domains, each domain's rows have a column of weights of
their own beside the common one, and one more column tells the domains apart. A last layer over the scores
of a text's parts turns them into probabilities; it is fitted on scores that come from models which never
saw the text's group.

One more column scales the n-grams by their rarity instead: the two kinds err on different texts, and
the layer has the better of both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC

from stream_app.training.layer import Layer, fit_layer
from stream_app.training.templates.fast import scoring

Floats = NDArray[np.float64]
Targets = NDArray[np.int64]
Mask = NDArray[np.bool_]
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
    rarity_penalty_c: float
    features_max: int = 65_536
    layer_c: float = 1.0
    folds: int = 4
    seed: int = 7


LONG_TEXTS = Recipe(with_characters=False, rows_min=4, smoothing=1.0, penalty_c=1.0, rarity_penalty_c=0.03)
SHORT_TEXTS = Recipe(with_characters=True, rows_min=2, smoothing=0.3, penalty_c=0.3, rarity_penalty_c=0.1)
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
    """A table as it is served: its features, int8 weights [features, columns], and a column's worth of one step."""

    features: NDArray[np.int32]
    weights: NDArray[np.int8]
    steps: Floats


@dataclass(frozen=True, slots=True)
class Question:
    """What one column of weights answers: is it `positive`, asked of `rows` only.

    `gate` asks for the domain; `by_rarity` scales features by how rare they are instead of by what they say of the
    label, which errs on other texts.
    """

    rows: Mask
    positive: Mask
    gate: bool = False
    by_rarity: bool = False

    def of(self, chosen: NDArray[np.int64]) -> "Question":
        """The same question of some of the rows."""
        return replace(self, rows=self.rows[chosen], positive=self.positive[chosen])


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
        """The texts' scores by the served code, [texts, segments, columns], in units of weight."""
        no_words = scoring.table(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        learned = scoring.table(table.features, table.weights)
        served = scoring.FastText(learned, no_words, with_characters)
        parts, _ = served.scores([text.encode(errors="replace") for text in texts])
        return np.asarray(parts * table.steps)


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as UTF-8 in one buffer; a lone surrogate, which JSON can hold, becomes a question mark."""
    return scoring.joined([text.encode(errors="replace") for text in texts])


def fit(
    texts: Sequence[str],
    targets: Targets,
    groups: Sequence[str],
    domains: Targets,
    recipe: Recipe,
    progress: Progress,
) -> FastModel:
    """Train on all rows; the last layer on scores from models of other groups' rows.

    `domains` numbers each row's domain from 0; all zero where there is one. Raises ValueError when the rows cannot
    be cut into folds that all hold every label.
    """
    characters = Characters()
    progress("reading n-grams", 0.0)
    corpus = characters.corpus(texts, with_characters=recipe.with_characters)
    questions = ask(targets, domains)
    folds = StratifiedGroupKFold(recipe.folds, shuffle=True, random_state=recipe.seed)
    scores = np.zeros((len(texts), len(scoring.SEGMENTS), len(questions)))
    kinds = targets * (int(domains.max()) + 1) + domains
    splits = cast("Iterable[tuple[Targets, Targets]]", folds.split(corpus.matrix, kinds, groups))
    for number, (seen, unseen) in enumerate(splits):
        progress("cross-fitting", (number + 0.5) / (recipe.folds + 1))
        part = Corpus(corpus.matrix[seen], corpus.features)
        table = pack(fit_table(part, [question.of(seen) for question in questions], recipe))
        found = _chosen(texts, unseen)
        scores[unseen] = characters.scores(table, found, with_characters=recipe.with_characters)
    progress("fitting on all rows", recipe.folds / (recipe.folds + 1))
    table = pack(fit_table(corpus, questions, recipe))
    labels = sum(not question.gate for question in questions)
    flat, gate_scores = scores[:, :, :labels].reshape(len(texts), -1), scores[:, 0, labels:]
    layer = fit_layer(flat, gate_scores, targets, domains, recipe.layer_c)
    progress("fitted", 1.0)
    return FastModel(table, layer, recipe, layer.probabilities(flat, gate_scores))


def ask(targets: Targets, domains: Targets) -> list[Question]:
    """The columns: each label against the rest of all rows and of each domain's, then the domains themselves.

    Two labels need one column, two domains likewise: one margin says both.
    """
    label_count, domain_count = int(targets.max()) + 1, int(domains.max()) + 1
    everything = np.ones(targets.size, np.bool_)
    scopes = [everything] + [domains == number for number in range(domain_count) if domain_count > 1]
    labels = [1] if label_count == 2 else range(label_count)
    gates = range(0) if domain_count == 1 else [1] if domain_count == 2 else range(domain_count)
    return [
        *(Question(scope, targets == label) for scope in scopes for label in labels),
        *(Question(everything, targets == label, by_rarity=True) for label in labels),
        *(Question(everything, domains == number, gate=True) for number in gates),
    ]


def _chosen(texts: Sequence[str], rows: Targets) -> list[str]:
    numbers: list[int] = rows.tolist()
    return [texts[number] for number in numbers]


def fit_table(corpus: Corpus, questions: Sequence[Question], recipe: Recipe) -> Table:
    """Fit what asks for labels, keep the features that weigh most in any of it, fit everything on those."""
    seen = np.bincount(corpus.matrix.indices, minlength=corpus.features.size)
    kept = np.flatnonzero(seen >= recipe.rows_min)
    matrix = corpus.matrix[:, kept]
    worth = np.zeros(kept.size)
    for question in questions:
        if not question.gate:
            held = np.bincount(matrix[question.rows].indices, minlength=kept.size)
            worth = np.maximum(worth, np.abs(_fit_column(matrix, question, recipe)) * np.sqrt(held))
    kept = kept[np.sort(np.argsort(-worth, kind="stable")[: recipe.features_max])]
    matrix = corpus.matrix[:, kept]
    return Table(corpus.features[kept], np.stack([_fit_column(matrix, each, recipe) for each in questions], 1))


def _fit_column(matrix: sparse.csr_array, question: Question, recipe: Recipe) -> Floats:
    asked, positive = matrix[question.rows], question.positive[question.rows]
    scales = _rarity(asked) if question.by_rarity else _ratio(asked, positive, recipe.smoothing)
    norms = 1 / np.sqrt(np.diff(asked.indptr) + 1.0)
    values = np.repeat(norms, np.diff(asked.indptr)) * scales[asked.indices]
    # liblinear takes 32-bit indices only
    narrow = (asked.indices.astype(np.int32), asked.indptr.astype(np.int32))
    penalty_c = recipe.rarity_penalty_c if question.by_rarity else recipe.penalty_c
    svm = LinearSVC(C=penalty_c, random_state=recipe.seed)
    svm.fit(sparse.csr_matrix((values, *narrow), shape=asked.shape), positive)
    # a feature that the asked rows do not hold says nothing: liblinear leaves its coefficient at 0
    return np.asarray(svm.coef_[0] * scales)


def _ratio(asked: sparse.csr_array, positive: Mask, smoothing: float) -> Floats:
    """The log of how much likelier each feature is in a positive row: naive Bayes' weights."""
    inside = smoothing + np.asarray(asked[positive].sum(axis=0)).ravel()
    outside = smoothing + np.asarray(asked[~positive].sum(axis=0)).ravel()
    return np.log(inside / inside.sum()) - np.log(outside / outside.sum())


def _rarity(asked: sparse.csr_array) -> Floats:
    """Half the log of the inverse share of rows that hold each feature."""
    held = np.asarray(asked.sum(axis=0)).ravel()
    return np.log((asked.indptr.size - 1) / (1 + held)) / 2


def pack(table: Table) -> Packed:
    """The table as int8. The few largest weights are clipped, so that the many small ones keep their steps."""
    steps = np.maximum(np.quantile(np.abs(table.weights), 0.9995, axis=0), 1e-9) / 127
    return Packed(table.features, np.rint(table.weights / steps).clip(-127, 127).astype(np.int8), steps)
