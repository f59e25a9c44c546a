"""What a policy would have done with labelled rows whose LLM answers are recorded, and what simpler rules would.

A recorded null is a refusal: the small model's answer stands, degraded. Costs are input tokens, estimated
from the recorded prompt's length: small models cost next to nothing beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.decide import Route, Routed
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import Certificate
from stream_app.training.calibrate import Calibrated
from stream_app.training.recorded import RecordedRow, label_indexes

WRONG = -1
"""The index of an answer that is none of the task's labels, or of no answer."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another way to choose what the LLM is asked: the share it asks, and how often the outcome is right."""

    escalated_share: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class WithLlm:
    """What the LLM's recorded answers make of it.

    `llm_accuracy` counts a refusal as wrong. `performance_gap_recovered` is (accuracy - small) / (LLM - small),
    None where the LLM alone is not better. `cost_share` is the cost against asking the LLM about every text.
    `random` asks about as many texts, drawn blindly (its expectation); `oracle` about those, up to as many,
    where only the LLM is right, and takes its answer nowhere else.
    """

    name: str
    accuracy: float
    small_accuracy: float
    llm_accuracy: float
    escalated_llm_accuracy: float | None
    escalated_small_accuracy: float | None
    refused: int
    cost_share: float
    performance_gap_recovered: float | None
    random: Baseline
    oracle: Baseline


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures over all rows. `bound_held` says whether the accepted error kept under the certified target."""

    task: str
    rows: int
    small_accuracy: float
    coverage: float
    escalated_share: float
    out_of_domain_share: float
    tier_coverage: tuple[float, ...]
    accepted_error: float | None
    target_error: float | None
    certified_bound: float | None
    bound_held: bool | None
    llm: WithLlm | None


def evaluation(
    task: str,
    rows: Sequence[RecordedRow],
    routed: Routed,
    truth: IndexArray,
    *,
    labels: tuple[str, ...],
    tiers: int,
    certificate: Certificate | None,
    llm: str | None,
) -> Evaluation:
    """Fold routed rows into figures. Raises SettingsError where a row has no recorded answer of `llm`."""
    right, accepted = routed.label == truth, routed.accepted
    error = float((~right[accepted]).mean()) if accepted.any() else None
    target = certificate.error_max if certificate else None
    return Evaluation(
        task=task,
        rows=len(rows),
        small_accuracy=float(right.mean()),
        coverage=float(accepted.mean()),
        escalated_share=float((~accepted).mean()),
        out_of_domain_share=float((routed.route == Route.OUT_OF_DOMAIN).mean()),
        tier_coverage=tuple(float((accepted & (routed.tier == tier)).mean()) for tier in range(tiers)),
        accepted_error=error,
        target_error=target,
        certified_bound=certificate.error_bound if certificate else None,
        bound_held=None if target is None or error is None else error <= target,
        llm=None if llm is None else with_llm(llm, rows, right, accepted, answers_of(llm, rows, labels), truth),
    )


def outcomes(
    rows: Sequence[RecordedRow], labels: tuple[str, ...], routed: Routed, llm: str | None
) -> list[dict[str, object]]:
    """Each row's outcome as a JSON object, without its text. Without an LLM the small answers stand everywhere."""
    lines = list[dict[str, object]]()
    for place, row in enumerate(rows):
        small, accepted = labels[int(routed.label[place])], bool(routed.accepted[place])
        asked = llm is not None and not accepted
        answer = row.answer_of(llm) if llm is not None and asked else None
        lines.append(
            {
                "id": row.id,
                "label": row.label,
                "answer": small if answer is None else answer,
                "decided_by": "small" if answer is None else "llm",
                "small": small,
                "confidence": float(routed.confidence[place]),
                "tier": int(routed.tier[place]),
                "route": Route(int(routed.route[place])).name.lower(),
                "degraded_reason": "refused" if asked and answer is None else None,
            }
        )
    return lines


def answers_of(llm: str, rows: Sequence[RecordedRow], labels: tuple[str, ...]) -> tuple[IndexArray, BoolArray]:
    """The recorded answers as label indexes (WRONG for none of them), and which rows were refused."""
    index = {label: place for place, label in enumerate(labels)}
    answers = [row.answer_of(llm) for row in rows]
    return (
        np.array([WRONG if answer is None else index.get(answer, WRONG) for answer in answers], np.intp),
        np.array([answer is None for answer in answers], np.bool_),
    )


def with_llm(
    name: str,
    rows: Sequence[RecordedRow],
    small_right: BoolArray,
    accepted: BoolArray,
    answers: tuple[IndexArray, BoolArray],
    truth: IndexArray,
) -> WithLlm:
    """The figures of accepting what was accepted and taking the LLM's answer to the rest."""
    llm_right, refused = answers[0] == truth, answers[1]
    escalated = ~accepted
    # A refusal leaves the small answer standing.
    asked_right = np.where(refused, small_right, llm_right)
    accuracy, small = float(np.where(escalated, asked_right, small_right).mean()), float(small_right.mean())
    alone, share = float(llm_right.mean()), float(escalated.mean())
    tokens: Float64Array = np.array([row.prompt_tokens for row in rows])
    rescued = min(int((asked_right & ~small_right).sum()), int(escalated.sum()))
    return WithLlm(
        name=name,
        accuracy=accuracy,
        small_accuracy=small,
        llm_accuracy=alone,
        escalated_llm_accuracy=float(llm_right[escalated].mean()) if escalated.any() else None,
        escalated_small_accuracy=float(small_right[escalated].mean()) if escalated.any() else None,
        refused=int((refused & escalated).sum()),
        cost_share=float(tokens[escalated].sum() / tokens.sum()),
        performance_gap_recovered=(accuracy - small) / (alone - small) if alone > small else None,
        random=Baseline(share, (1 - share) * small + share * float(asked_right.mean())),
        oracle=Baseline(rescued / len(rows), small + rescued / len(rows)),
    )


def helped(made: Calibrated, llm: str) -> WithLlm | None:
    """What the LLM makes of a calibration's test rows, those that have its answer; None where none has."""
    known = np.flatnonzero([row.has_answer_of(llm) for row in made.test])
    if not len(known):
        return None
    rows, labels = [made.test[int(row)] for row in known], made.task.labels
    truth = np.array(label_indexes(rows, labels), np.intp)
    right = made.routed.label[known] == truth
    return with_llm(llm, rows, right, made.routed.accepted[known], answers_of(llm, rows, labels), truth)
