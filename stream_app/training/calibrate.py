"""From labelled rows to a policy: fit the tiers' confidence, certify one cut for the task, measure the result.

Three disjoint parts of the rows do the three jobs, split by group (else by text), so that no text and no
near-copy of it serves two. The cut is one number for all tiers, held against each tier's calibrated
confidence: what is certified is the task as a whole, whichever tier accepted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_app.classify.triton import TritonModels
from stream_app.errors import SettingsError
from stream_app.routing.calibration import (
    BoolArray,
    calibration_errors,
)
from stream_app.routing.certification import COVERAGES, Tally, certified_step, error_bound, rows_needed
from stream_app.routing.decide import Routed, TaskRouter, Tier
from stream_app.routing.domain import Scripts, scripts_of
from stream_app.routing.models import FloatArray, IndexArray, Scores, ServedModel
from stream_app.routing.policy import (
    Certificate,
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
from stream_app.settings import Task
from stream_app.training.recorded import RecordedFile, RecordedRow, label_indexes
from stream_app.training.scoring import Progress, route_scored, score
from stream_app.training.tier_fit import fit_tier

CALIBRATION_SHARE, CERTIFICATION_SHARE = 0.35, 0.5
"""The rest is for the test. Certification gets most: a temperature needs hundreds of rows, a bound thousands."""

KNOWN_SHARE_QUANTILE = 0.01
"""One calibration text in a hundred is taken for foreign: the price of refusing what really is."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Terms:
    """What is promised beside the target: it may fail with probability `delta`, over such samples.

    With `each_file` it holds in every file's population by itself. `made_at` is UTC, ISO 8601.
    """

    delta: float
    made_at: str
    each_file: bool = False


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A finished task: its policy, and how its test rows were routed."""

    task: TaskPolicy
    test: Sequence[RecordedRow]
    routed: Routed


@dataclass(frozen=True, slots=True)
class _Parts:
    calibration: IndexArray
    certification: IndexArray
    test: IndexArray


def calibrate_task(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> Calibrated:
    """Make one task's policy. `scores` holds each model's scores of all files' rows, in order.

    With probability 1 - delta over such samples the accepted answers are wrong in at most `task.target_error`
    of the cases. Raises SettingsError where the sample is too small to certify that, with the number needed.
    """
    if task.target_error is None:
        raise SettingsError(f"task {task.name} has no target_error", advice="calibration certifies a target")
    rows = [row for file in files for row in file.rows]
    labels = served[task.models[0]].labels
    truth = np.array(label_indexes(rows, labels), np.intp)
    parts = _split(rows)
    samples = _samples(files, parts.certification) if terms.each_file else [np.arange(len(parts.certification))]
    _refuse_too_few(task.target_error, terms.delta, len(rows), min(map(len, samples)))
    domain = _domain(task, rows, scores, parts.calibration)
    inside = _inside(task, domain, rows, scores)
    fitted = parts.calibration[inside[parts.calibration]]
    tiers = tuple(
        fit_tier(tuple(served[name] for name in _names(tier)), scores, fitted, truth) for tier in task.tiers
    )
    judged = [tier.judge([scores[model.name] for model in tier.models]) for tier in tiers]
    cuts = _cuts([confidence[fitted] for _, _, confidence in judged])
    cut, certificate = _certify(
        cuts,
        [(label[parts.certification], confidence[parts.certification]) for _, label, confidence in judged],
        truth[parts.certification],
        inside[parts.certification],
        samples,
        task.target_error,
        terms.delta,
    )
    router = TaskRouter(
        task=task.name,
        labels=labels,
        llm_only=(),
        tiers=tuple(replace(tier, threshold=cut) for tier in tiers),
        certified=certificate is not None,
        uncertified_reason=None,
        policy=None,
        known_share_min=domain.known_share_min,
        scripts=Scripts(domain.scripts),
    )
    routed = route_scored(
        router,
        [rows[row].text for row in parts.test],
        {name: scores[name].rows(parts.test) for name in task.models},
    )
    made = TaskPolicy(
        labels=labels,
        tiers=tuple(_tier_policy(tier) for tier in router.tiers),
        target_error=task.target_error,
        reference="human",
        certificate=certificate,
        domain=domain,
        sample=_sample(files, parts, truth, labels),
        measured=measured(routed, truth[parts.test], len(tiers)),
        made_at=terms.made_at,
    )
    return Calibrated(made, [rows[row] for row in parts.test], routed)


async def calibrate_on(
    models: TritonModels,
    task: Task,
    files: Sequence[RecordedFile],
    terms: Terms,
    progress: Progress,
) -> Calibrated:
    """`calibrate_task` on the models that Triton serves now. Raises what it and `TritonModels` raise."""
    served = {name: await models.describe(name) for name in task.models}
    texts = [row.text for file in files for row in file.rows]
    scores = {name: await score(models, model, texts, progress) for name, model in served.items()}
    return calibrate_task(task, files, served, scores, terms)


def merged(policy: Policy | None, name: str, task: str, made: TaskPolicy, made_at: str) -> Policy:
    """The policy with the task's new calibration in it, one version on; a first one has version 1."""
    if policy is None:
        return Policy(name=name, version=1, made_at=made_at, tasks={task: made})
    return Policy(name=policy.name, version=policy.version + 1, made_at=made_at, tasks={**policy.tasks, task: made})


