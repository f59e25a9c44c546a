"""All that the report says of one task, as figures. Pure: drawing and wording are elsewhere.

Every figure is of the test rows, which had no say in the policy, but for those that say otherwise: a certificate's
bound is of the rows that certified.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.domain import Scripts
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import TaskPolicy
from stream_app.routing.promises import NOT_ACCEPTED, counts_of
from stream_app.training.beside_llm import final_labels
from stream_app.training.by_label import LabelOutcome, by_label
from stream_app.training.calibrate import Calibrated
from stream_app.training.evaluate import answers_of, helped
from stream_app.training.evidence import Evidence
from stream_app.training.kept import Kept, kept
from stream_app.training.report.bounds import PromiseSteps, promise_steps
from stream_app.training.report.family import decided, family, offsets_of
from stream_app.training.report.front import Front, Seen, front
from stream_app.training.report.reliability import Reliability, reliability
from stream_app.training.report.slices import Judgements, Slice, slices
from stream_app.training.report.thin import Thin, thin
from stream_app.training.report.tradeoff import BY_HAND, Answered, Tradeoff, answered, tradeoff
from stream_app.training.shares import Share, share_of
from stream_app.training.verdict import Verdict, because, verdict_of


@dataclass(frozen=True, slots=True)
class DomainCheck:
    """What the check took for foreign, and why (a text can be so for both reasons); how often each kind is right."""

    known_share_min: float
    scripts: tuple[str, ...]
    outside: Share
    knows_too_little: int
    other_scripts: int
    small_inside: Share
    small_outside: Share
    llm_outside: Share | None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task. `llms` come in the order asked for; `front` and the labels' final answers are with the first."""

    task: str
    policy: str
    made: TaskPolicy
    verdict: Verdict
    because: str
    coverage: Share
    accepted_wrong: Share
    small: Share
    cuts: Mapping[str, float | None]
    kept: tuple[Kept, ...]
    tradeoffs: tuple[Tradeoff, ...]
    front: Front | None
    promises: tuple[PromiseSteps, ...]
    calibrated: Reliability
    at_their_word: Reliability
    labels: tuple[LabelOutcome, ...]
    slices: tuple[Slice, ...]
    domain: DomainCheck
    thin: tuple[Thin, ...]


def recorded_llms(made: Calibrated, first: Sequence[str]) -> tuple[str, ...]:
    """The LLMs that test rows have answers of, those of `first` before the others."""
    found = dict.fromkeys(name for row in made.test for name, _ in row.llm)
    return tuple(dict.fromkeys([name for name in first if name in found] + sorted(found)))


def task_report(task: str, policy: str, made: Calibrated, llms: Sequence[str]) -> TaskReport:
    """Everything about one calibrated task; `llms` as `recorded_llms` gives them."""
    evidence, labels, test = made.evidence, made.task.labels, made.evidence.parts.test
    truth, routed = evidence.truth[test], made.routed
    right, accepted = routed.label == truth, routed.accepted
    help_of_first = helped(made, llms[0]) if llms else None
    final, known, given = _with(llms[0] if llms else None, made, truth)
    counts = counts_of(truth, np.where(accepted, routed.label, NOT_ACCEPTED), len(labels))
    judged = Judgements(
        small_right=right,
        accepted=accepted,
        inside=evidence.inside[test],
        known=known if llms else None,
        llm_right=given == truth,
        together_right=final == truth,
    )
    by_slice = slices(made.test, _file_names(made), judged)
    of_labels = by_label(labels, truth, routed.label, accepted, final)
    tradeoffs = tuple(_tradeoff(llm, made) for llm in llms)
    error = share_of(~right[accepted])
    return TaskReport(
        task=task,
        policy=policy,
        made=made.task,
        verdict=verdict_of(made.task, help_of_first),
        because=because(made.task, help_of_first),
        coverage=share_of(accepted),
        accepted_wrong=error,
        small=share_of(right),
        cuts=_cuts(made.task),
        kept=kept(made.task, counts),
        tradeoffs=tradeoffs,
        front=_front(llms[0], made) if llms else None,
        promises=promise_steps(evidence, labels),
        calibrated=reliability(routed.confidence, right),
        at_their_word=_at_their_word(made, truth),
        labels=of_labels,
        slices=by_slice,
        domain=_domain(made, judged),
        thin=thin(evidence, error, of_labels, by_slice, tradeoffs),
    )


