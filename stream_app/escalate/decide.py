"""From an escalation and what became of the question to the decision that is published. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_app.escalate.voting import voted
from stream_app.events import Answer, Decision, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.escalate.question import GotAnswer, NoAnswer
    from stream_app.escalate.voting import Cast
    from stream_app.events import Ask, Escalation, Event, Parked, Said

    Recommend = Callable[[Sequence[Said]], str | None]


def answered(
    event: Event, escalation: Escalation, got: GotAnswer, decided_at_ms: int, recommend: Recommend
) -> Decision:
    """The final decision where the LLM answered: what the votes come to for what was asked, the sure answers kept.

    `certified` speaks of the small answers alone; it is None where there are none.
    """
    asked = {ask.task: _from_llm(ask, len(event.text), got.cast(ask.task)) for ask in escalation.asks}
    answers = _in_order(escalation, asked)
    sure = escalation.sure.values()
    return Decision(
        event=event,
        kind=Kind.FINAL,
        revision=escalation.revision,
        decided_by="llm",
        answers=answers,
        policy=escalation.policy,
        certified=all(answer.certified for answer in sure) if sure else None,
        decided_at_ms=decided_at_ms,
        enrichment=got.answer.enrichment,
        usage=got.usage,
        recommended_action=recommend([answer.label for answer in answers.values()]),
    )


def degraded(
    event: Event, escalation: Escalation, none: NoAnswer, decided_at_ms: int, recommend: Recommend
) -> Decision:
    """The final decision where the LLM could not be used: the small answers stand, and it says why.

    Nothing backs an answer that its own policy held to be unsure, so none of those is certified.
    """
    stood = {ask.task: replace(ask.small, certified=False, escalated_because=ask.because) for ask in escalation.asks}
    answers = _in_order(escalation, stood)
    return Decision(
        event=event,
        kind=Kind.FINAL,
        revision=escalation.revision,
        decided_by="small",
        answers=answers,
        policy=escalation.policy,
        certified=False,
        decided_at_ms=decided_at_ms,
        degraded=True,
        degraded_reason=none.reason,
        usage=none.usage,
        recommended_action=recommend([answer.label for answer in answers.values()]),
    )


def corrected(
    event: Event, escalation: Escalation, parked: Parked, got: GotAnswer, decided_at_ms: int, recommend: Recommend
) -> Decision:
    """What the LLM says after all, in the place of the degraded final; also where it says the same."""
    late = answered(event, escalation, got, decided_at_ms, recommend)
    return replace(late, kind=Kind.CORRECTION, revision=parked.revision + 1, replaces=parked.revision)


def _in_order(escalation: Escalation, others: dict[str, Answer]) -> dict[str, Answer]:
    """All answers in the order of the pipeline's tasks, as the small finals have them."""
    found = {**escalation.sure, **others}
    return {task: found[task] for task in escalation.tasks}


def _from_llm(ask: Ask, chars: int, cast: Cast) -> Answer:
    return Answer(
        label=voted(ask, chars, cast),
        confidence=None,
        probabilities=ask.small.probabilities,
        threshold=ask.small.threshold,
        decided_by="llm",
        model="+".join(cast),
        certified=None,
        policy=ask.small.policy,
        escalated_because=ask.because,
        votes={ask.small.model: ask.small.label, **cast},
    )
