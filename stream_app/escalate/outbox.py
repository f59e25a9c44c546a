"""What leaves the slow lane for an event: a final, a copy to park or to review, a correction, labels, a dead letter.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stream_app.codec import (
    Cause,
    cause_of,
    dead_letter,
    encode_parked,
    record_batch_bytes,
    with_parked_at,
    with_verdict,
)
from stream_app.escalate.by_people import overruled
from stream_app.escalate.decide import answered, corrected, degraded
from stream_app.escalate.labels import FeedbackRows, labels_given
from stream_app.events import Outgoing, Parked, Source
from stream_app.routing.action import recommended_action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.codec import Codec, EscalatedRecord
    from stream_app.errors import UnreadableRecord
    from stream_app.escalate.question import GotAnswer, NoAnswer
    from stream_app.escalate.standing import Standing
    from stream_app.events import Decision, DegradedReason, Event, Headers, Said, Verdict
    from stream_app.kafka.topics import TopicFound
    from stream_app.settings import Settings

    Record = ConsumerRecord[bytes | None, bytes | None]

STAGE = "escalate"
FOR_PEOPLE: frozenset[DegradedReason] = frozenset({"refused", "invalid_answer"})
"""The LLM was there and gave no usable answer: a person may want to look."""
REVIEW_REASON = "shunt-review-reason"
SHUNT_SOURCE = "shunt-source"
OUTPUT_TOO_LARGE = "output_too_large"
NOT_PARKED = "bad_parked"
"""The cause of what says of no final that it stands (`codec.decode_parked`)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record ended: what is produced for it, and what the metrics count once that is committed."""

    outgoing: tuple[Outgoing, ...]
    decision: Decision | None
    dead_cause: str | None = None
    parked: bool = False
    """The event will be asked after all: a copy waits on the parked topic."""
    gave_up: str | None = None
    """Why a parked event is not corrected: its degraded final stands."""
    verdict: str | None = None
    """What became of a person's verdict."""
    labels: int = 0
    """Rows for the feedback topic among `outgoing`."""
    labels_left_out: int = 0
    """Rows that the feedback topic does not take."""
    audits: tuple[tuple[str, str], ...] = ()
    """Of an audit: task and result of each."""


def given_up(why: str) -> Outcome:
    """A parked event is not corrected, for this reason: its final stands, and nothing more leaves for it."""
    return Outcome((), None, gave_up=why)


