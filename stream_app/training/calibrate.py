"""From labelled rows to a policy: fit the tiers' confidence, certify one cut for the task, measure the result.

Three disjoint parts of the rows do the three jobs, split by group (else by text), so that no text and no
near-copy of it serves two. The cut is one number for all tiers, held against each tier's calibrated
confidence: what is certified is the task as a whole, whichever tier accepted.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream_app.classify.triton import TritonModels
from stream_app.errors import SettingsError
from stream_app.routing.calibration import (
    BoolArray,
    calibration_errors,
)
from stream_app.routing.decide import Routed, TaskRouter, Tier
from stream_app.routing.domain import Scripts, scripts_of
from stream_app.routing.models import FloatArray, IndexArray, Scores, ServedModel
from stream_app.routing.payoff import Payoff, costs_of
from stream_app.routing.policy import (
    Domain,
    Isotonic,
    Measured,
    Member,
    Policy,
    Sample,
    SampleFile,
    TaskPolicy,
    TierPolicy,
)
from stream_app.routing.promises import NOT_ACCEPTED, counts_of
from stream_app.routing.votes import Seen
from stream_app.settings import Task
from stream_app.training.cut import Cut, Judged, accepted_as, certified_cut, cuts_of, planned_cuts
from stream_app.training.evidence import Evidence
from stream_app.training.gain import GAIN_COVERAGE
from stream_app.training.gate import gain_cuts, gate_offsets
from stream_app.training.held_share import held_share, share_cuts
from stream_app.training.known import FOLDS, Known
from stream_app.training.promised import certificate, promises_of, refuse_unprovable
from stream_app.training.recorded import RecordedFile, RecordedRow, label_indexes
from stream_app.training.rounding import shortest, to_six_digits
from stream_app.training.scoring import Progress, route_scored, score
from stream_app.training.split import Parts, by_file, folds, refuse_too_few, split
from stream_app.training.tier_fit import fit_tier
from stream_app.training.vote_rule import vote_rule
from stream_app.training.voting import Recordings

KNOWN_SHARE_QUANTILE = 0.01
"""One calibration text in a hundred is taken for foreign: the price of refusing what really is."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is promised beside the target: it may fail with probability `delta`, over such samples.

    With `each_file` it holds in every file's population by itself. `made_at` is UTC, ISO 8601. `llms` names the
    LLMs whose recorded answers say what asking them is worth: the first is the one asked, another one the second
    opinion. `prices` are what a token costs, relative to each other; one that is not named costs 1.
    """

    delta: float
    made_at: str
    each_file: bool = False
    llms: tuple[str, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict[str, float])


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
    if task.by_hand:
        raise SettingsError(
            f"task {task.name} has a threshold by hand", advice="calibration certifies a target_error"
        )
    rows = [row for file in files for row in file.rows]
    labels = served[task.models[0]].labels
    truth = np.array(label_indexes(rows, labels), np.intp)
    if task.by_gain and not terms.llms:
        raise SettingsError(
            f"task {task.name} escalates where an LLM gains",
            advice="name one whose answers are recorded (--llm)",
        )
    parts = split(rows)
    samples = by_file(files, parts.certification) if terms.each_file else [parts.certification]
    promises = promises_of(task, labels, truth)
    if task.target_error is not None:
        refuse_too_few(task.target_error, terms.delta, len(rows), min(map(len, samples)))
    refuse_unprovable(task, promises, truth, samples, len(labels), terms.delta)
    domain = _domain(task, rows, scores, parts.calibration)
    inside = _inside(task, domain, rows, scores)
    fitted = parts.calibration[inside[parts.calibration]]
    payoff = Payoff.of(labels, costs_of(task))
    tiers = [
        replace(fit_tier(tuple(served[name] for name in _names(tier)), scores, fitted, truth), payoff=payoff)
        for tier in task.tiers
    ]
    judged = [_judged(tier, scores) for tier in tiers]
    if len(set(judged[-1].label[fitted].tolist())) < 2:  # an answer to everything answers nothing
        raise SettingsError(
            f"task {task.name}: {' and '.join(task.models)} answer every text with the same label",
            advice="train a model that tells the labels apart; its answers are right only as often as the label is",
        )
    known = _known(task, terms, rows, inside, tiers, scores, truth) if terms.llms else None
    offsets = np.zeros(len(labels))
    if known is not None and task.target_error is not None:
        offsets = gate_offsets(known.among(parts.calibration), GAIN_COVERAGE)
    if task.escalate_max is not None:
        cuts = share_cuts(task.escalate_max, judged, inside, parts.calibration, len(labels))
    elif task.precision_min or task.miss_max:
        cuts = planned_cuts(judged, truth, inside, parts.calibration, promises, len(labels))
    else:
        cuts = cuts_of(judged, fitted, offsets)
    if known is not None and task.by_gain:
        cut = _gain_cut(known.among(parts.calibration, parts.certification), task, judged, truth, inside, samples)
    else:
        cut = certified_cut(cuts, judged, truth, inside, samples, promises, terms.delta)
    rule = None
    if known is not None:
        kept = accepted_as(cut.by_label, judged, inside) if cut else np.full(len(rows), NOT_ACCEPTED)
        chosen = known.among(parts.calibration, parts.certification)
        rule = vote_rule(chosen, kept[chosen.places] == NOT_ACCEPTED)
    shown = cut is not None and not task.by_gain
    own = () if cut is None else tuple(math.inf if math.isinf(one) else shortest(one) for one in cut.by_label)
    strictest = max((one for one in own if math.isfinite(one)), default=None)
    # Equal cuts are one cut; else the strictest stands for any label without its own.
    apart = own if len(set(own)) > 1 else ()
    tiers = [replace(tier, threshold=strictest, label_thresholds=apart) for tier in tiers]
    test = [rows[int(row)] for row in parts.test]
    router = _router(task, labels, tiers, domain)
    routed = route_scored(
        router, [row.text for row in test], {name: scores[name].rows(parts.test) for name in task.models}
    )
    made = TaskPolicy(
        labels=labels,
        tiers=tuple(_tier_policy(tier, labels) for tier in tiers),
        target_error=task.target_error,
        precision_min=task.precision_min,
        miss_max=task.miss_max,
        prevalence=task.prevalence,
        reference="human",
        costs=costs_of(task),
        asking_cost=task.asking_cost,
        certificate=certificate(task, cut, promises, labels, terms.delta) if cut is not None and shown else None,
        domain=domain,
        sample=_sample(files, parts, truth, labels),
        measured=measured(routed, truth[parts.test], len(tiers)),
        made_at=terms.made_at,
        gain_llm=terms.llms[0] if offsets.any() else None,
        votes=rule,
        share=held_share(task.escalate_max, cut, judged, inside, parts.calibration),
    )
    evidence = Evidence(
        rows=rows,
        parts=parts,
        samples=samples,
        truth=truth,
        inside=inside,
        known_share=_known_share(task, scores),
        scores=scores,
        tiers=tiers,
        promises=promises,
        delta=terms.delta,
        cuts=cuts,
        cut=cut,
    )
    return Calibrated(made, test, routed, evidence)


def _gain_cut(
    known: Known,
    task: Task,
    judged: Sequence[Judged],
    truth: IndexArray,
    inside: BoolArray,
    samples: Sequence[IndexArray],
) -> Cut:
    """Where only the gain decides: no promise, so the rows meant for certification help to find it."""
    by_label = gain_cuts(known, task.asking_cost).astype(np.float32)
    taken = accepted_as(by_label, judged, inside)
    return Cut(by_label, tuple(counts_of(truth[rows], taken[rows], len(by_label)) for rows in samples))


def _known(
    task: Task,
    terms: Terms,
    rows: Sequence[RecordedRow],
    inside: BoolArray,
    tiers: Sequence[Tier],
    scores: Mapping[str, Scores],
    truth: IndexArray,
) -> Known:
    """The rows inside the domain that have a recorded answer of every LLM named."""
    answered = np.array([all(row.has_answer_of(llm) for llm in terms.llms) for row in rows])
    if not answered.any():
        raise SettingsError(
            f"no row has a recorded answer of {' and '.join(terms.llms)}", advice="rows hold them in the field `llm`"
        )
    places = np.flatnonzero(answered & inside)
    chosen = [rows[int(place)] for place in places]
    probabilities, _, _ = tiers[-1].judge([scores[model.name] for model in tiers[-1].models])
    return Known(
        places,
        [_judged(tier, scores).rows(places) for tier in tiers],
        Seen(probabilities[places], np.array([len(row.text) for row in chosen], np.intp)),
        Recordings.of(terms.llms, chosen, tiers[0].models[0].labels, terms.prices),
        truth[places],
        folds(chosen, FOLDS),
        tiers[0].models[0].labels,
        costs_of(task),
    )


def _judged(tier: Tier, scores: Mapping[str, Scores]) -> Judged:
    _, label, confidence = tier.judge([scores[model.name] for model in tier.models])
    return Judged(label, confidence)


def _router(task: Task, labels: tuple[str, ...], tiers: Sequence[Tier], domain: Domain) -> TaskRouter:
    """The task as the hot path will route it, for the test."""
    return TaskRouter(
        task=task.name,
        labels=labels,
        llm_only=(),
        tiers=tuple(tiers),
        certified=True,
        uncertified_reason=None,
        policy=None,
        known_share_min=domain.known_share_min,
        scripts=Scripts(domain.scripts),
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
    rows = [row for file in files for row in file.rows]
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


def _names(tier: str | tuple[str, ...]) -> tuple[str, ...]:
    return (tier,) if isinstance(tier, str) else tier


def _known_share(task: Task, scores: Mapping[str, Scores]) -> FloatArray:
    """What the first tier knows of each text: the least of its models' shares."""
    return np.minimum.reduce([scores[name].known_share for name in _names(task.tiers[0])])


