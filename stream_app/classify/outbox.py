"""What leaves the hot path for each record: a final, an escalation, a tombstone or a dead letter."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from aiokafka.structs import TopicPartition

from stream_app.classify.columns import column, grades_of
from stream_app.classify.tally import Tally
from stream_app.codec import (
    Cause,
    Codec,
    cause_of,
    dead_letter,
    encode_audit,
    encode_escalation,
    record_batch_bytes,
)
from stream_app.events import (
    NO_LABEL,
    Answer,
    Ask,
    Audit,
    Decision,
    Escalation,
    Event,
    Kind,
    Outgoing,
    Source,
    Tombstone,
    each_label,
)
from stream_app.routing.action import recommended_action
from stream_app.routing.audit_draw import AuditDraw
from stream_app.routing.decide import Route, TaskRouter
from stream_app.routing.holding import Backing
from stream_app.routing.prune import pruned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.deciding import Verdicts
    from stream_app.errors import UnreadableRecord
    from stream_app.events import Said
    from stream_app.kafka.topics import TopicFound
    from stream_app.settings import Settings

    Record = ConsumerRecord[bytes | None, bytes | None]

SIZE_MARGIN_BYTES = 64 * 1024
"""A final whose key and value stay this far below the topic's limit needs no exact count: its headers are less."""


