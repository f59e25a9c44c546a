"""The table of a fast model: a weight for each n-gram and column, fitted, pruned and packed.

Wang and Manning, "Baselines and Bigrams" (ACL 2012): binary n-grams scaled by their log-count ratio,
then a linear SVM. Here every row has the norm 1/sqrt(count + 1), so that the model is one table of
weights: the SVM is fitted on all n-grams, the features that weigh most are kept, and it is fitted
again on those. Where the rows come from several domains, each domain's rows have a column of weights of
their own beside the common one, and one more column tells the domains apart.

One more column a label scales the n-grams by their rarity instead: the two kinds err on different texts, and
the layer above has the better of both.

With parts, columns are learned from openings, endings and halves of texts as well: what a reviewer says last weighs
otherwise than what is said on the way, and a layer over a text's parts and sentences is best served by weights that
were learned from parts. The domains' columns then scale by rarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.svm import LinearSVC

from stream_app.training.corpus import Corpus, Part
from stream_app.training.gold import Gold, TaskKind
from stream_app.training.recipe import Recipe
from stream_app.training.templates.fast import scoring
from stream_app.training.work import Work

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

PART_ROWS_WEIGH = {Part.OPENING: 1.0, Part.ENDING: 1.0, Part.HALVES: 0.5}
"""The parts that have columns of their own, and what one row of each counts: two halves count as one text."""


@dataclass(frozen=True, slots=True)
class Table:
    """The features kept, and a weight per feature and column (one column for two labels of which one is right)."""

    features: NDArray[np.int32]
    weights: Floats


@dataclass(frozen=True, slots=True)
class Packed:
    """A table as it is served: its features, int8 weights [features, columns], and a column's worth of one step."""

    features: NDArray[np.int32]
    weights: NDArray[np.int8]
    steps: Floats

    def scores(self, texts: Sequence[str], recipe: Recipe) -> Floats:
        """The texts' scores by the served code, [texts, segments, columns], in units of weight."""
        no_words = scoring.table(np.zeros(0, np.int32), np.zeros(0, np.uint8))
        served = scoring.FastText(
            scoring.table(self.features, self.weights),
            no_words,
            with_characters=recipe.with_characters,
            with_sentences=recipe.with_parts,
        )
        parts, _ = served.scores([text.encode(errors="replace") for text in texts])
        return np.asarray(parts * self.steps)


@dataclass(frozen=True, slots=True)
class Question:
    """What one column of weights answers: is it `positive`, asked of `rows` only, each counting by its weight.

    `gate` asks for the domain; `by_rarity` scales features by how rare they are instead of by what they say of the
    label, which errs on other texts. `part` is what of each text is looked at. The penalty's C is multiplied by
    `loss_weight`.
    """

    rows: Mask
    positive: Mask
    weights: Floats
    gate: bool = False
    by_rarity: bool = False
    part: Part = Part.WHOLE
    loss_weight: float = 1.0

    def of(self, chosen: Places) -> "Question":
        """The same question of some of the rows."""
        rows, positive, weights = self.rows[chosen], self.positive[chosen], self.weights[chosen]
        return replace(self, rows=rows, positive=positive, weights=weights)


@dataclass(frozen=True, slots=True)
class Questions:
    """Those that choose which features are kept, and those that the table's columns answer."""

    choosing: Sequence[Question]
    columns: Sequence[Question]

    def of(self, chosen: Places) -> "Questions":
        """The same questions of some of the rows."""
        return Questions([each.of(chosen) for each in self.choosing], [each.of(chosen) for each in self.columns])


