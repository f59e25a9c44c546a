"""What a policy would have done with labelled rows whose LLM answers are recorded, and what simpler rules would.

A recorded null is a refusal, and what is none of the task's labels an invalid answer: where no LLM gave a label, the
small model's stands, degraded. Costs are input tokens, estimated from the recorded prompt's length: small models cost
next to nothing beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_app.routing.decide import Route, Routed
from stream_app.routing.models import IndexArray
from stream_app.routing.payoff import Payoff
from stream_app.routing.policy import Certificate
from stream_app.routing.votes import NO_ANSWER
from stream_app.training.asked import Asked
from stream_app.training.calibrate import Calibrated
from stream_app.training.recorded import RecordedRow, label_indexes
from stream_app.training.voting import Recordings


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another way to choose what the LLM is asked: the share it asks, and how often the outcome is right."""

    escalated_share: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class WithLlm:
    """What the LLMs' recorded answers make of it. `name` is the one asked, `second` may be heard too.

    `llm_accuracy` is the first's alone and counts no answer as wrong; `llm_filled_accuracy` lets the small model
    answer instead. `second_share` is the share of all rows that the second was asked about.
    `performance_gap_recovered` is (accuracy - small) / (LLM - small), None where the LLM alone is not better.
    `cost_share` is the cost of all calls against asking the first about every text. `random` asks about as many
    texts, drawn blindly (its expectation); `oracle` about those, up to as many, where only the LLM is right, taking
    its answer nowhere else.
    """

    name: str
    accuracy: float
    small_accuracy: float
    llm_accuracy: float
    llm_filled_accuracy: float
    escalated_llm_accuracy: float | None
    escalated_small_accuracy: float | None
    refused: int
    second: str | None
    second_share: float
    cost_share: float
    performance_gap_recovered: float | None
    random: Baseline
    oracle: Baseline
    losses: "Losses | None" = None


@dataclass(frozen=True, slots=True)
class Losses:
    """What wrong answers cost a text, in the unit of the task's costs; `llm` is the first's, gaps filled."""

    together: float
    small: float
    llm: float


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
    tiers: int,
    certificate: Certificate | None,
    asked: Asked | None,
    payoff: Payoff | None = None,
) -> Evaluation:
    """Fold routed rows into figures."""
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
        llm=None if asked is None else with_llm(asked, rows, routed, truth, payoff),
    )


def outcomes(
    rows: Sequence[RecordedRow], labels: tuple[str, ...], routed: Routed, asked: Asked | None
) -> list[dict[str, object]]:
    """Each row's outcome as a JSON object, without its text. Without an LLM the small answers stand everywhere."""
    escalated = ~routed.accepted
    answered = np.zeros(len(rows), np.bool_) if asked is None else asked.answered(escalated)
    lines = list[dict[str, object]]()
    for place, row in enumerate(rows):
        small = row.says(int(routed.label[place]), labels)
        heard = () if asked is None or not escalated[place] else _heard(asked, place)
        taken = asked is not None and answered[place]
        lines.append(
            {
                "id": row.id,
                "label": row.truth,
                "answer": row.says(int(asked.voted.label[place]), labels) if asked is not None and taken else small,
                "decided_by": "llm" if taken else "small",
                "small": small,
                "confidence": float(routed.confidence[place]),
                "tier": int(routed.tier[place]),
                "route": Route(int(routed.route[place])).name.lower(),
                "votes": {llm: row.answer_of(llm) for llm in heard},
                "degraded_reason": _degraded_reason(row, heard) if heard and not taken else None,
            }
        )
    return lines


def _heard(asked: Asked, place: int) -> tuple[str, ...]:
    """The LLMs that are asked about an escalated row."""
    return asked.recorded.llms[: 1 + bool(asked.voted.second[place])]


def _degraded_reason(row: RecordedRow, heard: Sequence[str]) -> str:
    return "refused" if row.answer_of(heard[0]) is None else "invalid_answer"


def with_llm(
    asked: Asked, rows: Sequence[RecordedRow], routed: Routed, truth: IndexArray, payoff: Payoff | None = None
) -> WithLlm:
    """The figures of accepting what was accepted and taking what the LLMs' answers come to for the rest."""
    recorded, escalated = asked.recorded, ~routed.accepted
    small_right, llm_right = routed.label == truth, recorded.answers[0] == truth
    silent = recorded.answers[0] == NO_ANSWER
    filled = np.where(silent, small_right, llm_right)
    accuracy = float(np.where(escalated, asked.voted.label == truth, small_right).mean())
    small, alone, share = float(small_right.mean()), float(llm_right.mean()), float(escalated.mean())
    second = escalated & asked.voted.second
    tokens = np.array([row.prompt_tokens for row in rows])
    price = recorded.price_of(recorded.llms[-1])
    rescued = min(int((filled & ~small_right).sum()), int(escalated.sum()))
    return WithLlm(
        name=recorded.llms[0],
        accuracy=accuracy,
        small_accuracy=small,
        llm_accuracy=alone,
        llm_filled_accuracy=float(filled.mean()),
        escalated_llm_accuracy=float(llm_right[escalated].mean()) if escalated.any() else None,
        escalated_small_accuracy=float(small_right[escalated].mean()) if escalated.any() else None,
        refused=int((escalated & ~asked.answered(escalated)).sum()),
        second=recorded.llms[1] if len(recorded.llms) > 1 else None,
        second_share=float(second.mean()),
        cost_share=float((tokens[escalated].sum() + price * tokens[second].sum()) / tokens.sum()),
        performance_gap_recovered=(accuracy - small) / (alone - small) if alone > small else None,
        random=Baseline(share, (1 - share) * small + share * float(filled.mean())),
        oracle=Baseline(rescued / len(rows), small + rescued / len(rows)),
        losses=None if payoff is None else _losses(payoff, asked, routed, truth),
    )


def _losses(payoff: Payoff, asked: Asked, routed: Routed, truth: IndexArray) -> Losses:
    given = asked.recorded.answers[0]
    together = np.where(routed.accepted, routed.label, asked.voted.label)
    alone = np.where(given == NO_ANSWER, routed.label, given)
    costs = [float(payoff.cost(truth, answer).mean()) for answer in (together, routed.label, alone)]
    return Losses(*costs)


def helped(made: Calibrated, llms: Sequence[str], prices: Mapping[str, float]) -> WithLlm | None:
    """What the LLMs make of a calibration's test rows, those that have their answers; None where none has."""
    known = np.flatnonzero([all(row.has_answer_of(llm) for llm in llms) for row in made.test])
    if not llms or not len(known):
        return None
    rows, labels = [made.test[int(row)] for row in known], made.task.labels
    recorded, routed = Recordings.of(llms, rows, labels, prices), made.routed.rows(known)
    truth = np.array(label_indexes(rows, labels), np.intp)
    payoff = Payoff.of(labels, made.task.costs)
    return with_llm(Asked.of(recorded, made.task.votes, rows, routed), rows, routed, truth, payoff)
