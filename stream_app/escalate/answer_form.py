"""The form of the LLM's answer: a label for each asked task, and what else the settings ask for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_app.errors import SettingsError
from stream_app.escalate.enrichment import ENRICHMENT_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_app.escalate.enrichment import Enrichment

    Allowed = Mapping[str, Sequence[str]]

FORM = "Answer with one JSON object and nothing else, of exactly this form:"
SCHEMA = "It must conform to this JSON Schema:"
REASON_KEY = "reason"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What stands in an answer beside the labels.

    `allowed` maps each asked task to its labels; a list of them answers those of `any_of`.
    """

    reason: bool = False
    enrichment: Enrichment | None = None

    def __post_init__(self) -> None:
        """Raises SettingsError where both want the same field of a decision's enrichment."""
        if self.reason and self.enrichment is not None and REASON_KEY in self.enrichment.schema["properties"]:
            raise SettingsError(
                f"llm.enrichment has a field {REASON_KEY!r}, and llm.reason is on", advice="rename the field"
            )

    @property
    def keys(self) -> list[str]:
        """The fields that are not tasks."""
        return [REASON_KEY] * self.reason + [ENRICHMENT_KEY] * (self.enrichment is not None)

    def schema(self, allowed: Allowed, any_of: Collection[str] = ()) -> dict[str, Any]:
        """The JSON Schema of an answer.

        The reason comes first, so that the model has given it before it names a label; the enrichment last. That a
        list names no label twice is not said: strict endpoints refuse `uniqueItems`, and twice is as good as once.
        """
        properties: dict[str, Any] = {REASON_KEY: {"type": "string"}} if self.reason else {}
        for task, labels in allowed.items():
            one = {"type": "string", "enum": list(labels)}
            properties[task] = {"type": "array", "items": one} if task in any_of else one
        if self.enrichment is not None:
            properties[ENRICHMENT_KEY] = self.enrichment.schema
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def response_format(self, allowed: Allowed, any_of: Collection[str] = ()) -> dict[str, Any]:
        """As endpoints with structured output take it."""
        schema = self.schema(allowed, any_of)
        return {"type": "json_schema", "json_schema": {"name": "labels", "strict": True, "schema": schema}}

    def in_words(self, allowed: Allowed, any_of: Collection[str] = ()) -> str:
        """The answer's shape in words, for every endpoint: those without schemas have nothing else."""
        fields = [f'{quoted(REASON_KEY)}: "<one short sentence>"'] if self.reason else []
        for task, labels in allowed.items():
            choice = " | ".join(quoted(label) for label in labels)
            fields.append(f"{quoted(task)}: [{choice}, ...]" if task in any_of else f"{quoted(task)}: {choice}")
        if self.enrichment is not None:
            fields.append(f"{quoted(ENRICHMENT_KEY)}: {orjson.dumps(self.enrichment.schema).decode()}")
        return "{" + ", ".join(fields) + "}"


def quoted(text: str) -> str:
    """`text` as a JSON string: a label cannot break out of its line either."""
    return orjson.dumps(text).decode()
