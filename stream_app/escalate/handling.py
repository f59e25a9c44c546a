"""One event of the slow lane: read from its record, asked about, and turned into an outcome. Parked events too."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import UnreadableRecord
from stream_app.escalate.ask import UnderWay
from stream_app.escalate.outbox import FOR_PEOPLE, given_up
from stream_app.escalate.question import Dropped, GotAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import Codec, EscalatedRecord
    from stream_app.escalate.ask import Asker
    from stream_app.escalate.outbox import Outbox, Outcome
    from stream_app.escalate.parked_work import ParkedWork
    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.escalate.prompt import Prompter, Request
    from stream_app.escalate.question import AskResult, NoAnswer
    from stream_app.escalate.second_opinion import SecondOpinion
    from stream_app.escalate.waste import Waste
    from stream_app.events import Escalation, Event, Parked

    Record = ConsumerRecord[bytes | None, bytes | None]

VERDICT = "verdict"
"""Why a parked event is not corrected by the LLM: a person has decided."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotNow:
    """A parked event goes on waiting. `called`: a call was made in vain.

    `refused`: the lane had no call to spare for it, so it has none for another one.
    """

    called: bool = False
    refused: bool = False


class Handling:
    """Takes an event from start to outcome. `prompters` are each endpoint's of those that stand in for each other;
    `wall_s` dates the decision.
    """

    def __init__(
        self,
        codec: Codec,
        prompters: Sequence[Prompter],
        asker: Asker,
        outbox: Outbox,
        waste: Waste,
        wall_s: Callable[[], float],
        second: SecondOpinion | None = None,
    ) -> None:
        self._codec, self._prompters, self._asker, self._outbox = codec, prompters, asker, outbox
        self._waste, self._wall_s, self._second = waste, wall_s, second

    async def outcome(self, work: PartitionWork, item: Item) -> Outcome | None:
        """What the record becomes; None where its next owner decides."""
        record = item.record
        try:
            original, event = self._codec.decode_escalated(record.key, record.value, record.headers)
        except UnreadableRecord as error:
            return self._outbox.unreadable(record, error)
        result = await self._asked(work.number, original.escalation, event, item.deadline_s)
        at_ms = int(self._wall_s() * 1000)
        if isinstance(result, Dropped):
            return None
        self._waste.asked(work, record.offset, result)
        if isinstance(result, GotAnswer):
            return self._outbox.answered(record, original, event, result, at_ms)
        log.info("event %s: no answer of the LLM (%s): %s", event.source.ref, result.reason, result.why)
        outcome = self._outbox.unanswered(record, original, event, result, at_ms)
        if outcome.decision is not None and not outcome.parked and result.reason not in FOR_PEOPLE:
            log.warning("event %s is too large for the parked topic: it will not be corrected", event.source.ref)
        return outcome

    async def correction(self, work: ParkedWork, item: Item, deadline_s: float) -> Outcome | NotNow:
        """What a parked record becomes, `deadline_s` (running time) being the end of this try."""
        record = item.record
        try:
            parked, original, event = self._codec.decode_parked(record.key, record.value, record.headers)
        except UnreadableRecord as error:
            log.warning("the record parked at %d/%d cannot be read: %s", work.number, record.offset, error.cause)
            return self._outbox.unreadable_parked(record, error)
        if work.verdicts.rules(event.source.ref):
            return given_up(VERDICT)
        result = await self._asked_after_all(work.account, original.escalation, event, deadline_s)
        if isinstance(result, Dropped | UnderWay):
            return NotNow()
        self._waste.asked(work, record.offset, result)
        if work.verdicts.rules(event.source.ref):
            return given_up(VERDICT)
        return self._judged(record, original, event, parked, result)

    def _judged(
        self, record: Record, original: EscalatedRecord, event: Event, parked: Parked, result: GotAnswer | NoAnswer
    ) -> Outcome | NotNow:
        """What the LLM's later answer comes to."""
        if isinstance(result, GotAnswer):
            at_ms = int(self._wall_s() * 1000)
            return self._outbox.corrected(record, original, event, parked, result, at_ms)
        if result.reason in FOR_PEOPLE:
            log.info("event %s is not corrected: %s: %s", event.source.ref, result.reason, result.why)
            return given_up(result.reason)
        log.debug("event %s stays parked (%s): %s", event.source.ref, result.reason, result.why)
        called = result.usage is not None
        return NotNow(called=called, refused=not called)

    async def _asked(self, partition: int, escalation: Escalation, event: Event, deadline_s: float) -> AskResult:
        """What the LLM says, and where that is worth it another one."""
        result = await self._asker.ask(partition, self._rendered(escalation, event), deadline_s)
        if self._second is None:
            return result
        return await self._second.beside(result, partition, escalation, event, deadline_s)

    async def _asked_after_all(
        self, partition: int, escalation: Escalation, event: Event, deadline_s: float
    ) -> AskResult | UnderWay:
        """The same for a parked event, with what the others leave."""
        result = await self._asker.ask_after_all(partition, self._rendered(escalation, event), deadline_s)
        if self._second is None or isinstance(result, UnderWay):
            return result
        return await self._second.beside_after_all(result, partition, escalation, event, deadline_s)

    def _rendered(self, escalation: Escalation, event: Event) -> list[Request]:
        """The request as each endpoint takes it, rendered once for those that take the same."""
        by_prompter = {prompter: prompter.render(escalation, event) for prompter in dict.fromkeys(self._prompters)}
        return [by_prompter[prompter] for prompter in self._prompters]
