"""The values that travel: what a record became, what was decided about it, what leaves.

Pure: no I/O, no clock. Bytes become these values, and these values bytes, in `stream_app.codec` alone.
Times are milliseconds since the epoch, as Kafka counts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

TaskKind = Literal["one_of", "any_of"]
"""How a task's labels stand to each other: exactly one is right, or each is or is not by itself."""

Said = str | tuple[str, ...]
"""What is said of a task: its label; of an `any_of` task all that apply, in the task's order, which may be none."""

NO_LABEL = ""
"""What is counted where none of a task's labels applies."""

Cut = float | dict[str, float | None] | None
"""What an answer is held against: one number, of an `any_of` task each label's. None: never accepted."""

Headers = tuple[tuple[str, bytes | None], ...]
"""Record headers, in order; a name may stand more than once, and Kafka lets a value be null."""

DecidedBy = Literal["small", "llm", "human"]
DegradedReason = Literal["deadline", "budget", "outage", "refused", "invalid_answer"]
LabelledBy = Literal["llm", "human"]
WhyLabelled = Literal["escalated", "audit", "verdict"]
AuditReason = Literal["deadline", "budget", "outage", "refused", "invalid_answer", "expired", "unreadable"]
"""Why an audit got no answer."""
EscalatedBecause = Literal["unsure", "out_of_domain"]
UncertifiedReason = Literal["manual", "no_gain", "shift", "uncalibrated"]


class Kind(StrEnum):
    """What a decision is to its record (DESIGN section 2, guarantee 1)."""

    PROVISIONAL = "provisional"
    FINAL = "final"
    CORRECTION = "correction"


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where a record stood: it identifies the record for ever.

    A struct, as `Event` is: the hot path makes one of each for every record, at a fifth of a dataclass's price.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @property
    def ref(self) -> str:
        """`topic/partition/offset`: the id of an event that has none, and the value of `shunt-source`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One decoded input. `payload` is a JSON object in the very bytes it came in, less the id and text fields."""

    id: str
    text: str
    payload: bytes
    source: Source
    key: bytes | None
    traceparent: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record with a null value: it passes to the decisions topic as it is."""

    source: Source
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One task's answer, as a decision carries it.

    `probabilities` are the small model's calibrated ones, by label; of an `any_of` task they do not share one sum.
    `confidence` is how sure the small model is of `label` (`confidence_of`), or None where the LLM took part.
    `threshold` is the cut that was held against. `certified` is None where no small answer was taken. `votes` (model
    -> label) stands only where the LLM took part.
    """

    label: Said
    confidence: float | None
    probabilities: dict[str, float]
    threshold: Cut
    decided_by: DecidedBy
    model: str
    certified: bool | None
    policy: str | None = None
    escalated_because: EscalatedBecause | None = None
    uncertified_reason: UncertifiedReason | None = None
    votes: dict[str, Said | None] | None = None


def each_label(said: Said) -> tuple[str, ...]:
    """The labels in an answer: the one, or all that apply."""
    return (said,) if isinstance(said, str) else said


def in_words(said: Said) -> str:
    """An answer for people."""
    return said if isinstance(said, str) else ", ".join(said) or "none"


