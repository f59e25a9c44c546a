"""Calibrating a task of which any label may be right: what is certified is that none of an accepted text's is wrong.

Each label's yes or no is calibrated by itself. One number is then the cut of all: the same risk, by each label's own
calibrated probability. It comes from a fixed sequence, as the cut of a task with one right label does, and it is
tested on whole texts, which are right where all labels are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_app.errors import SettingsError
from stream_app.routing.any_of import AnyOfTier, as_two
from stream_app.routing.calibration import BoolArray, fit_weights, pool
from stream_app.routing.decide import Knots, Routed, TaskRouter, Tier
from stream_app.routing.domain import Scripts
from stream_app.routing.label_sets import marks_of
from stream_app.routing.models import IndexArray, Scores, ServedModel
from stream_app.routing.policy import TaskPolicy
from stream_app.routing.promises import ErrorAtMost, Promise
from stream_app.settings import Task
from stream_app.training.cut import Judged, certified_cut, cuts_of
from stream_app.training.cutting import Cutting
from stream_app.training.disagreement import llm_disagreement
from stream_app.training.evidence import Evidence
from stream_app.training.fitted import Divided, Terms, divide, names_of
from stream_app.training.promised import certificate
from stream_app.training.recorded import RecordedFile, RecordedRow
from stream_app.training.scoring import route_scored
from stream_app.training.split import refuse_too_few
from stream_app.training.task_policy import measured, sample_of, tier_policy
from stream_app.training.tier_fit import worthwhile_knots
from stream_app.training.traffic import traffic_of
from stream_app.training.whole_texts import CODES, graded


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A task's rows, each with one use, and its tiers, fitted and cut."""

    divided: Divided
    promises: Sequence[Promise]
    cutting: Cutting
    tiers: Sequence[Tier]


def calibrate_any_of(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> tuple[TaskPolicy, Sequence[RecordedRow], Routed, Evidence]:
    """One task's policy, its test rows, how they are routed, and what it was made from.

    `scores` are of all files' rows, in order.

    With probability 1 - delta over such samples at most `task.target_error` of the accepted texts have any label
    wrong. Raises SettingsError where the sample is too small to certify that, with the number needed.
    """
    fitted = _fit(task, files, served, scores, terms)
    divided, tiers, cut = fitted.divided, fitted.tiers, fitted.cutting.cut
    parts, labels, truth = divided.parts, divided.labels, divided.truth
    test, routed = _routed(task, fitted, scores, parts.test)
    fresh = _routed(task, fitted, scores, np.concatenate([parts.certification, parts.test]))
    made = TaskPolicy(
        kind="any_of",
        labels=labels,
        tiers=tuple(tier_policy(tier, labels) for tier in tiers),
        target_error=task.target_error,
        reference="human",
        certificate=None if cut is None else certificate(task, cut, fitted.promises, labels, terms.delta),
        domain=divided.domain,
        sample=sample_of(files, parts, truth, labels, any_of=True),
        measured=measured(routed, truth[parts.test], len(tiers), any_of=True),
        made_at=terms.made_at,
        llm_disagreement=llm_disagreement(*fresh, labels, terms.llms[0], terms.delta) if terms.llms else None,
        traffic=traffic_of(
            _routed(task, fitted, scores, parts.calibration)[1], fresh[1], labels, held=False, any_of=True
        ),
    )
    evidence = Evidence.of(divided, fitted.promises, fitted.cutting, tiers, scores, terms.delta, any_of=True)
    return made, test, routed, evidence


def _fit(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> _Fitted:
    divided = divide(task, files, served, scores, terms)
    labels, rows, truth, used = divided.labels, divided.rows, divided.truth, divided.used
    target, samples = task.target_error or 0.0, divided.samples
    refuse_too_few(target, terms.delta, len(rows), min(map(len, samples)))
    marks = marks_of(truth, len(labels))
    tiers = [
        fit_any_of_tier(tuple(served[name] for name in names_of(tier)), scores, used, marks) for tier in task.tiers
    ]
    judged = [tier.judge([scores[model.name] for model in tier.models]) for tier in tiers]
    if len(set(judged[-1][1][used].tolist())) < 2:  # an answer to everything answers nothing
        raise SettingsError(
            f"task {task.name}: {' and '.join(task.models)} answer every text with the same labels",
            advice="train a model that tells the labels apart, or give it more texts that have them",
        )
    answers = [Judged(graded(sets, truth), confidence) for _, sets, confidence in judged]
    cuts = cuts_of(answers, used, np.zeros(CODES))
    promises: list[Promise] = [ErrorAtMost(target)]
    cut = certified_cut(cuts, answers, graded(truth, truth), divided.inside, samples, promises, terms.delta)
    cutting = Cutting(cuts, cut, shown=cut is not None, apart=False, votes=None)
    return _Fitted(divided, promises, cutting, cutting.on(list(tiers)))


def fit_any_of_tier(
    models: tuple[ServedModel, ...], scores: Mapping[str, Scores], used: IndexArray, marks: BoolArray
) -> AnyOfTier:
    """The tier's pool weights, the same for all labels, and for each label a map where held-out folds say it helps.

    `marks` [rows, labels] are what is right; every label counts as a task of its own with the labels no and yes.
    """
    true = marks[used]
    two = [as_two(scores[model.name].probabilities[used]) for model in models]
    # Rounded before anything is judged by them: the policy file holds the very numbers the cut was found with.
    weights = tuple(round(weight, 4) for weight in fit_weights(two, true.reshape(-1).astype(np.intp)))
    pooled = pool(two, weights)[:, 1].reshape(true.shape)
    yes = pooled >= 0.5
    sure = np.maximum(pooled, 1 - pooled)
    knots: list[Knots | None] = [
        worthwhile_knots(sure[:, label], yes[:, label] == true[:, label]) for label in range(true.shape[1])
    ]
    tier = AnyOfTier(models, weights, None)
    return tier if all(one is None for one in knots) else replace(tier, label_knots=tuple(knots))


def _routed(
    task: Task, fitted: _Fitted, scores: Mapping[str, Scores], places: IndexArray
) -> tuple[list[RecordedRow], Routed]:
    """The rows at `places`, and where the finished task would send them."""
    divided = fitted.divided
    router = TaskRouter(
        task=task.name,
        labels=divided.labels,
        llm_only=(),
        tiers=tuple(fitted.tiers),
        certified=True,
        uncertified_reason=None,
        policy=None,
        known_share_min=divided.domain.known_share_min,
        scripts=Scripts(divided.domain.scripts),
        kind="any_of",
    )
    rows = [divided.rows[int(place)] for place in places]
    of_rows = {name: scores[name].rows(places) for name in task.models}
    return rows, route_scored(router, [row.text for row in rows], of_rows)
