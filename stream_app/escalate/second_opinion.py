"""Asks another LLM where the first one's answer leaves it worth its price, by the tasks' rules (`routing.votes`).

    the first answered, or gave no usable answer ─► worth asking? ─► the second's turn ─► call ─► both votes
                                                        └ no                └ none in time: the first's opinion stands

Only a call of the first that ended in an opinion leads here. Nothing that the second does makes an event late or
degraded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.escalate.ask import Asker, UnderWay
from stream_app.escalate.cache import AnswerCache
from stream_app.escalate.opinion import both, opinion_of, paid
from stream_app.escalate.question import Dropped, GotAnswer, NoAnswer
from stream_app.escalate.voting import voted, worth

if TYPE_CHECKING:
    from stream_app.escalate.line import Line
    from stream_app.escalate.opinion import Opinion
    from stream_app.escalate.prompt import Prompter, Request
    from stream_app.escalate.question import AskResult
    from stream_app.events import Ask, Escalation, Event


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A second opinion that is worth asking for: beside which one, about which tasks, and how."""

    first: GotAnswer | NoAnswer
    opinion: Opinion
    escalation: Escalation
    chars: int
    asks: tuple[Ask, ...]
    request: Request


class SecondOpinion:
    """Second opinions of the line's one endpoint, with a cache of their own."""

    def __init__(self, line: Line, prompter: Prompter) -> None:
        self._model = line.endpoints[0].client.model
        self._prompter, self._metrics = prompter, line.metrics
        self._asker = Asker(line, AnswerCache())

    async def beside(
        self, first: AskResult, partition: int, escalation: Escalation, event: Event, deadline_s: float
    ) -> AskResult:
        """What both say by `deadline_s` (running time), or `first` alone where no second opinion is to be had.

        Safe to cancel.
        """
        wanted = self._wanted(first, escalation, event)
        if wanted is None:
            return first
        return self._together(wanted, await self._asker.ask(partition, [wanted.request], deadline_s))

    async def beside_after_all(
        self, first: AskResult, partition: int, escalation: Escalation, event: Event, deadline_s: float
    ) -> AskResult | UnderWay:
        """The same for a parked event, with what the others leave."""
        wanted = self._wanted(first, escalation, event)
        if wanted is None:
            return first
        second = await self._asker.ask_after_all(partition, [wanted.request], deadline_s)
        return second if isinstance(second, UnderWay) else self._together(wanted, second)

    def _wanted(self, first: AskResult, escalation: Escalation, event: Event) -> _Wanted | None:
        """The question; None where it is worth its price for no task.

        Where the first said nothing of any task, all are asked, or some would be without an answer. A short budget
        is spent by what the opinion is worth.
        """
        if isinstance(first, Dropped) or (opinion := opinion_of(first)) is None:
            return None
        chars = len(event.text)
        worths = {ask.task: worth(ask, chars, opinion.cast(ask.task), self._model) for ask in escalation.asks}
        if (most := max(worths.values())) <= 0:
            return None
        asks = tuple(ask for ask in escalation.asks if opinion.answer is None or worths[ask.task] > 0)
        request = self._prompter.render(replace(escalation, asks=asks), event)
        return _Wanted(first, opinion, escalation, chars, asks, replace(request, change=most))

    def _together(self, wanted: _Wanted, second: AskResult) -> GotAnswer | NoAnswer:
        """Both opinions as one result, with all that was paid; the first's alone where the second has none."""
        first, opinion = wanted.first, wanted.opinion
        if isinstance(second, Dropped):
            self._metrics.second_opinion("handed_over")
            return first
        told, tasks = opinion_of(second), [ask.task for ask in wanted.escalation.asks]
        found = None if told is None else both(opinion, told, tasks, [ask.task for ask in wanted.asks])
        if isinstance(second, NoAnswer):
            self._metrics.second_opinion(second.reason)
        elif found is not None:
            self._metrics.second_opinion("changed" if _changed(wanted, found) else "same")
        return replace(first, usage=paid(opinion.usage, second.usage)) if found is None else found


def _changed(wanted: _Wanted, found: GotAnswer) -> bool:
    """Whether some task's label is another than by the first's opinion alone."""
    return any(
        voted(ask, wanted.chars, wanted.opinion.cast(ask.task)) != voted(ask, wanted.chars, found.cast(ask.task))
        for ask in wanted.asks
    )
