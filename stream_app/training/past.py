"""Past decisions as a what-if needs them: one task's small answer, was the LLM asked, and who said what. Pure.

A decision carries the small models' probabilities also where the LLM answered, so that another cut can be held
against them. What it does not carry is None: whether an accepted answer that nobody looked at is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec import timestamp_ms
from stream_app.events import confidence_of, each_label
from stream_app.routing.any_of import YES_FROM
from stream_app.training.rounding import to_six_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_app.codec import AnswerMessage, DecisionMessage
    from stream_app.events import Cut, EscalatedBecause, Said, Usage

Tiers = tuple[str | tuple[str, ...], ...]
AuditKey = tuple[str, str]
"""A record's place (`topic/partition/offset`) and who looked: `llm` or `human`."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One event's answer to one task.

    `label` and `confidence` are the small model's: of a task of which any label may be right, all that apply, and
    how sure it is of the one that it is least sure of. `doubt` is the chance, by its probabilities, that `label` is
    wrong. `cut` is what was held against: the highest of several, infinite where one is never accepted. `tier` is
    the place of the tier that gave the answer in the task's tiers (None: not one of those). `others_asked` where
    another task of the event was put to the LLM. `usages` are the calls of the event. `llm` is what the LLM lane
    answered, `audit` what an audit said, `human` what a person did: None where none did, an empty tuple where none
    of the labels applies.
    """

    label: Said
    confidence: float
    doubt: float
    cut: float
    tier: int | None
    policy: str | None
    because: EscalatedBecause | None
    others_asked: bool
    usages: tuple[Usage, ...]
    llm: Said | None
    audit: Said | None
    human: Said | None

    @property
    def truth(self) -> Said | None:
        """The best that is known: a person's label, else the LLM's, else an audit's."""
        return next((said for said in (self.human, self.llm, self.audit) if said is not None), None)

    @property
    def wrong(self) -> bool | None:
        """Whether the small answer differs from that, in any label; None where nobody looked."""
        return None if self.truth is None else {*each_label(self.truth)} != {*each_label(self.label)}


@dataclass(slots=True)
class _Story:
    """What the log has said of one record so far."""

    final: DecisionMessage | None = None
    usages: list[Usage] = field(default_factory=list["Usage"])
    llm: dict[str, Said] = field(default_factory=dict[str, "Said"])
    human: dict[str, Said] = field(default_factory=dict[str, "Said"])


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
            if answer.decided_by == "llm":
                story.llm[task] = answer.label
            elif answer.decided_by == "human":
                story.human[task] = answer.label

    def events(
        self, task: str, tiers: Tiers, audits: Mapping[AuditKey, Said], limit: int | None = None
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


def _event(story: _Story, task: str, tiers: Tiers, audits: Mapping[AuditKey, Said]) -> PastEvent:
    final = story.final
    if final is None:
        raise ValueError("a record without a final decision is no past event")
    answer = final.answers[task]
    ref, label = _small(answer)
    confidence = answer.confidence
    if confidence is None:  # the LLM answered, and the small model's probabilities stand
        confidence = to_six_digits(confidence_of(label, answer.probabilities))
    place = final.source.ref
    by_person = story.human.get(task)
    return PastEvent(
        label=label,
        confidence=confidence,
        doubt=_doubt(label, confidence, answer.probabilities),
        cut=_highest(answer.threshold),
        tier=_tier(ref, tiers),
        policy=answer.policy,
        because=answer.escalated_because,
        others_asked=_any_escalated(one for name, one in final.answers.items() if name != task),
        usages=tuple(story.usages),
        llm=story.llm.get(task),
        audit=audits.get((place, "llm")),
        human=audits.get((place, "human")) if by_person is None else by_person,
    )


def _any_escalated(answers: Iterable[AnswerMessage]) -> bool:
    return any(answer.escalated_because is not None for answer in answers)


def _small(answer: AnswerMessage) -> tuple[str, Said]:
    """The small models' names and what they said: it stands first among the votes where the LLM answered.

    Where no vote tells, it is by the probabilities; these are rounded, so that one just below a half may be a half.
    """
    if answer.decided_by == "small":
        return answer.model, answer.label
    ref, said = next(iter((answer.votes or {}).items()), ("", None))
    if said is not None:
        return ref, said
    shares = answer.probabilities
    if isinstance(answer.label, str):
        return ref, max(shares, key=lambda label: shares[label])
    return ref, tuple(label for label, share in shares.items() if share >= YES_FROM)


def _doubt(said: Said, confidence: float, probabilities: Mapping[str, float]) -> float:
    """The chance of an error. Of several labels each may be wrong, and by itself."""
    if isinstance(said, str):
        return 1 - confidence
    return 1 - math.prod(max(share, 1 - share) for share in probabilities.values())


def _highest(cut: Cut) -> float:
    cuts = cut.values() if isinstance(cut, dict) else (cut,)
    return max((math.inf if one is None else one for one in cuts), default=math.inf)


def _tier(ref: str, tiers: Tiers) -> int | None:
    """Which tier the models are: by their names, whatever their versions."""
    names = tuple(model.rsplit(":", 1)[0] for model in ref.split("+"))
    listed = [(tier,) if isinstance(tier, str) else tier for tier in tiers]
    return listed.index(names) if names in listed else None
