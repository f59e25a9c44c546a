"""What a chat request asks: the text to judge, and the form the answer must take."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

CHARS_PER_TOKEN = 4  # the usual rule of thumb for English; the stand-in bills by it
EVENT_ID_HEADER = "x-shunt-event-id"  # URL-quoted
TEXT_SHA256_HEADER = "x-shunt-text-sha256"

Json = dict[str, Any]

_EVENT = re.compile(r"^<event>[ \t]*\n(.*)^</event>", re.DOTALL | re.MULTILINE)


class BadRequestError(Exception):
    """The request is not one a chat endpoint takes; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `schema` is the JSON Schema of the answer, or None.

    In plain JSON mode (`wants_json`) the schema stands in the instructions, as endpoints without structured
    output are asked.

    `text_sha256` is what the client says the text's hash is, for texts that stand shortened in the prompt, or
    else the hash of the text in the prompt.
    """

    model: str
    text: str
    text_sha256: str
    schema: Json | None
    wants_json: bool
    event_id: str | None
    input_tokens: int
    output_tokens_max: int


def read_request(body: bytes, headers: Mapping[str, str]) -> Asked:
    """The request in `body`. Raises `BadRequestError`."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise BadRequestError("model is required")
    request = cast("Json", request)
    contents = _contents(request.get("messages"))
    if request.get("stream"):
        raise BadRequestError("the stand-in does not stream")
    text = event_text(contents[-1][1] if contents[-1][0] == "user" else "")
    schema, wants_json = _form(request.get("response_format"))
    if schema is None and wants_json:
        schema = next(filter(None, (_schema_in(content) for role, content in contents if role != "user")), None)
    return Asked(
        model=request["model"],
        text=text,
        text_sha256=headers.get(TEXT_SHA256_HEADER) or sha256(text),
        schema=schema,
        wants_json=wants_json,
        event_id=unquote(headers.get(EVENT_ID_HEADER, "")) or request.get("user"),
        input_tokens=tokens(sum(len(content) for _, content in contents)),
        output_tokens_max=int(request.get("max_completion_tokens") or request.get("max_tokens") or 0),
    )


def api_key(headers: Mapping[str, str]) -> str:
    """The key a call is made with: OpenAI's bearer token, or what Azure OpenAI takes; empty where there is none."""
    return headers.get("authorization", "").removeprefix("Bearer ") or headers.get("api-key", "")


def event_text(message: str) -> str:
    """The text to judge in a user message: what stands between the lines `<event>` and `</event>`.

    It may stand there as it is or as a JSON string (or an object with a `text`). The outermost markers count,
    since the text itself may hold some. Without markers it is the whole message.
    """
    found = _EVENT.search(message)
    if found is None:
        return message
    inner = found.group(1).removesuffix("\n")
    try:
        value = json.loads(inner)
    except ValueError:
        return inner
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(cast("Json", value).get("text"), str):
        return cast("Json", value)["text"]
    return inner


def _schema_in(instructions: str) -> Json | None:
    """The first JSON Schema of an object that stands in a text."""
    decoder = json.JSONDecoder()
    at = instructions.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(instructions, at)
        except ValueError:
            value = None
        if isinstance(value, dict) and "properties" in value:
            return cast("Json", value)
        at = instructions.find("{", at + 1)
    return None


def sha256(text: str) -> str:
    """The hash by which a text is known, in hex."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def tokens(characters: int) -> int:
    """Tokens of so many characters, at least one."""
    return max(1, round(characters / CHARS_PER_TOKEN))


def _contents(messages: object) -> list[tuple[str, str]]:
    """Role and text of every message; a message's content may be a string or a list of parts."""
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list with at least one message")
    found: list[tuple[str, str]] = []
    for message in cast("list[Json]", messages):
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in cast("list[Json]", content))
        found.append((str(message.get("role")), str(content)))
    return found


def _form(response_format: Json | None) -> tuple[Json | None, bool]:
    kind = (response_format or {}).get("type", "text")
    if kind == "json_schema":
        schema = cast("Json", response_format).get("json_schema", {}).get("schema")
        if not isinstance(schema, dict):
            raise BadRequestError("response_format.json_schema.schema is required")
        return cast("Json", schema), True
    if kind in {"json_object", "text"}:
        return None, kind == "json_object"
    raise BadRequestError(f"response_format.type {kind!r} is not known")
