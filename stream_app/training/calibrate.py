"""From labelled rows to a policy: fit the tiers' confidence, certify one cut for the task, measure the result.

Three disjoint parts of the rows do the three jobs, split by group (else by text), so that no text and no
near-copy of it serves two. The cut is one number for all tiers, held against each tier's calibrated
confidence: what is certified is the task as a whole, whichever tier accepted.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream_app.classify.triton import TritonModels
from stream_app.errors import SettingsError
from stream_app.routing.decide import Routed, TaskRouter, Tier
from stream_app.routing.domain import Scripts
from stream_app.routing.models import IndexArray, Scores, ServedModel
from stream_app.routing.payoff import costs_of
from stream_app.routing.policy import Policy, TaskPolicy
from stream_app.routing.routers import require_kind
from stream_app.settings import Task
from stream_app.training.any_of import calibrate_any_of
from stream_app.training.cutting import cut_and_weigh
from stream_app.training.disagreement import llm_disagreement
from stream_app.training.evidence import Evidence
from stream_app.training.fitted import Fitted, Terms, fit
from stream_app.training.held_share import held_share
from stream_app.training.promised import certificate
from stream_app.training.recorded import RecordedFile, RecordedRow, label_indexes, with_all_known
from stream_app.training.scoring import Progress, route_scored, score
from stream_app.training.task_policy import measured, sample_of, tier_policy
from stream_app.training.traffic import traffic_of


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A finished task: its policy, how its test rows were routed, and what it was made from.

    `ms_a_text` says how long each model took, by its name, where Triton was asked here.
    """

    task: TaskPolicy
    test: Sequence[RecordedRow]
    routed: Routed
    evidence: Evidence
    ms_a_text: Mapping[str, float] = field(default_factory=dict[str, float])


def calibrate_task(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> Calibrated:
    """Make one task's policy. `scores` holds each model's scores of all files' rows, in order.

    With probability 1 - delta over such samples the accepted answers are wrong in at most `task.target_error`
    of the cases, and every label's promise holds; a task that holds a share has the cut of that share and the bound
    of what it accepts. Raises SettingsError where the sample is too small to certify that, with the number needed.
    """
    if task.kind == "any_of":
        return Calibrated(*calibrate_any_of(task, files, served, scores, terms))
    fitted = fit(task, files, served, scores, terms)
    cutting = cut_and_weigh(fitted, terms.delta)
    tiers, parts, labels = cutting.on(list(fitted.tiers)), fitted.parts, fitted.labels
    test, routed = _routed(fitted, tiers, scores, parts.test)
    fresh = _routed(fitted, tiers, scores, np.concatenate([parts.certification, parts.test]))
    shown = cutting.cut if cutting.shown else None
    made = TaskPolicy(
        labels=labels,
        tiers=tuple(tier_policy(tier, labels) for tier in tiers),
        target_error=task.target_error,
        precision_min=task.precision_min,
        miss_max=task.miss_max,
        prevalence=task.prevalence,
        reference="human",
        costs=costs_of(task),
        asking_cost=task.asking_cost,
        certificate=None if shown is None else certificate(task, shown, fitted.promises, labels, terms.delta),
        domain=fitted.domain,
        sample=sample_of(files, parts, fitted.truth, labels),
        measured=measured(routed, fitted.truth[parts.test], len(tiers)),
        made_at=terms.made_at,
        gain_llm=terms.llms[0] if cutting.apart else None,
        votes=cutting.votes,
        llm_disagreement=llm_disagreement(*fresh, labels, terms.llms[0], terms.delta) if terms.llms else None,
        traffic=traffic_of(
            _routed(fitted, tiers, scores, parts.calibration)[1],
            fresh[1],
            labels,
            held=task.escalate_max is not None,
        ),
        share=held_share(task.escalate_max, cutting.cut, fitted.judged, fitted.inside, parts.calibration),
    )
    evidence = Evidence.of(fitted, fitted.promises, cutting, tiers, scores, terms.delta)
    return Calibrated(made, test, routed, evidence)


def _routed(
    fitted: Fitted, tiers: Sequence[Tier], scores: Mapping[str, Scores], places: IndexArray
) -> tuple[list[RecordedRow], Routed]:
    """The rows at `places`, and where the finished task would send them."""
    rows = [fitted.rows[int(place)] for place in places]
    of_rows = {name: scores[name].rows(places) for name in fitted.task.models}
    return rows, route_scored(_router(fitted, tiers), [row.text for row in rows], of_rows)


def _router(fitted: Fitted, tiers: Sequence[Tier]) -> TaskRouter:
    """The task as the hot path will route it, for the test."""
    return TaskRouter(
        task=fitted.task.name,
        labels=fitted.labels,
        llm_only=(),
        tiers=tuple(tiers),
        certified=True,
        uncertified_reason=None,
        policy=None,
        known_share_min=fitted.domain.known_share_min,
        scripts=Scripts(fitted.domain.scripts),
    )


async def calibrate_on(
    models: TritonModels,
    task: Task,
    files: Sequence[RecordedFile],
    terms: Terms,
    progress: Progress,
) -> Calibrated:
    """`calibrate_task` on the models that Triton serves now. Raises what it and `TritonModels` raise."""
    served = {name: await models.describe(name) for name in task.models}
    require_kind(task, served)
    files = [replace(file, rows=with_all_known(file.rows, served[task.models[0]].labels)) for file in files]
    rows = [row for file in files for row in file.rows]
    if not rows:
        raise SettingsError(
            f"task {task.name}: no row says of every label whether it applies",
            advice="one that a row leaves out, or has null for, nobody has looked for",
        )
    label_indexes(rows, served[task.models[0]].labels)  # a file of another task is told before it is scored
    texts = [row.text for row in rows]
    scores, ms_a_text = dict[str, Scores](), dict[str, float]()
    for name, model in served.items():
        began_s = time.perf_counter()
        scores[name] = await score(models, model, texts, progress)
        ms_a_text[name] = 1000 * (time.perf_counter() - began_s) / len(texts)
    return replace(calibrate_task(task, files, served, scores, terms), ms_a_text=ms_a_text)


def merged(policy: Policy | None, name: str, task: str, made: TaskPolicy, made_at: str) -> Policy:
    """The policy with the task's new calibration in it, one version on; a first one has version 1."""
    if policy is None:
        return Policy(name=name, version=1, made_at=made_at, tasks={task: made})
    return Policy(name=policy.name, version=policy.version + 1, made_at=made_at, tasks={**policy.tasks, task: made})
