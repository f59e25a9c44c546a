"""What becomes of a label that a person gave: sent, passed over since it was said before, or refused. Pure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stream_app.cli.said import Said, Unusable
from stream_app.codec import (
    audit_result_record,
    encode_feedback,
    encode_verdict,
    persons_result,
    record_batch_bytes,
    timestamp_ms,
)
from stream_app.events import Feedback, Outgoing, SmallOpinion, Source, Verdict, confidence_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.cli.decided_about import About, Newest
    from stream_app.codec import AnswerMessage
    from stream_app.events import Said as Label
    from stream_app.kafka.topics import TopicFound


@dataclass(frozen=True, slots=True)
class Before:
    """What was said before on records (their sources) and tasks."""

    newest: dict[tuple[str, str], Label] = field(default_factory=dict["tuple[str, str]", "Label"])
    """What the newest verdict said."""
    audited: set[tuple[str, str]] = field(default_factory=set["tuple[str, str]"])
    """What has counted as an audit: it counts once, whatever is said later."""

    def take(self, verdict: Verdict) -> None:
        """One more verdict, in their order."""
        self.newest[verdict.ref, verdict.task] = verdict.label
        if verdict.audit:
            self.audited.add((verdict.ref, verdict.task))


@dataclass(frozen=True, slots=True)
class Sends:
    """It is new: a row for the feedback topic, the verdict for the worker that corrects, and an audit's result."""

    said: Said
    ref: str
    outgoing: tuple[Outgoing, ...]


@dataclass(frozen=True, slots=True)
class SaidBefore:
    """The newest verdict says so already."""

    said: Said
    ref: str


Fate = Sends | SaidBefore | Unusable


class VerdictJudge:
    """Judges labels by the decisions that they are about. `owners`: how many partitions number corrections."""

    def __init__(
        self,
        about: About,
        texts: Mapping[str, str],
        feedback: TopicFound,
        results: TopicFound,
        verdicts: str,
        owners: int,
    ) -> None:
        """`texts` has those of events, by source, whose rows lack them; `results` is the topic of audit results."""
        self._about, self._texts, self._results = about, texts, results
        self._feedback, self._verdicts, self._owners = feedback, verdicts, owners

    def fate(self, said: Said, before: Before, now_ms: int) -> Fate:
        """What becomes of it; what is sent is noted in `before`."""
        ref = self.ref_of(said)
        if isinstance(ref, Unusable):
            return ref
        newest = self._about.newest[ref]
        answer = newest.standing.decision.answers.get(said.task)
        problem = _unlike(said, answer)
        if answer is None or problem is not None:
            return Unusable(said.place, problem or "")
        said = _in_order(said, answer)
        if answer.escalated_because is not None or (ref, said.task) in before.audited:
            said = replace(said, audit=False)  # it was not accepted, or has counted
        by_person = answer.label if answer.decided_by == "human" else None
        if before.newest.get((ref, said.task), by_person) == said.label and not said.audit:
            return SaidBefore(said, ref)
        text = said.text or self._texts.get(ref)
        if text is None:
            return Unusable(said.place, f"the row has no text, and the record {ref} is gone")
        row = self._row(said, newest, answer, text, now_ms)
        key, value, headers = encode_feedback(row)
        if record_batch_bytes(key, value, headers) > self._feedback.message_bytes_max:
            return Unusable(said.place, f"it is too large for {self._feedback.name} (max.message.bytes)")
        kept = Outgoing(self._feedback.name, self._feedback.partition_of(key), key, value, headers)
        verdict = self._verdict(said, ref, newest, now_ms)
        before.take(verdict)
        outgoing = (kept, Outgoing(self._verdicts, self._owner_of(ref, newest), *encode_verdict(verdict)))
        return Sends(said, ref, (*outgoing, self._result(row, answer)) if said.audit else outgoing)

    def ref_of(self, said: Said) -> str | Unusable:
        """The source of the event that is meant; Unusable where no decision is known, or more than one fits."""
        if said.ref is not None:
            newest = self._about.newest.get(said.ref)
            if newest is None:
                return Unusable(said.place, f"there is no final decision about {said.ref} (not yet, or not any more)")
            if said.id is not None and said.id != newest.standing.decision.id:
                return Unusable(said.place, f"the record {said.ref} is {newest.standing.decision.id}, not {said.id}")
            return said.ref
        refs = self._about.sources.get(said.id or "", set())
        if len(refs) > 1:
            return Unusable(said.place, f"{len(refs)} records have the id {said.id}: name its source")
        if not refs:
            return Unusable(said.place, f"there is no final decision about {said.id} (not yet, or not any more)")
        return next(iter(refs))

    def _row(self, said: Said, newest: Newest, answer: AnswerMessage, text: str, now_ms: int) -> Feedback:
        decision = newest.standing.decision
        source = decision.source
        return Feedback(
            id=decision.id,
            task=said.task,
            text=text,
            label=said.label,
            labelled_by="human",
            why="audit" if said.audit else "verdict",
            model=None,
            small=small_opinion(answer),
            policy=decision.policy,
            revision=decision.revision,
            source=Source(source.topic, source.partition, source.offset, timestamp_ms(source.timestamp)),
            at_ms=now_ms,
        )

    def _verdict(self, said: Said, ref: str, newest: Newest, now_ms: int) -> Verdict:
        read_to = self._about.read_to[newest.partition]
        return Verdict(ref, said.task, said.label, newest.partition, newest.offset, read_to, now_ms, said.audit)

    def _owner_of(self, ref: str, newest: Newest) -> int:
        """The partition whose owner numbers the record's corrections: where it was parked, else any fixed one."""
        parked_at = newest.standing.parked_at
        return (zlib.crc32(ref.encode()) if parked_at is None else parked_at) % self._owners

    def _result(self, row: Feedback, answer: AnswerMessage) -> Outgoing:
        result = persons_result(row, answer.policy)
        return Outgoing(self._results.name, 0, *audit_result_record(result, self._results.message_bytes_max))


def small_opinion(answer: AnswerMessage) -> SmallOpinion:
    """What the small model had said: the answer itself, or its vote beside an LLM's or a person's."""
    shares = answer.probabilities
    if answer.decided_by == "small":
        label, model = answer.label, answer.model
    else:
        voted = next(((model, label) for model, label in (answer.votes or {}).items() if label is not None), None)
        model, label = voted or (answer.model, _likeliest(answer))
    return SmallOpinion(label, confidence_of(label, shares), shares, model)


def _likeliest(answer: AnswerMessage) -> Label:
    """By the small model's probabilities: the top label, or all that are likelier than not."""
    shares = answer.probabilities
    if isinstance(answer.label, str):
        return max(shares, key=shares.__getitem__, default=answer.label)
    return tuple(label for label, share in shares.items() if share >= 0.5)


def _in_order(said: Said, answer: AnswerMessage) -> Said:
    """Several labels as the task has them: so the same ones are the same label."""
    if isinstance(said.label, str):
        return said
    return replace(said, label=tuple(label for label in answer.probabilities if label in said.label))


def _unlike(said: Said, answer: AnswerMessage | None) -> str | None:
    """What of a person's label does not fit the decision's answer to that task."""
    if answer is None:
        return f"the decision about {said.about} has no task {said.task}"
    if isinstance(answer.label, str) != isinstance(said.label, str):
        form = "a list of labels" if isinstance(said.label, str) else "one label"
        return f"the decision about {said.about} has {form} for {said.task}"
    foreign = [] if isinstance(said.label, str) else [one for one in said.label if one not in answer.probabilities]
    return f"{said.task} has no label {foreign[0]}" if foreign else None
