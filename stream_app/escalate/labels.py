"""The labels that LLMs gave to an event, as rows of the feedback topic. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_app.codec import encode_feedback, record_batch_bytes
from stream_app.events import Feedback, Outgoing, SmallOpinion, confidence_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_app.escalate.question import GotAnswer
    from stream_app.events import Answer, Audit, Decision, Escalation, Event, Said
    from stream_app.kafka.topics import TopicFound


def labels_given(decision: Decision, escalation: Escalation, got: GotAnswer) -> Iterator[Feedback]:
    """A row for each asked task and each LLM that gave it a label: what that LLM said, not what the votes came to.

    So a row is an opinion of its own, and whoever trains on it weighs it anew. A reason goes with the label of the
    LLM that gave it; where several tasks were asked in one call it is not known for which, and goes with none.
    """
    event, reason = decision.event, got.answer.reason if len(escalation.asks) == 1 else None
    for ask in escalation.asks:
        for model, label in got.cast(ask.task).items():
            if label is not None:
                yield Feedback(
                    id=event.id,
                    task=ask.task,
                    text=event.text,
                    label=label,
                    labelled_by="llm",
                    why="escalated",
                    model=model,
                    small=_opinion(ask.small),
                    policy=decision.policy,
                    revision=decision.revision,
                    source=event.source,
                    at_ms=decision.decided_at_ms,
                    reason=reason,
                )
                reason = None  # it is that of the first that answered


def audits_labels(
    audit: Audit, event: Event, labels: Mapping[str, Said], model: str, at_ms: int
) -> Iterator[Feedback]:
    """A row for each audited task: what the LLM said of an accepted answer; no label where that was nothing usable.

    Such rows are never learned from: with people's they are the fair sample of what is accepted.
    """
    for task, answer in audit.answers.items():
        yield Feedback(
            id=event.id,
            task=task,
            text=event.text,
            label=labels.get(task),
            labelled_by="llm",
            why="audit",
            model=model,
            small=_opinion(answer),
            policy=answer.policy,
            revision=0,
            source=audit.source,
            at_ms=at_ms,
        )


def _opinion(small: Answer) -> SmallOpinion:
    confidence = confidence_of(small.label, small.probabilities) if small.confidence is None else small.confidence
    return SmallOpinion(small.label, confidence, small.probabilities, small.model)


class FeedbackRows:
    """Rows to produce. `keep` is the setting `feedback.llm_answers`."""

    def __init__(self, topic: TopicFound, *, keep: bool) -> None:
        self._topic, self._keep = topic, keep

    def of(self, labels: Iterable[Feedback]) -> tuple[list[Outgoing], int]:
        """The rows of an event's labels, and how many were left out because the topic does not take them."""
        if not self._keep:
            return [], 0
        rows: list[Outgoing] = []
        left_out = 0
        for row in labels:
            out = self._fitting(row)
            if out is None and row.reason is not None:
                out = self._fitting(replace(row, reason=None))  # a reason does not cost the label
            if out is None:
                left_out += 1
            else:
                rows.append(out)
        return rows, left_out

    def _fitting(self, row: Feedback) -> Outgoing | None:
        key, value, headers = encode_feedback(row)
        if record_batch_bytes(key, value, headers) > self._topic.message_bytes_max:
            return None
        return Outgoing(self._topic.name, self._topic.partition_of(key), key, value, headers)
