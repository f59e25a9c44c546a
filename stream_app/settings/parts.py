"""The smaller tables: events, Triton, the policy's file, the lanes, audits, feedback and the web server."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stream_app.settings.section import PARKED_AGE_MAX_S, PositiveFloat, PositiveInt, Section


class Events(Section):
    """Where an event's id and text stand. Paths use dots; several text fields are joined in order."""

    id_field: str = "id"
    text_fields: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    text_bytes_max: PositiveInt = 1_000_000
    """A longer text is a dead letter (`text_too_long`)."""


class Triton(Section):
    """Where Triton's gRPC port is."""

    url: str = "127.0.0.1:8001"
    timeout_s: PositiveFloat = 10.0


class PolicyFile(Section):
    """The artifact `shunt calibrate` made. Needed by every task with `target_error`."""

    file: Path | None = None


class Decisions(Section):
    """What a decision carries beyond the answers."""

    provisional: bool = False
    recommended_action: dict[str, Literal["publish", "hold", "remove", "review"]] = Field(default_factory=dict)
    """label -> action; the most severe of an event's labels wins."""


class Classify(Section):
    """The hot path."""

    linger_ms: PositiveFloat = 5.0
    batch_records_max: PositiveInt = 16_384
    infer_records_max: Annotated[int, Field(ge=1, le=16_384)] = 4_096
    """Records in one Triton request, never more than the model's own `max_batch_size`; more are cut into several."""


class Escalate(Section):
    """The slow path."""

    linger_ms: PositiveFloat = 200.0
    span_max: Annotated[int, Field(ge=1, le=20_000)] = 20_000
    """Offsets a partition may run ahead of its oldest unfinished one: 20,000 bits fit the offset's metadata."""


class AuditOptions(Section):
    """Accepted answers that the LLM is asked about all the same, drawn by chance: do the promises still hold?"""

    share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of the events with an accepted answer; 0 audits nothing."""
    max_age_s: Annotated[float, Field(gt=0, le=PARKED_AGE_MAX_S)] = 86_400.0
    """An audit that the LLM has had no room for until then counts as lost."""
    on_alarm: Literal["log", "tighten", "llm_only"] = "log"
    """While an alarm stands its task is uncertified; its cut may rise, or the LLM have all of it."""
    shift_min: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A share of events that moved by less than this from the calibration sample's has not shifted."""


class Feedback(Section):
    """What is kept on the feedback topic to train on, texts included."""

    llm_answers: bool = True
    """Each label that an LLM gave. False where texts must not be kept for longer than it takes to decide them."""


class Web(Section):
    """The worker's own web server: health, metrics and, in the feeds role, the live page."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 6066
