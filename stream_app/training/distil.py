"""Distillation in two stages: the small model learns what it had to ask, without forgetting what it knew.

After Data Shunt+'s 2-stage confidence distillation (Chen et al., arXiv 2406.15471), for a model whose training is
convex, so that what it learned before has to be learned again with what is new:

1. *What it had to ask.* Base rows and lessons together: labels that an LLM gave to events the small model was not
   sure of, and people's. Models of the other folds doubt some of the LLM's labels (`belief`). These are left out
   where they are many, and base rows that were held out, whose labels are people's, become likelier without them.
   Where LLMs gave reasons, these are learned as short texts of the same label, if base rows become likelier by that.
2. *What it knew.* The model of stage one and a second view of the same texts (`latent`) answer unlabelled texts
   together, each weighed by how it does on rows that were held out. Their answers teach again, each by as much as
   they are sure of it: an answer they are unsure of weighs next to nothing. They shape the table alone. How sure the
   model may be is learned from labels that somebody gave. The answers were made with all of these labels, those that
   a fold holds out too, so that what stage two thinks of held-out rows is a little too sure: calibration, on rows
   that taught nothing, takes that back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import fit_weights, pool
from stream_app.routing.models import FloatArray
from stream_app.training import fast, latent
from stream_app.training.belief import Mask, doubted, self_confidence
from stream_app.training.corpus import Characters
from stream_app.training.gold import Gold, TaskKind, gold_of
from stream_app.training.held_out import text_sha256
from stream_app.training.known import clearly_cheaper
from stream_app.training.lessons import Lesson
from stream_app.training.recipe import Recipe
from stream_app.training.rows import LabelledRow
from stream_app.training.table import Floats, Places
from stream_app.training.work import Work

Progress = Callable[[str, float], None]

REASON_WEIGHT = 0.5
"""What an LLM's reason counts beside its label. Distilling step by step (Hsieh et al. 2023, arXiv 2305.02301) weighs
the two losses alike; half, since a reason has a sentence's worth of words. No recorded answers have reasons to tune
this on, so whether reasons are learned at all is decided anew for each set of them."""

DOUBTED_SHARE_MIN = 0.1
"""Of a good LLM's labels few are doubted, and most of those are right: leaving them out costs more than it saves.