def confidence_of(said: Said, probabilities: Mapping[str, float]) -> float:
    """How sure the small model is of an answer: the label's probability; of several, what it is least sure of."""
    if isinstance(said, str):
        return probabilities.get(said, 0.0)
    return min((max(share, 1.0 - share) for share in probabilities.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an LLM call took. `latency_ms` counts all tries of the call, `cost_usd` all that was paid."""

    model: str
    prompt_version: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_ms: float
    cached: bool
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The output for an event (DESIGN section 6). `pending` names the tasks a provisional still waits for."""

    event: Event
    kind: Kind
    revision: int
    decided_by: DecidedBy
    answers: dict[str, Answer]
    policy: str | None
    certified: bool | None
    decided_at_ms: int
    replaces: int | None = None
    pending: tuple[str, ...] = ()
    degraded: bool = False
    degraded_reason: DegradedReason | None = None
    enrichment: dict[str, object] = field(default_factory=dict[str, object])
    usage: Usage | None = None
    recommended_action: str | None = None


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What it costs to miss a label, and to answer it falsely, in a unit that all labels of a task share."""

    missed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    false_alarm: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class Weighing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the votes of these LLMs are weighed together: a logit's weights (`stream_app.routing.votes`)."""

    voters: tuple[str, ...]
    weights: tuple[float, ...]


class Expecting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How `llm` is expected to answer once the voters have: a logit's weights."""

    llm: str
    voters: tuple[str, ...]
    weights: tuple[float, ...]


class VoteRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What LLMs' votes count for a task, and when a second one is asked.

    An LLM that stands in no `weighing` is obeyed. A second opinion is asked for where it is expected to add at least
    `worth_min` to the chance of being right, or with `costs` to save so much. Weights of labels stand in the order of
    the small model's probabilities.
    """

    weighing: tuple[Weighing, ...]
    expecting: tuple[Expecting, ...] = ()
    costs: dict[str, Cost] = {}
    worth_min: Annotated[float, msgspec.Meta(ge=0)] = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One unsure task inside an escalation.

    `labels` are those the LLM may answer (at least two; pruned where one of them is right), `small` the answer that
    stands if the LLM cannot be used. With `votes` an LLM's answer is weighed, without it is obeyed.
    """

    task: str
    labels: tuple[str, ...]
    small: Answer
    because: EscalatedBecause
    votes: VoteRule | None = None

    @property
    def any_of(self) -> bool:
        """Whether any number of the labels may be right: then the small model's answer is a set of them too."""
        return not isinstance(self.small.label, str)


@dataclass(frozen=True, slots=True)
class Escalation:
    """What the slow lane needs to finish an event without a policy of its own.

    The record on the escalation topic keeps the original key, value and headers; this travels in one more
    header as JSON. `revision` is the number its final will carry, `output_partition` was fixed when the event
    was first decided, `sure` are the answers already accepted. `tasks` names all tasks in the pipeline's order.
    """

    source: Source
    tasks: tuple[str, ...]
    asks: tuple[Ask, ...]
    sure: dict[str, Answer]
    policy: str | None
    revision: int
    output_partition: int
    escalated_at_ms: int


@dataclass(frozen=True, slots=True)
class Parked:
    """What the parked topic says of a degraded final beside its escalation: what a correction would replace.

    `final` is its CloudEvents id (`topic/partition/offset#revision`), for people. The record's own timestamp is when.
    """

    final: str
    revision: int
    reason: DegradedReason


@dataclass(frozen=True, slots=True)
class SmallOpinion:
    """What the small model had said of a task, whether or not that was accepted."""

    label: Said
    confidence: float
    probabilities: dict[str, float]
    model: str


REASON_CHARS_MAX = 1_000
"""Of an LLM's reason no more is kept."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One label that somebody gave to one task of an event: a row of the feedback topic.

    `label` is None where an audited event got no usable answer. `model` is the LLM's name, None for a person.
    `revision` is that of the decision it is about, `at_ms` when the label was given. `reason` is what an LLM gave for
    this one label, where it was asked to.
    """

    id: str
    task: str
    text: str
    label: Said | None
    labelled_by: LabelledBy
    why: WhyLabelled
    model: str | None
    small: SmallOpinion
    policy: str | None
    revision: int
    source: Source
    at_ms: int
    reason: str | None = None


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A person's word on one task of a decided record (`ref`: its source).

    `partition` and `offset` are the place of the newest decision of that record, and `read_to` how far the decisions
    of that partition had been read for it: up to there nothing newer stands. With `audit` the record was drawn
    among those accepted, and this is what a person who was asked about it said.
    """

    ref: str
    task: str
    label: Said
    partition: int
    offset: int
    read_to: int
    at_ms: int
    audit: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """Accepted answers of one event that the LLM is asked about all the same, since chance would have it.

    `answers` are those of the accepted tasks, as they were decided; `labels` are all that each task's answer may be.
    The record on the audits topic keeps the original key, value and headers; this travels in one more header.
    """

    source: Source
    answers: dict[str, Answer]
    labels: dict[str, tuple[str, ...]]
    policy: str | None
    audited_at_ms: int


class Outgoing(NamedTuple):
    """One record to produce. A named tuple, because the hot path makes one for every event."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None = None
