"""A challenger's would-be decisions held against the live ones, event by event."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_app.codec import decode_decision
from stream_app.errors import UnreadableRecord
from stream_app.kafka.reader import read_topic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from stream_app.codec import DecisionMessage
    from stream_app.kafka.connection import Connection

WAITING_MAX = 200_000
"""Events that wait for their other half, of each side: the oldest are let go, and counted."""

Labels = dict[str, Any]
"""Task -> label."""


@dataclass(frozen=True, slots=True)
class Live:
    """A live final: its labels, whether any task was escalated, and whether an LLM or a person answered."""

    labels: Labels
    escalated: bool
    answered: bool


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(slots=True)
class AgainstLive:
    """Both sides by source, as they come, in any order.

    `agreed` are those events that the challenger would accept with just the labels that the live decision has;
    `answered` those of them where the live one has an LLM's or a person's answer.
    """

    matched: int = 0
    accepted: int = 0
    live_escalated: int = 0
    agreed: int = 0
    answered: int = 0
    answered_agreed: int = 0
    let_go: int = 0
    _mine: OrderedDict[str, Labels | None] = field(default_factory=OrderedDict[str, "Labels | None"])
    _live: OrderedDict[str, Live] = field(default_factory=OrderedDict[str, Live])

    def would_be(self, source: str, labels: Labels | None) -> None:
        """The challenger would accept the event with these labels; None: it would escalate it."""
        live = self._live.pop(source, None)
        if live is None:
            self._mine[source] = labels
            self._bound(self._mine)
        else:
            self._match(labels, live)

    def live(self, source: str, final: Live) -> None:
        """The live final of the event."""
        if source in self._mine:
            self._match(self._mine.pop(source), final)
        else:
            self._live[source] = final
            self._bound(self._live)

    def _match(self, labels: Labels | None, live: Live) -> None:
        self.matched += 1
        self.live_escalated += live.escalated
        if labels is None:
            return
        agreed = labels == live.labels
        self.accepted += 1
        self.agreed += agreed
        if live.answered:
            self.answered += 1
            self.answered_agreed += agreed

    def _bound(self, waiting: OrderedDict[str, Any]) -> None:
        if len(waiting) > WAITING_MAX:
            waiting.popitem(last=False)
            self.let_go += 1

    def told(self) -> dict[str, Any]:
        """The figures for a program; shares are null where there is nothing to divide by."""
        return {
            "matched": self.matched,
            "coverage": _share(self.accepted, self.matched),
            "live_coverage": _share(self.matched - self.live_escalated, self.matched),
            "agreement": _share(self.agreed, self.accepted),
            "answered_and_accepted": self.answered,
            "agreement_where_answered": _share(self.answered_agreed, self.answered),
            "unmatched": len(self._mine) + self.let_go,
        }

    def lines(self, policy: str) -> list[str]:
        """The figures for a person."""
        told = self.told()
        if not self.matched:
            return [f"  against the live decisions   none of these events is decided yet ({policy})"]

        def percent(name: str) -> str:
            return "-" if told[name] is None else f"{told[name]:.1%}"

        return [
            f"  against the live decisions   {self.matched:,} events, by {policy}",
            f"    it would accept            {percent('coverage')}, live {percent('live_coverage')}",
            f"    the same labels            {percent('agreement')} of what it would accept",
            f"    ... where the LLM answered {percent('agreement_where_answered')} of {self.answered:,} such events",
        ]


@asynccontextmanager
async def live_finals(connection: Connection, topic: str, against: AgainstLive | None) -> AsyncGenerator[None]:
    """Within the block the live finals are read into `against`, if there is one; at last to where they stand then."""
    if against is None:
        yield
        return
    ending = asyncio.Event()
    reading = asyncio.create_task(_read(connection, topic, against, ending))
    try:
        yield
        ending.set()
        await reading
    finally:
        reading.cancel()


async def _read(connection: Connection, topic: str, against: AgainstLive, ending: asyncio.Event) -> None:
    async with aclosing(read_topic(connection, topic)) as batches:
        async for batch in batches:
            for value in (record.value for record in batch if record.value is not None):
                try:
                    decision = decode_decision(value)
                except (UnreadableRecord, ValueError):
                    continue  # somebody else's record is not ours to count
                if decision.kind == "final":
                    against.live(place_of(decision), final_of(decision))
            if not batch and ending.is_set():
                return


def place_of(decision: DecisionMessage) -> str:
    """Its source, as records are named."""
    source = decision.source
    return f"{source.topic}/{source.partition}/{source.offset}"


def final_of(decision: DecisionMessage) -> Live:
    """What of a final is compared."""
    answers = decision.answers
    return Live(
        labels={task: answer.label for task, answer in answers.items()},
        escalated=any(answer.escalated_because is not None for answer in answers.values()),
        answered=decision.decided_by != "small",
    )
