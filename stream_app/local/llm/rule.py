"""The fixed rule by which the stand-in answers: words counted, negations heeded, nothing learnt, no chance.

It sees the text and the form of the answer, as an LLM would, and never a gold label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

from stream_app.local.llm.lexicon import (
    LABELS_OF_SENSE,
    NEGATIONS,
    NEGATIVE,
    NEGATIVE_SIGNS,
    POSITIVE,
    POSITIVE_SIGNS,
    TOXIC,
    TURNS,
)

Json = dict[str, Any]

NEGATION_REACH = 3  # words after a negation that it still turns around: "not a very good"
TURN_WEIGHT = 2.0  # what comes after "but" counts double
TOXIC_FROM = 1.0  # toxic words that make a text toxic
PLAIN_STRING = "answered by a fixed rule"  # for fields that are no labels: a reason, a summary
DEPTH_MAX = 16  # of nested schemas

KNOWN = TURNS | NEGATIONS | POSITIVE | NEGATIVE | TOXIC

_WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_STARS = re.compile(r"\b([0-9]|10)\s*(?:/|out of)\s*(5|10)\b")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rule makes of a text: `sentiment` above 0 is positive; `toxic` counts; `words` it is made of."""

    sentiment: float
    toxic: float
    words: frozenset[str]


def read_text(text: str) -> Reading:
    """Read a text once; every question about it is answered from this."""
    sentiment, toxic, weight = 0.0, 0.0, 1.0
    negated_for = 0
    words = [word.lower() for word in _WORDS.findall(text.replace("\u2019", "'"))]
    for word in words:
        if word not in KNOWN and not word.endswith("n't"):  # most words: looked up once, not five times
            negated_for -= negated_for > 0
            continue
        if word in TURNS:
            weight, negated_for = TURN_WEIGHT, 0
        elif word in NEGATIONS or word.endswith("n't"):
            negated_for = NEGATION_REACH
            continue
        polarity = (word in POSITIVE) - (word in NEGATIVE)
        sentiment += weight * (-polarity if negated_for else polarity)
        toxic += word in TOXIC and not negated_for
        negated_for -= negated_for > 0
    sentiment += sum(sign in text for sign in POSITIVE_SIGNS) - sum(sign in text for sign in NEGATIVE_SIGNS)
    for given, most in _STARS.findall(text):
        sentiment += 4.0 * (int(given) / int(most) - 0.5)
    return Reading(sentiment, toxic, frozenset(words))


def choose_label(labels: list[str], reading: Reading) -> str:
    """One of `labels`: the one that fits best; of equals the first."""
    return max(labels, key=lambda label: fit(label, reading))


def fit(label: str, reading: Reading) -> float:
    """How well a label fits, by the sense of its name, or by how many of its own words stand in the text."""
    name = re.sub(r"[\W_]+", "", label.lower())
    sense = next((sense for sense, names in LABELS_OF_SENSE.items() if name in names), None)
    match sense:
        case "positive":
            return reading.sentiment
        case "negative":
            return -reading.sentiment
        case "neutral":
            return 0.5 - abs(reading.sentiment)
        case "toxic":
            return reading.toxic - TOXIC_FROM + 0.5
        case "clean":
            return TOXIC_FROM - 0.5 - reading.toxic
        case _:
            own = re.findall(r"[a-z]+", label.lower())
            return float(sum(word in reading.words or f"{word}s" in reading.words for word in own))


def fill_schema(schema: Json, reading: Reading, recorded: str | None = None) -> Any:
    """A value of the form that `schema` asks for, with labels by the rule, or `recorded` where it is allowed.

    A label that was recorded and is allowed nowhere is put into the first place for a label: the client must
    notice, as with a real LLM that keeps to no schema.
    """
    places = list(_enums(schema, schema, 0))
    misplaced = recorded is not None and not any(recorded in labels for labels in places)
    return _Filler(schema, reading, recorded, misplaced).fill(schema, 0)


@dataclass(slots=True)
class _Filler:
    root: Json
    reading: Reading
    recorded: str | None
    misplaced: bool

    def fill(self, schema: Json, depth: int) -> Any:
        schema = _resolved(schema, self.root)
        if depth > DEPTH_MAX:
            return None
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._label(schema["enum"])
        if (kind := _kind(schema)) == "object":
            fields = cast("dict[str, Json]", schema.get("properties", {}))
            return {name: self.fill(field, depth + 1) for name, field in fields.items()}
        if kind == "array":
            return self._array(cast("Json", schema.get("items", {})))
        plain = {"string": PLAIN_STRING, "number": 0.5, "integer": 0, "boolean": False}
        return schema.get("minimum", plain.get(kind)) if kind in {"number", "integer"} else plain.get(kind)

    def _label(self, labels: list[Any]) -> Any:
        if self.misplaced:
            self.misplaced = False
            return self.recorded
        if self.recorded in labels:
            return self.recorded
        names = [label for label in labels if isinstance(label, str)]
        return choose_label(names, self.reading) if names else labels[0]

    def _array(self, items: Json) -> list[Any]:
        """Every label that fits, where the array is of labels (`any_of` tasks); else nothing."""
        labels = _resolved(items, self.root).get("enum")
        if labels is None:
            return []
        if self.recorded in labels:
            return [self.recorded]
        return [label for label in labels if isinstance(label, str) and fit(label, self.reading) > 0]


def _kind(schema: Json) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return next((one for one in cast("list[str]", kind) if one != "null"), "null")
    return str(kind)


def _resolved(schema: Json, root: Json) -> Json:
    """The schema itself, behind references and choices (the first choice that is not null)."""
    for _ in range(DEPTH_MAX):
        if "$ref" in schema:
            target: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target.get(part, {}) if isinstance(target, dict) else {}
            schema = cast("Json", target)
        elif choices := schema.get("anyOf") or schema.get("oneOf"):
            schema = next((one for one in cast("list[Json]", choices) if one.get("type") != "null"), {})
        else:
            break
    return schema


def _enums(schema: Json, root: Json, depth: int) -> list[list[Any]]:
    """All lists of allowed labels in a schema, in the order of its fields."""
    schema = _resolved(schema, root)
    if depth > DEPTH_MAX:
        return []
    if "enum" in schema:
        return [schema["enum"]]
    below = [*cast("dict[str, Json]", schema.get("properties", {})).values()]
    if isinstance(schema.get("items"), dict):
        below.append(schema["items"])
    return [labels for one in below for labels in _enums(one, root, depth + 1)]
