"""One event of the slow lane: read from its record, asked about, and turned into an outcome."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stream_app.errors import UnreadableRecord
from stream_app.escalate.question import Dropped, GotAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.codec import Codec
    from stream_app.escalate.ask import Asker
    from stream_app.escalate.outbox import Outbox, Outcome
    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.escalate.prompt import Prompter, Request
    from stream_app.escalate.waste import Waste
    from stream_app.events import Escalation, Event

log = logging.getLogger(__name__)


class Handling:
    """Takes an event from start to outcome. `prompters` are each endpoint's; `wall_s` dates the decision."""

    def __init__(
        self,
        codec: Codec,
        prompters: Sequence[Prompter],
        asker: Asker,
        outbox: Outbox,
        waste: Waste,
        wall_s: Callable[[], float],
    ) -> None:
        self._codec, self._prompters, self._asker, self._outbox = codec, prompters, asker, outbox
        self._waste, self._wall_s = waste, wall_s

    async def outcome(self, work: PartitionWork, item: Item) -> Outcome | None:
        """What the record becomes; None where its next owner decides."""
        record = item.record
        try:
            original, event = self._codec.decode_escalated(record.key, record.value, record.headers)
        except UnreadableRecord as error:
            return self._outbox.unreadable(record, error)
        requests = self._rendered(original.escalation, event)
        result = await self._asker.ask(work.number, requests, item.deadline_s)
        at_ms = int(self._wall_s() * 1000)
        if isinstance(result, Dropped):
            return None
        self._waste.asked(work, record.offset, result)
        if isinstance(result, GotAnswer):
            return self._outbox.answered(record, original, event, result, at_ms)
        log.info("event %s: no answer of the LLM (%s): %s", event.source.ref, result.reason, result.why)
        return self._outbox.unanswered(record, original, event, result, at_ms)

    def _rendered(self, escalation: Escalation, event: Event) -> list[Request]:
        """The request as each endpoint takes it, rendered once for those that take the same."""
        by_prompter = {prompter: prompter.render(escalation, event) for prompter in dict.fromkeys(self._prompters)}
        return [by_prompter[prompter] for prompter in self._prompters]