def _names(tier: str | tuple[str, ...]) -> tuple[str, ...]:
    return (tier,) if isinstance(tier, str) else tier


def _split(rows: Sequence[RecordedRow]) -> _Parts:
    """Each row's part from a hash of its group, else of its text: the same on every run and every machine."""
    places = np.array([_place(row.text if row.group is None else row.group) for row in rows])
    first, second = CALIBRATION_SHARE, CALIBRATION_SHARE + CERTIFICATION_SHARE
    return _Parts(
        np.flatnonzero(places < first),
        np.flatnonzero((places >= first) & (places < second)),
        np.flatnonzero(places >= second),
    )


def _place(name: str) -> float:
    """A number in [0, 1) that only the name decides. The prefix keeps it apart from other hash splits."""
    digest = hashlib.sha256(b"shunt calibrate\0" + name.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _samples(files: Sequence[RecordedFile], certification: IndexArray) -> list[IndexArray]:
    """For each file, where its rows stand among the certification rows."""
    ends = np.cumsum([len(file.rows) for file in files])
    return [
        np.flatnonzero((certification >= end - len(file.rows)) & (certification < end))
        for file, end in zip(files, ends, strict=True)
    ]


def _refuse_too_few(target_error: float, delta: float, rows: int, certification: int) -> None:
    needed = rows_needed(target_error, delta)
    if certification < needed:
        total = round(needed / CERTIFICATION_SHARE)
        raise SettingsError(
            f"{rows:,} labelled rows are too few to certify an error of {target_error:.2%} at delta {delta:g}",
            advice=f"label at least {total:,} (in each file, if each is to be certified), or raise target_error",
        )


def _known_share(task: Task, scores: Mapping[str, Scores]) -> FloatArray:
    """What the first tier knows of each text: the least of its models' shares."""
    return np.minimum.reduce([scores[name].known_share for name in _names(task.tiers[0])])


def _domain(task: Task, rows: Sequence[RecordedRow], scores: Mapping[str, Scores], used: IndexArray) -> Domain:
    """What the calibration part's texts are like; their labels have no say in it."""
    texts = [rows[row].text for row in used]
    known = _known_share(task, scores)[used]
    lengths = np.quantile([len(text) for text in texts], [0.01, 0.5, 0.99])
    return Domain(
        known_share_min=float(np.quantile(known, KNOWN_SHARE_QUANTILE, method="lower")),
        known_share_quantile=KNOWN_SHARE_QUANTILE,
        scripts=scripts_of(texts),
        text_chars=(float(lengths[0]), float(lengths[1]), float(lengths[2])),
    )


def _inside(task: Task, domain: Domain, rows: Sequence[RecordedRow], scores: Mapping[str, Scores]) -> BoolArray:
    admits = Scripts(domain.scripts).admits
    written = np.fromiter((admits(row.text) for row in rows), np.bool_, len(rows))
    return written & (_known_share(task, scores) >= np.float32(domain.known_share_min))


def _cuts(confidences: Sequence[FloatArray]) -> FloatArray:
    """The fixed sequence of cuts, falling: quantiles of the surest tier's confidence at COVERAGES.

    A text is accepted at a cut exactly if some tier reaches it, so these are the cuts of those coverages. They
    come from the calibration part: the certification rows' labels, and even their texts, have no say.
    """
    surest = np.maximum.reduce(list(confidences))
    return np.quantile(surest, [1 - coverage for coverage in COVERAGES], method="lower").astype(np.float32)


def _certify(
    cuts: FloatArray,
    judged: Sequence[tuple[IndexArray, FloatArray]],
    truth: IndexArray,
    inside: BoolArray,
    samples: Sequence[IndexArray],
    target_error: float,
    delta: float,
) -> tuple[float | None, Certificate | None]:
    """The last cut of the sequence that may be promised in every sample of rows, or None and None."""
    steps = list[list[Tally]]()
    for cut in cuts:
        taken, wrong = np.zeros(len(truth), np.bool_), np.zeros(len(truth), np.bool_)
        for label, confidence in judged:
            now = inside & ~taken & (confidence >= cut)
            wrong |= now & (label != truth)
            taken |= now
        steps.append([Tally(int(taken[rows].sum()), int(wrong[rows].sum())) for rows in samples])
    step = certified_step(steps, target_error, delta)
    if step is None:
        return None, None
    certificate = Certificate(
        error_max=target_error,
        delta=delta,
        rows=sum(len(rows) for rows in samples),
        accepted=sum(tally.accepted for tally in steps[step]),
        wrong=sum(tally.wrong for tally in steps[step]),
        error_bound=max(error_bound(tally.wrong, tally.accepted, delta) for tally in steps[step]),
        each_file=len(samples) > 1,
    )
    return _shortest(cuts[step]), certificate


def measured(routed: Routed, truth: IndexArray, tiers: int) -> Measured:
    """What came of rows with known labels. Confidence is judged over all rows, accepted or not."""
    right, accepted = routed.label == truth, routed.accepted
    errors = calibration_errors(routed.probabilities, truth)
    return Measured(
        coverage=float(accepted.mean()),
        accepted_error=float((~right[accepted]).mean()) if accepted.any() else None,
        small_accuracy=float(right.mean()),
        tier_coverage=tuple(float((accepted & (routed.tier == tier)).mean()) for tier in range(tiers)),
        expected_calibration_error=errors.expected_calibration_error,
        brier=errors.brier,
        negative_log_likelihood=errors.negative_log_likelihood,
        area_under_risk_coverage=errors.area_under_risk_coverage,
    )


def _tier_policy(tier: Tier) -> TierPolicy:
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
            confidence=tuple(_shortest(x) for x in knots.confidence),
            share_right=tuple(_shortest(y) for y in knots.share_right),
        ),
        threshold=tier.threshold,
    )


def _shortest(number: np.float32) -> float:
    """The float with the fewest digits that is this float32: what people read in the policy file."""
    return float(str(number))


def _sample(files: Sequence[RecordedFile], parts: _Parts, truth: IndexArray, labels: tuple[str, ...]) -> Sample:
    counts = np.bincount(truth, minlength=len(labels))
    return Sample(
        files=tuple(SampleFile(name=file.name, sha256=file.sha256, rows=len(file.rows)) for file in files),
        calibration=len(parts.calibration),
        certification=len(parts.certification),
        test=len(parts.test),
        label_prevalence={label: float(count / len(truth)) for label, count in zip(labels, counts, strict=True)},
    )
