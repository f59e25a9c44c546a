"""What the LLM is asked to add to an event besides its labels: a JSON object of the user's own shape. Pure.

The shape is a JSON Schema (2020-12) in the settings, `[llm.enrichment]`. Structured output wants every field of
every object listed as required and no others allowed: both are filled in where the user left them out. What comes
back is validated here as well, for endpoints that promise nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from stream_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENRICHMENT_KEY = "enrichment"
"""Where the object stands in the LLM's answer, and in a decision."""
ADVICE = "correct [llm.enrichment]"


class Enrichment:
    """The user's schema, ready to be sent and to validate answers."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises SettingsError for what is no JSON Schema of an object, or cannot be asked as structured output."""
        self.schema = strict(schema)
        self._validator = _validator(self.schema)

    def problem(self, found: object) -> str | None:
        """Why `found` is no such object, None where it is one. Quotes the schema only, nothing of the answer."""
        error = next(iter(self._validator.iter_errors(cast("Any", found))), None)
        if error is None:
            return None
        rule = ".".join(str(part) for part in error.absolute_schema_path)
        return f"its {ENRICHMENT_KEY!r} did not keep to the schema ({rule})"


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as structured output wants it. Raises SettingsError where the user asked for what cannot be."""
    if schema.get("type", "object") != "object" or not schema.get("properties"):
        raise SettingsError("llm.enrichment must be the JSON Schema of an object with properties", advice=ADVICE)
    return _strict({"type": "object", **schema}, "llm.enrichment")


def _strict(schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    filled = dict(schema)
    for keyword in ("properties", "$defs"):
        if isinstance(named := filled.get(keyword), dict):
            schemas = cast("dict[str, Any]", named)
            filled[keyword] = {name: _inner(each, f"{where}.{name}") for name, each in schemas.items()}
    if "items" in filled:
        filled["items"] = _inner(filled["items"], f"{where}.items")
    if isinstance(choices := filled.get("anyOf"), list):
        filled["anyOf"] = [_inner(each, f"{where}.anyOf") for each in cast("list[Any]", choices)]
    if "properties" in filled:
        names = list(filled["properties"])
        if filled.setdefault("additionalProperties", False) is not False:
            raise SettingsError(f"{where} allows other fields, which structured output cannot", advice=ADVICE)
        if sorted(filled.setdefault("required", names)) != sorted(names):
            raise SettingsError(
                f"{where} has optional fields, which structured output cannot",
                advice='list all in `required`, and let what may be missing be null: type = ["string", "null"]',
            )
    return filled


def _inner(schema: object, where: str) -> object:
    return _strict(cast("dict[str, Any]", schema), where) if isinstance(schema, dict) else schema


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        place = f" at {where}" if where else ""
        raise SettingsError(
            f"llm.enrichment is no JSON Schema{place}: {error.message[:200]}", advice=ADVICE
        ) from error
    return Draft202012Validator(schema)
