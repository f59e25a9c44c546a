"""Distillation in two stages: the small model learns what it had to ask, without forgetting what it knew.

After Data Shunt+'s 2-stage confidence distillation (Chen et al., arXiv 2406.15471), for a model whose training is
convex, so that what it learned before has to be learned again with what is new:

1. *What it had to ask.* Base rows and lessons together: labels that an LLM gave to events the small model was not
   sure of, and people's. Models of the other folds doubt some of the LLM's labels (`belief`). These are left out
   where they are many, and base rows that were held out, whose labels are people's, become likelier without them.
2. *What it knew.* The model of stage one answers unlabelled texts, and its answers teach again, each by as much as it
   is sure of it: an answer it is unsure of weighs next to nothing. They shape the table alone. How sure the model may
   be is learned from labels that somebody gave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.training import fast
from stream_app.training.belief import Mask, doubted, self_confidence
from stream_app.training.gold import Gold, TaskKind, gold_of
from stream_app.training.known import clearly_cheaper
from stream_app.training.lessons import Lesson
from stream_app.training.recipe import Recipe
from stream_app.training.rows import LabelledRow
from stream_app.training.table import Floats
from stream_app.training.work import Work

Progress = Callable[[str, float], None]

GUESS_WEIGHT = 0.3
"""What an answer of the model's own counts at most, beside a label that somebody gave."""


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
    """The model, which lessons it believed, how many it did not, and how good stage one is on base rows held out."""

    model: fast.FastModel
    believed: tuple[Lesson, ...]
    doubted: int
    guessed: int
    cross_fitted_accuracy: float


def distil(given: Curriculum, recipe: Recipe, work: Work, progress: Progress) -> Distilled:
    """Both stages. Raises ValueError where the rows cannot be cut into folds that all hold every label."""
    first = _stage_one(given, given.lessons, recipe, work.part("one"), _named("stage one", progress))
    believed, distrusted = tuple(given.lessons), _doubted(given, first.cross_fitted)
    if distrusted.sum() >= DOUBTED_SHARE_MIN * max(1, len(distrusted)):
        kept = tuple(lesson for lesson, bad in zip(believed, distrusted.tolist(), strict=True) if not bad)
        second = _stage_one(given, kept, recipe, work.part("believed"), _named("what it believes", progress))
        if clearly_cheaper(_surprise(given, second), _surprise(given, first)):
            believed, first = kept, second
    at = len(given.base)
    right = first.cross_fitted[:at].argmax(axis=1) == given.gold(believed).places[:at]
    model = first
    if given.unlabelled:
        guesses = work.array("guesses", lambda: first.answers(given.unlabelled))
        model = _stage_two(given, believed, guesses, recipe, work.part("two"), _named("stage two", progress))
    return Distilled(model, believed, len(given.lessons) - len(believed), len(given.unlabelled), float(right.mean()))


def _named(stage: str, progress: Progress) -> Progress:
    return lambda doing, share: progress(f"{stage}: {doing}", share)


def _stage_one(
    given: Curriculum, lessons: Sequence[Lesson], recipe: Recipe, work: Work, progress: Progress
) -> fast.FastModel:
    gold = given.gold(lessons)
    texts, groups = _texts(given, lessons), _groups(given, lessons)
    return fast.fit(texts, gold, groups, np.zeros(len(texts), np.int64), recipe, work, progress, ())


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


def _stage_two(
    given: Curriculum, believed: Sequence[Lesson], guesses: Floats, recipe: Recipe, work: Work, progress: Progress
) -> fast.FastModel:
    own, guessed = given.gold(believed), guesses.argmax(axis=1)
    marks = np.zeros((len(guesses), len(given.labels)), np.int8)
    marks[np.arange(len(guesses)), guessed] = 1
    gold = Gold(TaskKind.ONE_OF, given.labels, np.concatenate([own.marks, marks]))
    trust = fast.Trust(
        np.concatenate([np.ones(len(own.marks)), GUESS_WEIGHT * certainty(guesses)]),
        np.arange(len(gold.marks)) < len(own.marks),
    )
    texts = [*_texts(given, believed), *given.unlabelled]
    groups = [*_groups(given, believed), *(f"unlabelled {number}" for number in range(len(guesses)))]
    return fast.fit(texts, gold, groups, np.zeros(len(texts), np.int64), recipe, work, progress, (), trust)


def certainty(answers: Floats) -> Floats:
    """How far each answer [rows, labels] is from a blind guess: 0 where all are as likely, 1 where one is sure."""
    blind = 1 / answers.shape[1]
    return (answers.max(axis=1) - blind) / (1 - blind)


def _texts(given: Curriculum, lessons: Sequence[Lesson]) -> list[str]:
    return [row.text for row in given.base] + [lesson.row.text for lesson in lessons]


def _groups(given: Curriculum, lessons: Sequence[Lesson]) -> list[str]:
    """What keeps rows together in folds: a base row's group, else it stands alone, as each lesson does."""
    own = [f"base {row.id if row.group is None else row.group}" for row in given.base]
    return own + [f"feedback {lesson.row.id}" for lesson in lessons]
