"""What the worker would send to the LLM lane for a routed text, made by the worker's own code, without Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from aiokafka.structs import ConsumerRecord

from stream_app.classify.deciding import Verdicts
from stream_app.classify.outbox import Outbox
from stream_app.classify.tally import Tally
from stream_app.codec import Codec, decode_escalation
from stream_app.kafka.topics import TopicFound, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.events import Escalation, Event
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.settings import Settings


class Escalations:
    """Escalations by one policy's routers."""

    def __init__(self, settings: Settings, routers: tuple[TaskRouter, ...], policy: str | None) -> None:
        topics = {
            planned.name: TopicFound(planned.name, planned.partitions, "delete", -1, planned.message_bytes_max)
            for planned in plan(settings.kafka, None)
        }
        self._outbox = Outbox(settings, Codec(settings.events, settings.kafka.group), routers, topics, policy)
        self._record = ConsumerRecord[bytes | None, bytes | None](
            settings.kafka.input_topic, 0, 0, 0, 0, None, b"{}", None, -1, 2, ()
        )

    def of(self, row: int, event: Event, routed: Sequence[Routed]) -> Escalation | None:
        """The escalation of one row of a routed batch, each task's outcome in `routed`; None if all were accepted."""
        accepted = np.logical_and.reduce([task.accepted for task in routed])
        if accepted[row]:
            return None
        verdicts = Verdicts(tuple(routed), accepted, {})
        outgoing = self._outbox.escalated(row, event, self._record, verdicts, 0, Tally())
        return decode_escalation(outgoing[0].headers).escalation
