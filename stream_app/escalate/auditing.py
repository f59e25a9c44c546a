"""One audit: the LLM is asked plainly what was accepted without it, and whether it agrees is told.

Plainly: every label is allowed, nothing is said of the small models, and no answer to another event is taken.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from stream_app.codec import audit_result_record, decode_audit, llm_result
from stream_app.errors import UnreadableRecord
from stream_app.escalate.handling import NotNow
from stream_app.escalate.labels import audits_labels
from stream_app.escalate.outbox import FOR_PEOPLE, Outcome
from stream_app.escalate.question import Dropped, GotAnswer
from stream_app.events import Ask, Escalation, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_app.codec import AuditResultMessage, Codec
    from stream_app.escalate.ask import Asker
    from stream_app.escalate.audit_work import AuditWork
    from stream_app.escalate.outbox import Outbox, Record
    from stream_app.escalate.partition_work import Item
    from stream_app.escalate.prompt import Prompter
    from stream_app.escalate.waste import Waste
    from stream_app.events import Audit, AuditReason, Event, Said
    from stream_app.kafka.topics import TopicFound

log = logging.getLogger(__name__)

NOT_AN_AUDIT = "bad_audit"
"""The cause of what holds no audit at all (`codec.decode_audit`)."""


class Auditing:
    """Takes an audit from start to its results: one for each accepted task. `prompters` are those of escalations."""

    def __init__(
        self,
        codec: Codec,
        prompters: Sequence[Prompter],
        asker: Asker,
        outbox: Outbox,
        results: TopicFound,
        waste: Waste,
        wall_s: Callable[[], float],
    ) -> None:
        plain = {prompter: prompter.plain() for prompter in dict.fromkeys(prompters)}
        self._prompters = [plain[prompter] for prompter in prompters]
        self._codec, self._asker, self._outbox, self._waste = codec, asker, outbox, waste
        self._results, self._wall_s = results, wall_s

    async def outcome(self, work: AuditWork, item: Item, deadline_s: float) -> Outcome | NotNow:
        """What the audit comes to, `deadline_s` (running time) being the end of this try."""
        record = item.record
        try:
            audit, _, event = self._codec.decode_audit(record.key, record.value, record.headers)
        except UnreadableRecord as error:
            return self._unreadable(record, error)
        asked = question(audit)
        by_prompter = {one: one.render(asked, event) for one in dict.fromkeys(self._prompters)}
        requests = [by_prompter[prompter] for prompter in self._prompters]
        result = await self._asker.ask_plainly(work.account, requests, deadline_s)
        if isinstance(result, Dropped):
            return NotNow()
        self._waste.asked(work, record.offset, result, cached=False)
        if isinstance(result, GotAnswer):
            return self._kept(audit, event, result.answer.labels, None, result.usage.model)
        if result.reason in FOR_PEOPLE:
            return self._kept(audit, event, {}, result.reason, result.usage and result.usage.model)
        called = result.usage is not None
        return NotNow(called=called, refused=not called)

    def expired(self, item: Item) -> Outcome:
        """Nobody answered in time."""
        try:
            audit, _, event = self._codec.decode_audit(item.record.key, item.record.value, item.record.headers)
        except UnreadableRecord as error:
            return self._unreadable(item.record, error)
        return self._told(audit, event.id, {}, "expired", None)

    def _kept(
        self,
        audit: Audit,
        event: Event,
        labels: Mapping[str, Said],
        reason: AuditReason | None,
        model: str | None,
    ) -> Outcome:
        """The results, and what a known LLM said as rows of the feedback topic."""
        told = self._told(audit, event.id, labels, reason, model)
        if model is None:
            return told
        rows, left_out = self._outbox.feedback.of(
            audits_labels(audit, event, labels, model, int(self._wall_s() * 1000))
        )
        return replace(told, outgoing=(*told.outgoing, *rows), labels=len(rows), labels_left_out=left_out)

    def _told(
        self,
        audit: Audit,
        event_id: str,
        labels: Mapping[str, Said],
        reason: AuditReason | None,
        model: str | None,
    ) -> Outcome:
        """A result for each task: what else is to be known of an audit's answer leaves here, beside them."""
        at_ms = int(self._wall_s() * 1000)
        results = [
            llm_result(audit, task, event_id, labels.get(task), reason, model, at_ms) for task in audit.answers
        ]
        outgoing = tuple(self._record(result) for result in results)
        return Outcome(outgoing, None, audits=tuple((result.task, result.result) for result in results))

    def _record(self, result: AuditResultMessage) -> Outgoing:
        return Outgoing(self._results.name, 0, *audit_result_record(result, self._results.message_bytes_max))

    def _unreadable(self, record: Record, error: UnreadableRecord) -> Outcome:
        """The event of an audit has its decision: a dead letter is only for what no lane put on that topic."""
        if error.cause == NOT_AN_AUDIT:
            return self._outbox.unreadable(record, error)
        log.warning("the audit at %d/%d cannot be read: %s", record.partition, record.offset, error.cause)
        audit, _ = decode_audit(record.headers)
        return self._told(audit, audit.source.ref, {}, "unreadable", None)


def question(audit: Audit) -> Escalation:
    """The audit as a question about all its tasks, none of which is known."""
    asks = [Ask(task, audit.labels[task], answer, "unsure") for task, answer in audit.answers.items()]
    return Escalation(
        source=audit.source,
        tasks=tuple(audit.answers),
        asks=tuple(asks),
        sure={},
        policy=audit.policy,
        revision=0,
        output_partition=0,
        escalated_at_ms=audit.audited_at_ms,
    )