class Outbox:
    """Turns what became of a question into records to produce."""

    def __init__(self, settings: Settings, codec: Codec, topics: Mapping[str, TopicFound]) -> None:
        """`topics`: the pipeline's topics by name, as `stream_app.kafka.topics.require` gives them."""
        names = settings.kafka.names
        self._codec = codec
        self._decisions, self._dlq = topics[names.decisions], topics[names.dlq]
        self._review, self._parked = topics[names.review], topics[names.parked]
        self.feedback = FeedbackRows(topics[names.feedback], keep=settings.feedback.llm_answers)
        self._actions = settings.decisions.recommended_action
        llm = settings.llm
        self._when: dict[DegradedReason, Literal["wait", "degrade", "dlq"]] = {
            "deadline": llm.on_deadline,
            "budget": llm.on_budget,
            "outage": llm.on_outage,
        }

    def answered(
        self, record: Record, original: EscalatedRecord, event: Event, got: GotAnswer, at_ms: int
    ) -> Outcome:
        """The LLM's final, and the labels it gave."""
        decision = answered(event, original.escalation, got, at_ms, self._recommend)
        return self._with_labels(self._final(record, original, decision), original, got)

    def unanswered(
        self, record: Record, original: EscalatedRecord, event: Event, none: NoAnswer, at_ms: int
    ) -> Outcome:
        """A dead letter where the settings say so, else the degraded final, with a copy to park or to review.

        The copy leaves in the same transaction as the final: so neither is ever there without the other.
        """
        if self._when.get(none.reason) == "dlq":
            source = original.escalation.source
            cause = Cause(STAGE, f"llm_{none.reason}", "LlmError", none.why)
            return self._dead(record, original.headers, source, cause)
        decision = degraded(event, original.escalation, none, at_ms, self._recommend)
        for_people = none.reason in FOR_PEOPLE
        parked = None if for_people else self._park(record, original, decision, none.reason)
        outcome = self._final(record, original, decision, None if parked is None else parked.partition)
        if outcome.decision is None:
            return outcome
        if for_people:
            return replace(outcome, outgoing=(*outcome.outgoing, self._copy(record, original, none)))
        return outcome if parked is None else replace(outcome, outgoing=(*outcome.outgoing, parked), parked=True)

    def corrected(
        self, record: Record, original: EscalatedRecord, event: Event, parked: Parked, got: GotAnswer, at_ms: int
    ) -> Outcome:
        """The correction of a parked event's final, where the final went, and the labels the LLM gave."""
        decision = corrected(event, original.escalation, parked, got, at_ms, self._recommend)
        value, headers = self._codec.encode_decision(decision)
        headers = with_parked_at(headers, record.partition)
        if record_batch_bytes(record.key, value, headers) > self._decisions.message_bytes_max:
            return given_up(OUTPUT_TOO_LARGE)  # the record has its outcome already: no dead letter
        outcome = Outcome((self._decided(record, original, value, headers),), decision)
        return self._with_labels(outcome, original, got)

    def overruled(self, standing: Standing, verdict: Verdict, place: str, at_ms: int) -> Outcome:
        """The correction that a person's verdict makes of the newest decision, where that stands.

        `place` is the verdict's own: the correction names it.
        """
        if verdict.task not in standing.decision.answers:
            return Outcome((), None, verdict="no_such_task")
        decision = overruled(standing.decision, verdict, at_ms, self._recommend, standing.key, standing.traceparent)
        if decision is None:
            return Outcome((), None, verdict="same")
        value, headers = self._codec.encode_decision(decision)
        headers = with_verdict(headers, place)
        if standing.parked_at is not None:
            headers = with_parked_at(headers, standing.parked_at)
        if record_batch_bytes(standing.key, value, headers) > self._decisions.message_bytes_max:
            return Outcome((), None, verdict=OUTPUT_TOO_LARGE)
        outgoing = Outgoing(self._decisions.name, verdict.partition, standing.key, value, headers)
        return Outcome((outgoing,), decision, verdict="corrected")

    def _with_labels(self, outcome: Outcome, original: EscalatedRecord, got: GotAnswer) -> Outcome:
        """The outcome and, in the same transaction, the labels given; none for what became a dead letter."""
        if outcome.decision is None:
            return outcome
        rows, left_out = self.feedback.of(labels_given(outcome.decision, original.escalation, got))
        outgoing = (*outcome.outgoing, *rows)
        return replace(outcome, outgoing=outgoing, labels=len(rows), labels_left_out=left_out)

    def unreadable(self, record: Record, error: UnreadableRecord) -> Outcome:
        """A record that is none of what its topic is for."""
        source = Source(record.topic, record.partition, record.offset, record.timestamp)
        return self._dead(record, tuple(record.headers), source, cause_of(error, STAGE))

    def unreadable_parked(self, record: Record, error: UnreadableRecord) -> Outcome:
        """A record of the parked topic that cannot be read: a dead letter only where it has no final that stands.

        What was parked has its outcome. Where it cannot be read any more, since `[events]` changed meanwhile, say,
        a dead letter would be a second one.
        """
        return self.unreadable(record, error) if error.cause == NOT_PARKED else given_up("unreadable")

    def _final(
        self, record: Record, original: EscalatedRecord, decision: Decision, parked_at: int | None = None
    ) -> Outcome:
        value, headers = self._codec.encode_decision(decision)
        if parked_at is not None:
            headers = with_parked_at(headers, parked_at)
        size_bytes = record_batch_bytes(record.key, value, headers)
        if size_bytes > self._decisions.message_bytes_max:
            topic, bytes_max = self._decisions.name, self._decisions.message_bytes_max
            message = f"{size_bytes} bytes, but {topic} takes {bytes_max} (max.message.bytes)"
            cause = Cause(STAGE, OUTPUT_TOO_LARGE, "OutputTooLarge", message)
            return self._dead(record, original.headers, original.escalation.source, cause)
        return Outcome((self._decided(record, original, value, headers),), decision)

    def _decided(self, record: Record, original: EscalatedRecord, value: bytes, headers: Headers) -> Outgoing:
        partition = original.escalation.output_partition % self._decisions.partitions
        return Outgoing(self._decisions.name, partition, record.key, value, headers)

    def _park(
        self, record: Record, original: EscalatedRecord, decision: Decision, reason: DegradedReason
    ) -> Outgoing | None:
        """The escalation as it came, and which final it would correct; None where that fits no parked topic."""
        final = f"{original.escalation.source.ref}#{decision.revision}"
        headers = encode_parked(Parked(final, decision.revision, reason), tuple(record.headers))
        if record_batch_bytes(record.key, record.value, headers) > self._parked.message_bytes_max:
            return None
        partition = record.partition % self._parked.partitions
        at_ms = decision.decided_at_ms
        return Outgoing(self._parked.name, partition, record.key, record.value, headers, at_ms)

    def _copy(self, record: Record, original: EscalatedRecord, none: NoAnswer) -> Outgoing:
        """The escalation as it came (it says what was asked), and why it is here; cut as dead letters are."""
        source = original.escalation.source
        told = ((SHUNT_SOURCE, source.ref.encode()), (REVIEW_REASON, none.reason.encode()))
        headers: Headers = (*((name, value or b"") for name, value in record.headers), *told)
        partition = source.partition % self._review.partitions
        if record_batch_bytes(record.key, record.value, headers) <= self._review.message_bytes_max:
            return Outgoing(self._review.name, partition, record.key, record.value, headers)
        cause = Cause(STAGE, f"llm_{none.reason}", "LlmError", none.why)
        cut = dead_letter(record.key, record.value, headers, source, cause, self._review.message_bytes_max)
        return Outgoing(self._review.name, partition, cut.key, cut.value, cut.headers)

    def _dead(
        self, record: Record, headers: Sequence[tuple[str, bytes | None]], source: Source, cause: Cause
    ) -> Outcome:
        letter = dead_letter(record.key, record.value, headers, source, cause, self._dlq.message_bytes_max)
        partition = source.partition % self._dlq.partitions
        outgoing = Outgoing(self._dlq.name, partition, letter.key, letter.value, letter.headers)
        return Outcome((outgoing,), None, cause.name)

    def _recommend(self, answers: Sequence[Said]) -> str | None:
        return recommended_action(self._actions, answers)
