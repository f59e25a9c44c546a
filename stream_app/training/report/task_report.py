"""All that the report says of one task, as figures. Pure: drawing and wording are elsewhere.

Every figure is of the test rows, which had no say in the policy, but for those that say otherwise: a certificate's
bound is of the rows that certified.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.domain import Scripts
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.routing.policy import TaskPolicy
from stream_app.routing.votes import NO_ANSWER
from stream_app.training.by_label import LabelOutcome, by_label
from stream_app.training.calibrate import Calibrated
from stream_app.training.evaluate import Losses, helped
from stream_app.training.evidence import at_its_word
from stream_app.training.kept import Kept, counted, kept
from stream_app.training.report.bounds import PromiseSteps, promise_steps
from stream_app.training.report.front import Front
from stream_app.training.report.reliability import Reliability, reliability
from stream_app.training.report.slices import Judgements, Slice, slices
from stream_app.training.report.thin import Thin, thin
from stream_app.training.report.tradeoff import Tradeoff
from stream_app.training.report.with_llms import all_answered, asked_of, front_of, prices_of, tradeoff_of
from stream_app.training.report.yes_or_no import LabelSets, label_sets
from stream_app.training.shares import Share, share_of
from stream_app.training.verdict import Verdict, because, promises_anything, verdict_of

NO_PRICES: Mapping[str, float] = {}


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
    """One task. `llms` come in the order asked for; `front` and the labels' final answers are with the first.

    Of a task of which any label may be right (`any_of`) a text is right where all its labels are; `sets` is None of
    others.
    """

    task: str
    policy: str
    made: TaskPolicy
    verdict: Verdict
    because: str
    by_gain: bool
    losses: Losses | None
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
    sets: LabelSets | None

    @property
    def any_of(self) -> bool:
        """Whether any number of the labels may be right."""
        return self.sets is not None


def panels(made: Calibrated, asked: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Which LLMs are asked together: those that the calibration was told of, then each other one by itself.

    Only those that test rows have recorded answers of, and of the others only those that answered this task's
    question: rows may serve several tasks. Where any label may be right each is by itself, since no second opinion
    is asked for then.
    """
    told = [(name, row.code_of(said, made.task.labels) is not None) for row in made.test for name, said in row.llm]
    found, answering = {name for name, _ in told}, {name for name, answered in told if answered}
    first = tuple(name for name in asked if name in found)
    together = [(name,) for name in first] if made.task.kind == "any_of" else [first] if first else []
    return (*together, *((name,) for name in sorted(answering.difference(first))))


def task_report(
    task: str,
    policy: str,
    made: Calibrated,
    llms: Sequence[tuple[str, ...]],
    prices: Mapping[str, float] = NO_PRICES,
) -> TaskReport:
    """Everything about one calibrated task; `llms` as `panels` gives them."""
    evidence, labels, test = made.evidence, made.task.labels, made.evidence.parts.test
    truth, routed, any_of = evidence.gold[test], made.routed, made.task.kind == "any_of"
    right, accepted = routed.label == truth, routed.accepted
    first = llms[0] if llms else ()
    help_of_first = helped(made, first, prices_of(prices, first))
    final, known, given = _with(first, made, prices)
    judged = Judgements(
        small_right=right,
        accepted=accepted,
        inside=evidence.inside[test],
        known=known if llms else None,
        llm_right=given == truth,
        together_right=final == truth,
    )
    by_slice = slices(made.test, _file_names(made), judged)
    of_labels = by_label(labels, truth, routed.label, accepted, final, any_of=any_of)
    tradeoffs = tuple(tradeoff_of(panel, made, prices) for panel in llms)
    error = share_of(~right[accepted])
    return TaskReport(
        task=task,
        policy=policy,
        made=made.task,
        verdict=verdict_of(made.task, help_of_first),
        losses=None if help_of_first is None else help_of_first.losses,
        by_gain=not promises_anything(made.task),
        because=because(made.task, help_of_first),
        coverage=share_of(accepted),
        accepted_wrong=error,
        small=share_of(right),
        cuts=_cuts(made.task),
        kept=kept(made.task, counted(made.task, truth, routed.label, accepted)),
        tradeoffs=tradeoffs,
        front=front_of(first, made, prices) if llms else None,
        promises=promise_steps(evidence, labels),
        calibrated=reliability(routed.confidence, right),
        at_their_word=_at_their_word(made),
        labels=of_labels,
        slices=by_slice,
        domain=_domain(made, judged),
        thin=thin(evidence, error, of_labels, by_slice, tradeoffs),
        sets=label_sets(labels, truth, routed, _probabilities_at_their_word(made)) if any_of else None,
    )


def _with(
    llms: tuple[str, ...], made: Calibrated, prices: Mapping[str, float]
) -> tuple[IndexArray, BoolArray, IndexArray]:
    """The final labels of the test rows, which of them the LLMs have answered, and what the first said."""
    small, accepted = made.routed.label, made.routed.accepted
    final, given = small.copy(), np.full(len(small), NO_ANSWER, np.intp)
    if not llms:
        return final, np.zeros(len(small), np.bool_), given
    known = all_answered(llms, made.test)
    here = np.flatnonzero(known)
    asked = asked_of(llms, [made.test[int(row)] for row in here], made, made.routed.rows(here), prices)
    given[here] = asked.recorded.answers[0]
    final[here] = np.where(accepted[here], small[here], asked.voted.label)
    return final, known, given


def _at_their_word(made: Calibrated) -> Reliability:
    """Of the same tiers' answers, before calibration."""
    test = made.evidence.parts.test
    tiers = [tier.rows(test) for tier in made.evidence.taken_at_their_word()]
    rows = np.arange(len(test))
    label = np.stack([tier.label for tier in tiers])[made.routed.tier, rows]
    confidence = np.stack([tier.confidence for tier in tiers])[made.routed.tier, rows]
    return reliability(confidence, label == made.evidence.truth[test])


def _probabilities_at_their_word(made: Calibrated) -> FloatArray:
    """Those of the same tiers [test rows, labels], before calibration."""
    evidence, test = made.evidence, made.evidence.parts.test
    tiers = [at_its_word(tier) for tier in evidence.tiers]
    judged = [tier.judge([evidence.scores[model.name].rows(test) for model in tier.models])[0] for tier in tiers]
    return np.stack(judged)[made.routed.tier, np.arange(len(test))]


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