def ask(gold: Gold, domains: Places, weights: Floats, *, with_parts: bool) -> Questions:
    """The columns: each label against the rest of all rows and of each domain's, then the domains themselves.

    A label of which several may be right is asked of the rows where it is known. Two labels of which one is right
    need one column, two domains likewise: one margin says both.
    """
    domain_count = int(domains.max()) + 1
    scopes = [np.ones(domains.size, np.bool_)]
    scopes += [domains == number for number in range(domain_count) if domain_count > 1]
    only_second = gold.kind is TaskKind.ONE_OF and len(gold.labels) == 2
    labels = [(gold.known[:, at], gold.yes[:, at]) for at in range(only_second, len(gold.labels))]
    gates = range(0) if domain_count == 1 else [1] if domain_count == 2 else range(domain_count)
    by_scope = [Question(scope & known, yes, weights) for scope in scopes for known, yes in labels]
    by_rarity = [Question(known, yes, weights, by_rarity=True) for known, yes in labels]
    of_domain = [Question(scopes[0], domains == number, weights, gate=True) for number in gates]
    if not with_parts:
        return Questions([*by_scope, *by_rarity], [*by_scope, *by_rarity, *of_domain])
    common = by_scope[: len(labels)]
    parts = [
        Question(known, yes, weights, part=part, loss_weight=PART_ROWS_WEIGH[part])
        for part in PART_ROWS_WEIGH
        for known, yes in labels
    ]
    # C counts for each row: with few rows as much is learned from each as with all
    rare = [replace(each, by_rarity=True, loss_weight=domains.size / max(1, each.rows.sum())) for each in by_scope]
    return Questions([*by_scope, *by_rarity], [*common, *rare, *parts, *of_domain])


def fit_table(corpus: Corpus, questions: Questions, recipe: Recipe, work: Work) -> Table:
    """Fit what chooses, keep the features that weigh most in any of it, fit the columns on those.

    Raises ValueError where a question has rows of one answer only.
    """
    seen = np.bincount(corpus.matrix.indices, minlength=corpus.features.size)
    often = np.flatnonzero(seen >= recipe.rows_min)

    def heaviest() -> Places:
        kept = corpus.columns(often)
        worth = np.zeros(often.size)
        for question in questions.choosing:
            held = np.bincount(kept.matrix[question.rows].indices, minlength=often.size)
            worth = np.maximum(worth, np.abs(_fit_column(kept, question, recipe)) * np.sqrt(held))
        return often[np.sort(np.argsort(-worth, kind="stable")[: recipe.features_max])]

    kept = corpus.columns(work.array("features", heaviest))

    def column(at: int, question: Question) -> Floats:
        return work.array(f"column-{at}", lambda: _fit_column(kept, question, recipe))

    return Table(kept.features, np.stack([column(*each) for each in enumerate(questions.columns)], 1))


def _fit_column(corpus: Corpus, question: Question, recipe: Recipe) -> Floats:
    spans = len(question.part.value)
    rows, yes = np.tile(question.rows, spans), np.tile(question.positive, spans)
    asked, positive = corpus.of(question.part)[rows], yes[rows]
    counts = np.tile(question.weights, spans)[rows].astype(asked.dtype)
    scales = _rarity(asked, counts) if question.by_rarity else _ratio(asked, positive, counts, recipe.smoothing)
    norms = 1 / np.sqrt(np.diff(asked.indptr) + 1.0)
    values = np.repeat(norms, np.diff(asked.indptr)) * scales[asked.indices]
    # liblinear takes 32-bit indices only
    narrow = (asked.indices.astype(np.int32), asked.indptr.astype(np.int32))
    penalty_c = recipe.rarity_penalty_c if question.by_rarity else recipe.penalty_c
    svm = LinearSVC(C=penalty_c * question.loss_weight, random_state=recipe.seed)
    svm.fit(sparse.csr_matrix((values, *narrow), shape=asked.shape), positive, sample_weight=counts)
    # a feature that the asked rows do not hold says nothing: liblinear leaves its coefficient at 0
    return np.asarray(svm.coef_[0] * scales)


def _ratio(asked: sparse.csr_array, positive: Mask, counts: Floats, smoothing: float) -> Floats:
    """The log of how much likelier each feature is in a positive row: naive Bayes' weights."""
    inside = smoothing + counts[positive] @ asked[positive]
    outside = smoothing + counts[~positive] @ asked[~positive]
    return np.log(inside / inside.sum()) - np.log(outside / outside.sum())


def _rarity(asked: sparse.csr_array, counts: Floats) -> Floats:
    """Half the log of the inverse share of rows that hold each feature."""
    return np.log(counts.sum() / (1 + counts @ asked)) / 2


def pack(table: Table) -> Packed:
    """The table as int8. The few largest weights are clipped, so that the many small ones keep their steps."""
    steps = np.maximum(np.quantile(np.abs(table.weights), 0.9995, axis=0), 1e-9) / 127
    return Packed(table.features, np.rint(table.weights / steps).clip(-127, 127).astype(np.int8), steps)