On film reviews, of gpt-3.5's answers to what a small model was unsure of: 7 % are doubted, 39 % of those are wrong;
with every tenth label turned over 12 % and 56 %; every seventh 16 % and 59 %; every fourth 18 % and 67 %.
"""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """All that is learned from, and none of it held out: base rows, lessons, and texts without a label."""

    labels: tuple[str, ...]
    base: Sequence[LabelledRow]
    lessons: Sequence[Lesson]
    unlabelled: Sequence[str]

    def gold(self, lessons: Sequence[Lesson]) -> Gold:
        """The labels of the base rows and of these lessons."""
        return gold_of([*self.base, *(lesson.row for lesson in lessons)], self.labels)


@dataclass(frozen=True, slots=True)
class Distilled:
    """The model, and what it learned from.

    `reasons` counts those that were learned, of `reasons_given`. `cross_fitted_accuracy` is how good stage one is on
    base rows that were held out.
    """

    model: fast.FastModel
    believed: tuple[Lesson, ...]
    doubted: int
    reasons: int
    reasons_given: int
    guessed: int
    cross_fitted_accuracy: float


@dataclass(frozen=True, slots=True)
class _Aside:
    """Texts that shape the table alone: their labels (places), how much each counts, and whose group each is in."""

    texts: tuple[str, ...]
    labels: Places
    weights: Floats
    groups: tuple[str, ...]

    def and_also(self, other: "_Aside") -> "_Aside":
        """Both."""
        return _Aside(
            self.texts + other.texts,
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.weights, other.weights]),
            self.groups + other.groups,
        )


_NOTHING = _Aside((), np.zeros(0, np.int64), np.zeros(0), ())


def distil(given: Curriculum, recipe: Recipe, work: Work, progress: Progress) -> Distilled:
    """Both stages. Raises ValueError where the rows cannot be cut into folds that all hold every label."""
    run = _Run(given, recipe, work, progress)
    first = run.fit(given.lessons, _NOTHING, "one", "stage one")
    believed, distrusted = tuple(given.lessons), _doubted(given, first.cross_fitted)
    if distrusted.sum() >= DOUBTED_SHARE_MIN * max(1, len(distrusted)):
        kept = tuple(lesson for lesson, bad in zip(believed, distrusted.tolist(), strict=True) if not bad)
        second = run.fit(kept, _NOTHING, "believed", "what it believes")
        if clearly_cheaper(_surprise(given, second), _surprise(given, first)):
            believed, first = kept, second
    reasons, aside = _reasons(given, believed), _NOTHING
    if reasons.texts:
        third = run.fit(believed, reasons, "reasons", "why the LLM said so")
        if clearly_cheaper(_surprise(given, third), _surprise(given, first)):
            aside, first = reasons, third
    model = first
    if given.unlabelled:
        guessed = run.guesses(believed, first)
        model = run.fit(believed, aside.and_also(guessed), "two", "stage two")
    at = len(given.base)
    right = first.cross_fitted[:at].argmax(axis=1) == given.gold(()).places
    return Distilled(
        model=model,
        believed=believed,
        doubted=len(given.lessons) - len(believed),
        reasons=len(aside.texts),
        reasons_given=len(reasons.texts),
        guessed=len(given.unlabelled),
        cross_fitted_accuracy=float(right.mean()),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """What is learned from, how, and the work kept of it."""

    given: Curriculum
    recipe: Recipe
    work: Work
    progress: Progress

    def fit(self, lessons: Sequence[Lesson], aside: _Aside, kept_as: str, stage: str) -> fast.FastModel:
        """A model of the base rows, these lessons, and what stands aside."""
        own = self.given.gold(lessons)
        marks = np.zeros((len(aside.texts), len(self.given.labels)), np.int8)
        marks[np.arange(len(marks)), aside.labels] = 1
        gold = Gold(TaskKind.ONE_OF, self.given.labels, np.concatenate([own.marks, marks]))
        rows = len(own.marks)
        trust = fast.Trust(np.concatenate([np.ones(rows), aside.weights]), np.arange(len(gold.marks)) < rows)
        return fast.fit(
            [*_texts(self.given, lessons), *aside.texts],
            gold,
            [*_groups(self.given, lessons), *aside.groups],
            np.zeros(len(gold.marks), np.int64),
            self.recipe,
            self.work.part(kept_as),
            lambda doing, share: self.progress(f"{stage}: {doing}", share),
            (),
            trust,
        )

    def guesses(self, lessons: Sequence[Lesson], model: fast.FastModel) -> _Aside:
        """What `model` and a second view of the texts say of the unlabelled ones together."""
        answers = self.work.array("guesses", lambda: self._both_views(lessons, model))
        groups = tuple(f"unlabelled {number}" for number in range(len(answers)))
        return _Aside(tuple(self.given.unlabelled), answers.argmax(axis=1), certainty(answers), groups)

    def _both_views(self, lessons: Sequence[Lesson], model: fast.FastModel) -> Floats:
        """Probabilities [unlabelled, labels], pooled as is likeliest on labelled rows that each view did not see."""
        own = model.answers(self.given.unlabelled)
        self.progress("stage two: a second view of the texts", 0.0)
        texts = [*_texts(self.given, lessons), *self.given.unlabelled]
        corpus = Characters().corpus(texts, with_characters=self.recipe.with_characters)
        points = latent.placed(corpus, self.recipe.seed)
        if points is None:
            return own
        truth, groups = self.given.gold(lessons).places, _groups(self.given, lessons)
        crossed, told = latent.answers(points, truth, groups, self.recipe.folds, self.recipe.seed)
        weights = fit_weights([_single(model.cross_fitted[: len(truth)]), _single(crossed)], truth)
        return np.asarray(pool([_single(own), _single(told)], weights), np.float64)


def _single(probabilities: Floats) -> FloatArray:
    return probabilities.astype(np.float32)


def _reasons(given: Curriculum, lessons: Sequence[Lesson]) -> _Aside:
    """The lessons' reasons, each as a text of its lesson's label and in its group."""
    told = [(lesson, lesson.reason) for lesson in lessons if lesson.reason and lesson.reason.strip()]
    return _Aside(
        tuple(reason for _, reason in told),
        given.gold([lesson for lesson, _ in told]).places[len(given.base) :],
        np.full(len(told), REASON_WEIGHT),
        tuple(_group_of(lesson) for lesson, _ in told),
    )


def _surprise(given: Curriculum, model: fast.FastModel) -> Floats:
    """The log loss of each base row, by a model that did not see it."""
    labels = given.gold(()).places
    return -np.log(model.cross_fitted[np.arange(len(labels)), labels].clip(1e-9))


def _doubted(given: Curriculum, cross_fitted: Floats) -> Mask:
    """Of the lessons, the LLM's labels that the small model takes for wrong; a person's are never among them."""
    gold, at = given.gold(given.lessons).places, len(given.base)
    sure = self_confidence(cross_fitted, gold)
    from_llm = np.array([lesson.llm is not None for lesson in given.lessons], np.bool_)
    return doubted(cross_fitted[at:], gold[at:], sure) & from_llm


def certainty(answers: Floats) -> Floats:
    """How far each answer [rows, labels] is from a blind guess: 0 where all are as likely, 1 where one is sure."""
    blind = 1 / answers.shape[1]
    return (answers.max(axis=1) - blind) / (1 - blind)


def _texts(given: Curriculum, lessons: Sequence[Lesson]) -> list[str]:
    return [row.text for row in given.base] + [lesson.row.text for lesson in lessons]


def _groups(given: Curriculum, lessons: Sequence[Lesson]) -> list[str]:
    """What keeps rows together in folds: a base row's group, else it stands alone, as each lesson does."""
    own = [f"base {row.id if row.group is None else row.group}" for row in given.base]
    return own + [_group_of(lesson) for lesson in lessons]


def _group_of(lesson: Lesson) -> str:
    """By its text, which no other lesson has: under which id it came decides nothing."""
    return f"feedback {text_sha256(lesson.row.text)}"
