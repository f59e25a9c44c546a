"""Past decisions as a what-if needs them: one task's small answer, was the LLM asked, and who said what. Pure.

A decision carries the small models' probabilities also where the LLM answered, so that another cut can be held
against them. What it does not carry is None: whether an accepted answer that nobody looked at is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec import timestamp_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_app.codec import AnswerMessage, DecisionMessage
    from stream_app.events import EscalatedBecause, Usage

Tiers = tuple[str | tuple[str, ...], ...]
AuditKey = tuple[str, str]
"""A record's place (`topic/partition/offset`) and who looked: `llm` or `human`."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One event's answer to one task.

    `label` and `confidence` are the small model's, `cut` what it was held against, `tier` the place of the tier that
    gave it in the task's tiers (None: not one of those). `others_asked` where another task of the event was put to
    the LLM. `usages` are the calls of the event. `llm` is what the LLM lane answered, `audit` what an audit said,
    `human` what a person did: None where none did.
    """

    label: str
    confidence: float
    cut: float | None
    tier: int | None
    policy: str | None
    because: EscalatedBecause | None
    others_asked: bool
    usages: tuple[Usage, ...]
    llm: str | None
    audit: str | None
    human: str | None

    @property
    def truth(self) -> str | None:
        """The best that is known: a person's label, else the LLM's."""
        return self.human or self.llm or self.audit

    @property
    def wrong(self) -> bool | None:
        """Whether the small answer differs from that; None where nobody looked."""
        return None if self.truth is None else self.truth != self.label


@dataclass(slots=True)
class _Story:
    """What the log has said of one record so far."""

    final: DecisionMessage | None = None
    usages: list[Usage] = field(default_factory=list["Usage"])
    llm: dict[str, str] = field(default_factory=dict[str, str])
    human: dict[str, str] = field(default_factory=dict[str, str])


class PastDecisions:
    """Folds the decisions topic. Order between records does not matter, within a record it is the log's."""

    def __init__(self, since_ms: int | None = None) -> None:
        """Finals decided before `since_ms` are left out."""
        self._stories: dict[str, _Story] = {}
        self._since_ms = since_ms

    def add(self, decision: DecisionMessage) -> None:
        """One more decision. Provisional ones say nothing that the final does not."""
        if decision.kind == "provisional":
            return
        story = self._stories.setdefault(decision.source.ref, _Story())
        if decision.kind == "final":
            story.final = decision
        if decision.usage is not None:
            story.usages.append(decision.usage)
        for task, answer in decision.answers.items():
            if not isinstance(answer.label, str):
                continue  # its other cuts cannot be told from a decision
            if answer.decided_by == "llm":
                story.llm[task] = answer.label
            elif answer.decided_by == "human":
                story.human[task] = answer.label

    def events(
        self, task: str, tiers: Tiers, audits: Mapping[AuditKey, str], limit: int | None = None
    ) -> list[PastEvent]:
        """The task's past events, those decided last first, at most `limit`.

        `audits` are the labels that audits of the task came to.
        """
        finals = [
            (timestamp_ms(story.final.decided_at), story)
            for story in self._stories.values()
            if story.final is not None and task in story.final.answers
        ]
        kept = [
            story
            for at_ms, story in sorted(finals, key=lambda pair: -pair[0])
            if self._since_ms is None or at_ms >= self._since_ms
        ]
        return [_event(story, task, tiers, audits) for story in kept[:limit]]


def _event(story: _Story, task: str, tiers: Tiers, audits: Mapping[AuditKey, str]) -> PastEvent:
    final = story.final
    if final is None:
        raise ValueError("a record without a final decision is no past event")
    answer = final.answers[task]
    label = max(answer.probabilities, key=lambda one: answer.probabilities[one])
    place = final.source.ref
    return PastEvent(
        label=label,
        confidence=answer.probabilities[label],
        cut=None if isinstance(answer.threshold, dict) else answer.threshold,
        tier=_tier(answer, tiers),
        policy=answer.policy,
        because=answer.escalated_because,
        others_asked=_any_escalated(one for name, one in final.answers.items() if name != task),
        usages=tuple(story.usages),
        llm=story.llm.get(task),
        audit=audits.get((place, "llm")),
        human=story.human.get(task) or audits.get((place, "human")),
    )


def _any_escalated(answers: Iterable[AnswerMessage]) -> bool:
    return any(answer.escalated_because is not None for answer in answers)


def _tier(answer: AnswerMessage, tiers: Tiers) -> int | None:
    """Which tier gave the small answer: by its models' names, whatever their versions."""
    ref = answer.model if answer.decided_by == "small" else next(iter(answer.votes or {}), "")
    names = tuple(model.rsplit(":", 1)[0] for model in ref.split("+"))
    listed = [(tier,) if isinstance(tier, str) else tier for tier in tiers]
    return listed.index(names) if names in listed else None