def _with(llm: str | None, made: Calibrated, truth: IndexArray) -> tuple[IndexArray, BoolArray, IndexArray]:
    """The final labels of the test rows, which rows the LLM has answered, and what it said (-1 elsewhere)."""
    small, accepted = made.routed.label, made.routed.accepted
    given = np.full(len(truth), NOT_ACCEPTED, np.intp)
    if llm is None:
        return small, np.zeros(len(truth), np.bool_), given
    known = np.array([row.has_answer_of(llm) for row in made.test], np.bool_)
    refused = ~known
    rows = [made.test[int(row)] for row in np.flatnonzero(known)]
    given[known], refused[known] = answers_of(llm, rows, made.task.labels)
    return final_labels(small, accepted, (given, refused)), known, given


def _answered(llm: str, evidence: Evidence, rows: IndexArray, labels: tuple[str, ...]) -> tuple[IndexArray, Answered]:
    """Those of the rows that the LLM has answered, and its answers."""
    here = np.array([int(row) for row in rows if evidence.rows[int(row)].has_answer_of(llm)], np.intp)
    return here, answered(llm, [evidence.rows[int(row)] for row in here], labels, evidence.truth[here])


def _tradeoff(llm: str, made: Calibrated) -> Tradeoff:
    evidence, test = made.evidence, made.evidence.parts.test
    here, texts = _answered(llm, evidence, test, made.task.labels)
    place = np.searchsorted(test, here)
    judged = evidence.judged()
    of_hand = decided(
        np.full(len(made.task.labels), BY_HAND, np.float32),
        [tier.rows(here) for tier in evidence.taken_at_their_word()],
        np.ones(len(here), np.bool_),
    )
    steps = family(judged, test[evidence.inside[test]], offsets_of(evidence, len(made.task.labels)))
    return tradeoff(
        llm,
        texts,
        (made.routed.label[place], made.routed.accepted[place]),
        of_hand,
        [tier.rows(here) for tier in judged],
        evidence.inside[here],
        steps,
    )


def _front(llm: str, made: Calibrated) -> Front | None:
    """None where one of the two parts has no answer of the LLM."""
    evidence, judged = made.evidence, made.evidence.judged()

    def seen(rows: IndexArray) -> Seen:
        here, texts = _answered(llm, evidence, rows, made.task.labels)
        return Seen([tier.rows(here) for tier in judged], evidence.inside[here], texts)

    chose, test = seen(evidence.chose), seen(evidence.parts.test)
    if not chose.inside.any() or not test.inside.any():
        return None
    return front(evidence.tiers, chose, test, offsets_of(evidence, len(made.task.labels)), made.ms_a_text)


def _at_their_word(made: Calibrated, truth: IndexArray) -> Reliability:
    """Of the same tiers' answers, before calibration."""
    test = made.evidence.parts.test
    tiers = [tier.rows(test) for tier in made.evidence.taken_at_their_word()]
    rows = np.arange(len(test))
    label = np.stack([tier.label for tier in tiers])[made.routed.tier, rows]
    confidence = np.stack([tier.confidence for tier in tiers])[made.routed.tier, rows]
    return reliability(confidence, label == truth)


def _domain(made: Calibrated, judged: Judgements) -> DomainCheck:
    domain, test = made.task.domain, made.evidence.parts.test
    admits = Scripts(domain.scripts).admits
    outside = ~judged.inside
    asked = None if judged.known is None else outside & judged.known
    return DomainCheck(
        known_share_min=domain.known_share_min,
        scripts=domain.scripts,
        outside=share_of(outside),
        knows_too_little=int((made.evidence.known_share[test] < np.float32(domain.known_share_min)).sum()),
        other_scripts=sum(not admits(row.text) for row in made.test),
        small_inside=share_of(judged.small_right[~outside]),
        small_outside=share_of(judged.small_right[outside]),
        llm_outside=None if asked is None else share_of(judged.llm_right[asked]),
    )


def _file_names(made: Calibrated) -> list[str]:
    """Each test row's file."""
    files = made.task.sample.files
    names = np.repeat([file.name for file in files], [file.rows for file in files])
    return names[made.evidence.parts.test].tolist()


def _cuts(task: TaskPolicy) -> dict[str, float | None]:
    tier = task.tiers[0]
    return {label: tier.label_thresholds.get(label, tier.threshold) for label in task.labels}
