"""One event of the slow lane: read from its record, asked about, and turned into an outcome."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stream_app.errors import UnreadableRecord
from stream_app.escalate.question import Dropped, GotAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.codec import Codec
    from stream_app.escalate.ask import Asker
    from stream_app.escalate.outbox import Outbox, Outcome
    from stream_app.escalate.partition_work import Item, PartitionWork
    from stream_app.escalate.prompt import Prompter
    from stream_app.escalate.waste import Waste

log = logging.getLogger(__name__)


class Handling:
    """Takes an event from start to outcome. `wall_s` dates the decision."""

    def __init__(
        self,
        codec: Codec,
        prompter: Prompter,
        asker: Asker,
        outbox: Outbox,
        waste: Waste,
        wall_s: Callable[[], float],
    ) -> None:
        self._codec, self._prompter, self._asker, self._outbox = codec, prompter, asker, outbox
        self._waste, self._wall_s = waste, wall_s

    async def outcome(self, work: PartitionWork, item: Item) -> Outcome | None:
        """What the record becomes; None where its next owner decides."""
        record = item.record
        try:
            original, event = self._codec.decode_escalated(record.key, record.value, record.headers)
        except UnreadableRecord as error:
            return self._outbox.unreadable(record, error)
        request = self._prompter.render(original.escalation, event)
        result = await self._asker.ask(work.number, request, item.deadline_s)
        at_ms = int(self._wall_s() * 1000)
        if isinstance(result, Dropped):
            return None
        self._waste.asked(work, record.offset, result)
        if isinstance(result, GotAnswer):
            return self._outbox.answered(record, original, event, result, at_ms)
        log.info("event %s: no answer of the LLM (%s): %s", event.source.ref, result.reason, result.why)
        return self._outbox.unanswered(record, original, event, result, at_ms)
