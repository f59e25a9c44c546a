"""What one LLM has to say of an event, and what two say together. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.escalate.question import GotAnswer, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stream_app.escalate.answer import Valid
    from stream_app.escalate.question import AskResult
    from stream_app.escalate.voting import Cast
    from stream_app.events import Usage

SILENT = frozenset({"refused", "invalid_answer"})
"""Reasons for no answer that are an opinion all the same: the LLM was asked, and had nothing usable to say."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """One LLM's. `answer` is None where it was asked and gave none that could be used."""

    answer: Valid | None
    usage: Usage

    @property
    def model(self) -> str:
        """Who has it."""
        return self.usage.model

    def cast(self, task: str) -> Cast:
        """Its vote on a task, by its model's name."""
        return {self.model: None if self.answer is None else self.answer.labels.get(task)}


def opinion_of(result: AskResult) -> Opinion | None:
    """The opinion in what became of a question; None where nobody got to say anything."""
    match result:
        case GotAnswer(answer=answer, usage=usage):
            return Opinion(answer, usage)
        case NoAnswer(reason=reason, usage=usage) if reason in SILENT and usage is not None:
            return Opinion(None, usage)
        case _:
            return None


def both(first: Opinion, second: Opinion, tasks: Iterable[str], asked: Collection[str]) -> GotAnswer | None:
    """Two opinions as one answer to all `tasks`, the second asked about some of them; None where neither is one.

    What the LLM filled in beside the labels is that of the first that answered.
    """
    answer = first.answer or second.answer
    if answer is None:
        return None
    votes = {task: {**first.cast(task), **(second.cast(task) if task in asked else {})} for task in tasks}
    usage = replace(
        paid(first.usage, second.usage),
        model=f"{first.model}+{second.model}",
        prompt_version="+".join(dict.fromkeys((first.usage.prompt_version, second.usage.prompt_version))),
        request_id=second.usage.request_id or first.usage.request_id,
    )
    return GotAnswer(answer, usage, votes)


def paid(first: Usage, second: Usage | None) -> Usage:
    """The first's usage with what the second took as well."""
    if second is None:
        return first
    return replace(
        first,
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cost_usd=first.cost_usd + second.cost_usd,
        latency_ms=round(first.latency_ms + second.latency_ms, 3),
        cached=first.cached and second.cached,
    )