class Outbox:
    """Turns decoded records and verdicts into records to produce, by one policy's routers.

    Of the events `audit_share` are audited.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        routers: tuple[TaskRouter, ...],
        topics: Mapping[str, TopicFound],
        policy: str | None,
        audit_share: float = 0.0,
    ) -> None:
        names = settings.kafka.names
        self._codec = codec
        self._routers = routers
        self._policy = policy
        self._provisional = settings.decisions.provisional
        self._prune_eps = settings.llm.prune_eps if settings.llm.prune else 0.0
        self._actions = settings.decisions.recommended_action
        self._decisions = topics[names.decisions]
        same = self._decisions.partitions == topics[names.input].partitions
        self._kept_numbers = self._decisions.partitions if same else 0
        self._escalations, self._dlq = topics[names.escalations], topics[names.dlq]
        self._audits = topics[names.audits]
        self.audit_draw = AuditDraw(policy, audit_share)
        self._encoder = codec.finals(policy, self._recommend)
        self._grades = [tuple(grades_of(router)) for router in routers]

    # Records that are no events

    def unreadable(self, record: Record, error: UnreadableRecord) -> Outgoing:
        """The dead letter of a record that is no event."""
        return self.dead(record, cause_of(error, "decode"))

    def dead(self, record: Record, cause: Cause) -> Outgoing:
        """The record byte for byte on the dead-letter topic, with its cause."""
        source = Source(record.topic, record.partition, record.offset, record.timestamp)
        letter = dead_letter(record.key, record.value, record.headers, source, cause, self._dlq.message_bytes_max)
        partition = record.partition % self._dlq.partitions
        return Outgoing(self._dlq.name, partition, letter.key, letter.value, letter.headers)

    def is_dead(self, outgoing: Outgoing) -> bool:
        """Whether that is a dead letter."""
        return outgoing.topic == self._dlq.name

    def tombstone(self, tombstone: Tombstone) -> Outgoing:
        """A null value passes as a null value."""
        partition = self.decisions_partition(tombstone.source.partition, tombstone.key)
        headers = self._codec.tombstone_headers(tombstone)
        return Outgoing(self._decisions.name, partition, tombstone.key, None, headers)

    def reach(self, source_partition: int) -> list[TopicPartition]:
        """Every partition that what becomes of that input partition's records may be written to."""
        kept = source_partition < self._kept_numbers
        decisions = self._decisions.each_partition
        dlq = TopicPartition(self._dlq.name, source_partition % self._dlq.partitions)
        return [
            *(decisions[source_partition : source_partition + 1] if kept else decisions),
            dlq,
            *self._escalations.each_partition,
            *(self._audits.each_partition if self.audit_draw.share > 0 else ()),
        ]

    def decisions_partition(self, source_partition: int, key: bytes | None) -> int:
        """The input's number where the counts match, else murmur2 of the key as Java clients take it, else the

        source partition modulo the count. Fixed when the event is first decided.

        The input may have got partitions since the start that the decisions topic has not: for those the key chooses.
        """
        if source_partition < self._kept_numbers:
            return source_partition
        if key is not None:
            return self._decisions.partition_of(key)
        return source_partition % self._decisions.partitions

    # Events

    def accepted(
        self, rows: Sequence[int], events: Sequence[Event], records: Sequence[Record], verdicts: Verdicts, at_ms: int
    ) -> tuple[list[Outgoing], Tally]:
        """The finals of `rows`, all accepted, in order. One too large for its topic becomes a dead letter."""
        tally = Tally(accepted=len(rows))
        if not rows:
            return [], tally
        where = np.asarray(rows, np.intp)
        columns = [
            column(router, grades, verdicts.routed[index], verdicts.held_of(index), where)
            for index, (router, grades) in enumerate(zip(self._routers, self._grades, strict=True))
        ]
        for of_task in columns:
            counts = np.bincount(of_task.label, minlength=len(of_task.choices)).tolist()
            for said, count in zip(of_task.choices, counts, strict=True):
                for label in each_label(said) or (NO_LABEL,):
                    tally.answers[of_task.task, label] += count
        chosen = events if len(rows) == len(events) else [events[row] for row in rows]
        topic, kept = self._decisions.name, self._kept_numbers
        roomy = self._decisions.message_bytes_max - SIZE_MARGIN_BYTES
        outgoing: list[Outgoing] = []
        append = outgoing.append
        for event, (value, headers) in zip(chosen, self._encoder.encode(chosen, columns, at_ms), strict=True):
            number = event.source.partition
            partition = number if number < kept else self.decisions_partition(number, event.key)
            append(Outgoing(topic, partition, event.key, value, headers))
            if len(value) + len(event.key or b"") > roomy:
                self._replace_oversized(outgoing, self._decisions, records[rows[len(outgoing) - 1]], tally)
        return outgoing, tally

    def _replace_oversized(self, outgoing: list[Outgoing], topic: TopicFound, record: Record, tally: Tally) -> None:
        """Replaces the last outgoing record by a dead letter if its topic will not take it."""
        last = outgoing[-1]
        size_bytes = record_batch_bytes(last.key, last.value, last.headers)
        if size_bytes <= topic.message_bytes_max:
            return
        message = f"{size_bytes} bytes, but {topic.name} takes {topic.message_bytes_max} (max.message.bytes)"
        outgoing[-1] = self.dead(record, Cause("classify", "output_too_large", "OutputTooLarge", message))
        tally.dead["output_too_large"] += 1

    def escalated(
        self, row: int, event: Event, record: Record, verdicts: Verdicts, at_ms: int, tally: Tally
    ) -> list[Outgoing]:
        """The escalation of a row with an unsure task, and its provisional decision where one is asked for."""
        sure: dict[str, Answer] = {}
        asks: list[Ask] = []
        for index, router in enumerate(self._routers):
            routed = verdicts.routed[index]
            route = Route(routed.route[row])
            answer = self._answer(index, row, verdicts)
            if route is Route.ACCEPTED:
                sure[router.task] = answer
                continue
            because = "out_of_domain" if route is Route.OUT_OF_DOMAIN else "unsure"
            labels = self._labels_to_ask(router, answer, because)
            votes = router.votes if because == "unsure" else None  # nothing is known of votes outside the domain
            asks.append(Ask(router.task, labels, answer, because, votes))
            tally.escalated[router.task, because] += 1
        number = self.decisions_partition(event.source.partition, event.key)
        escalation = Escalation(
            source=event.source,
            tasks=tuple(router.task for router in self._routers),
            asks=tuple(asks),
            sure=sure,
            policy=self._policy,
            revision=1 if self._provisional else 0,
            output_partition=number,
            escalated_at_ms=at_ms,
        )
        partition = zlib.crc32(_normalised(event.text)) % self._escalations.partitions
        headers = encode_escalation(escalation, record.headers)
        outgoing = [Outgoing(self._escalations.name, partition, record.key, record.value, headers)]
        self._replace_oversized(outgoing, self._escalations, record, tally)
        if self._provisional and outgoing[0].topic == self._escalations.name:
            outgoing.append(self._provisional_of(event, sure, asks, number, at_ms))
            tally.provisional += 1
        return outgoing

    def audit(self, row: int, event: Event, record: Record, verdicts: Verdicts, at_ms: int) -> Outgoing | None:
        """The audit of a row's accepted answers; None where there are none, or it does not fit its topic.

        The LLM may answer whatever the task has: nothing is pruned.
        """
        answers: dict[str, Answer] = {}
        labels: dict[str, tuple[str, ...]] = {}
        for index, router in enumerate(self._routers):
            if Route(verdicts.routed[index].route[row]) is Route.ACCEPTED:
                answers[router.task] = self._answer(index, row, verdicts)
                labels[router.task] = (*router.labels, *router.llm_only)
        if not answers:
            return None
        headers = encode_audit(Audit(event.source, answers, labels, self._policy, at_ms), record.headers)
        if record_batch_bytes(record.key, record.value, headers) > self._audits.message_bytes_max:
            return None
        partition = zlib.crc32(_normalised(event.text)) % self._audits.partitions
        return Outgoing(self._audits.name, partition, record.key, record.value, headers)

    def _labels_to_ask(self, router: TaskRouter, answer: Answer, because: str) -> tuple[str, ...]:
        """The pruned labels, in the model's order, and those no tier can give.

        Nothing is pruned for a text outside the calibrated domain: its probabilities rule nothing out. Nor where any
        label may be right: none of them rules out another.
        """
        if router.any_of:
            return router.labels
        eps = 0.0 if because == "out_of_domain" else self._prune_eps
        return pruned(answer.probabilities, eps, router.llm_only)

    def _answer(self, index: int, row: int, verdicts: Verdicts) -> Answer:
        """What the small models say of a task, accepted or not."""
        router, routed, held = self._routers[index], verdicts.routed[index], verdicts.held_of(index)
        label = int(routed.label[row])
        backing = Backing.FLOOR if held is None else Backing(held.backing[row])
        tier = router.tiers[routed.tier[row]]
        route = Route(routed.route[row])
        probabilities = [round(float(share), 6) for share in routed.probabilities[row]]
        accepted = route is Route.ACCEPTED
        return Answer(
            label=router.said(label),
            confidence=round(float(routed.confidence[row]), 6),
            probabilities=dict(zip(router.labels, probabilities, strict=True)),
            threshold=tier.threshold_of(label) if held is None else round(float(held.cut[row]), 6),
            decided_by="small",
            model=tier.ref,
            certified=router.certified and accepted and backing is Backing.FLOOR,
            policy=router.policy,
            escalated_because=None if accepted else ("out_of_domain" if route is Route.OUT_OF_DOMAIN else "unsure"),
            uncertified_reason=(router.uncertified_reason or backing.uncertified_reason) if accepted else None,
        )

    def _provisional_of(
        self, event: Event, sure: dict[str, Answer], asks: Sequence[Ask], partition: int, at_ms: int
    ) -> Outgoing:
        """The small answers at once, while the LLM is asked."""
        answers = {**sure, **{ask.task: ask.small for ask in asks}}
        ordered = {router.task: answers[router.task] for router in self._routers}
        decision = Decision(
            event=event,
            kind=Kind.PROVISIONAL,
            revision=0,
            decided_by="small",
            answers=ordered,
            policy=self._policy,
            certified=False,
            decided_at_ms=at_ms,
            pending=tuple(ask.task for ask in asks),
            recommended_action=self._recommend([answer.label for answer in ordered.values()]),
        )
        value, headers = self._codec.encode_decision(decision)
        return Outgoing(self._decisions.name, partition, event.key, value, headers)

    def _recommend(self, answers: Sequence[Said]) -> str | None:
        return recommended_action(self._actions, answers)


def _normalised(text: str) -> bytes:
    """Texts that differ in case and spacing alone meet in one partition, and so in one worker's cache."""
    return " ".join(text.casefold().split()).encode("utf-8", "replace")