def _domain(task: Task, rows: Sequence[RecordedRow], scores: Mapping[str, Scores], used: IndexArray) -> Domain:
    """What the calibration part's texts are like; their labels have no say in it."""
    texts = [rows[row].text for row in used]
    known = _known_share(task, scores)[used]
    lengths: list[float] = np.quantile([len(text) for text in texts], [0.01, 0.5, 0.99]).tolist()
    return Domain(
        known_share_min=shortest(np.quantile(known, KNOWN_SHARE_QUANTILE, method="lower")),
        known_share_quantile=KNOWN_SHARE_QUANTILE,
        scripts=scripts_of(texts),
        text_chars=(round(lengths[0], 1), round(lengths[1], 1), round(lengths[2], 1)),
    )


def _inside(task: Task, domain: Domain, rows: Sequence[RecordedRow], scores: Mapping[str, Scores]) -> BoolArray:
    admits = Scripts(domain.scripts).admits
    written = np.fromiter((admits(row.text) for row in rows), np.bool_, len(rows))
    return written & (_known_share(task, scores) >= np.float32(domain.known_share_min))


def measured(routed: Routed, truth: IndexArray, tiers: int) -> Measured:
    """What came of rows with known labels. Confidence is judged over all rows, accepted or not."""
    right, accepted = routed.label == truth, routed.accepted
    errors = calibration_errors(routed.probabilities, truth)
    return Measured(
        coverage=to_six_digits(accepted.mean()),
        accepted_error=to_six_digits((~right[accepted]).mean()) if accepted.any() else None,
        small_accuracy=to_six_digits(right.mean()),
        tier_coverage=tuple(to_six_digits((accepted & (routed.tier == tier)).mean()) for tier in range(tiers)),
        expected_calibration_error=to_six_digits(errors.expected_calibration_error),
        brier=to_six_digits(errors.brier),
        negative_log_likelihood=to_six_digits(errors.negative_log_likelihood),
        area_under_risk_coverage=to_six_digits(errors.area_under_risk_coverage),
    )


def _tier_policy(tier: Tier, labels: tuple[str, ...]) -> TierPolicy:
    knots = tier.knots
    return TierPolicy(
        members=tuple(
            Member(
                model=model.name,
                version=model.version,
                weights_sha256=model.weights_sha256,
                weight=weight,
            )
            for model, weight in zip(tier.models, tier.weights, strict=True)
        ),
        isotonic=None
        if knots is None
        else Isotonic(
            confidence=tuple(shortest(x) for x in knots.confidence),
            share_right=tuple(shortest(y) for y in knots.share_right),
        ),
        threshold=tier.threshold,
        label_thresholds={
            label: None if math.isinf(cut) else cut
            for label, cut in zip(labels, tier.label_thresholds or (), strict=bool(tier.label_thresholds))
        },
    )


def _sample(files: Sequence[RecordedFile], parts: Parts, truth: IndexArray, labels: tuple[str, ...]) -> Sample:
    counts = np.bincount(truth, minlength=len(labels))
    return Sample(
        files=tuple(SampleFile(name=file.name, sha256=file.sha256, rows=len(file.rows)) for file in files),
        calibration=len(parts.calibration),
        certification=len(parts.certification),
        test=len(parts.test),
        label_prevalence={label: float(count / len(truth)) for label, count in zip(labels, counts, strict=True)},
    )
