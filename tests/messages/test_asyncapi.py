"""The AsyncAPI document: every reference resolves, and it says what the code does."""

import json
import re
from collections.abc import Iterator
from functools import cache

import jsonschema
import pytest
import yaml

from stream_app.escalate.outbox import FOR_PEOPLE, REVIEW_REASON
from stream_app.settings import Kafka
from tests.messages.test_schemas import SCHEMAS

FILE = "asyncapi.yaml"
ROOT_KEYS = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
CHANNEL_KEYS = {"address", "title", "summary", "description", "servers", "messages", "parameters", "tags", "bindings"}
OPERATION_KEYS = {"action", "channel", "title", "summary", "description", "messages", "reply", "tags", "bindings"}
MESSAGE_KEYS = {"name", "title", "summary", "contentType", "headers", "payload", "examples", "bindings"}


@cache
def loaded(name: str):
    return yaml.safe_load((SCHEMAS / name).read_text())  # JSON is YAML


def references(part, where: str = FILE) -> Iterator[str]:
    """Every `$ref` under `part`, files followed once."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value, where)
    elif isinstance(part, list):
        for value in part:
            yield from references(value, where)


def resolved(reference: str, name: str = FILE):
    """What a reference in the file `name` points to. Raises where it points to nothing."""
    file, _, pointer = reference.partition("#")
    part = loaded(file.removeprefix("./") or name)
    for step in filter(None, pointer.split("/")):
        part = part[step.replace("~1", "/").replace("~0", "~")]
    return part


def inlined(part, name: str = FILE):
    """`part` without references, so that a plain JSON Schema validator can use it."""
    if isinstance(part, dict):
        if "$ref" in part:
            file = part["$ref"].partition("#")[0].removeprefix("./") or name
            rest = {key: inlined(value, name) for key, value in part.items() if key != "$ref"}
            return inlined(resolved(part["$ref"], name), file) | rest
        return {key: inlined(value, name) for key, value in part.items() if key not in {"$id", "$defs", "$schema"}}
    return [inlined(value, name) for value in part] if isinstance(part, list) else part


def _schema(part):
    """The schema itself, where it is wrapped with its format."""
    return part["schema"] if "schemaFormat" in part else part


def headers_schema(message: str):
    """The schema of a message's headers."""
    return inlined(_schema(loaded(FILE)["components"]["messages"][message]["headers"]))


MESSAGES = tuple(loaded(FILE)["components"]["messages"])


def test_it_is_an_asyncapi_3_document():
    """The structure AsyncAPI 3.0.0 asks for: https://www.asyncapi.com/docs/reference/specification/v3.0.0."""
    document = loaded(FILE)
    assert document["asyncapi"] == "3.0.0"
    assert set(document) <= ROOT_KEYS
    assert {"title", "version"} <= set(document["info"])
    for server in document["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for channel in document["channels"].values():
        assert set(channel) <= CHANNEL_KEYS
        assert all(set(message) == {"$ref"} for message in channel["messages"].values())
    for operation in document["operations"].values():
        assert set(operation) <= OPERATION_KEYS
        assert operation["action"] in {"send", "receive"}
    for message in document["components"]["messages"].values():
        assert set(message) <= MESSAGE_KEYS


def test_names_are_names():
    """Component names use the letters AsyncAPI allows."""
    document = loaded(FILE)
    for section in (document["channels"], document["operations"], *document["components"].values()):
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in section)


def test_every_reference_resolves():
    """No reference of the document, nor of a schema it names, points to nothing."""
    for name in (FILE, *(path.name for path in SCHEMAS.glob("*.schema.json"))):
        found = list(references(loaded(name)))
        for reference in found:
            resolved(reference, name)
    assert "./decision.schema.json" in set(references(loaded(FILE)))


def test_operations_stay_within_their_channel():
    """An operation's messages are those of its own channel, and every message of every channel is used."""
    used = set()
    for operation in loaded(FILE)["operations"].values():
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/")
            used.add(message["$ref"])
    offered = {
        f"#/channels/{name}/messages/{message}"
        for name, channel in loaded(FILE)["channels"].items()
        for message in channel["messages"]
    }
    assert used == offered


def test_every_component_is_used():
    """A message or schema nobody refers to would be one nobody keeps true."""
    used = set(references(loaded(FILE)))
    for section, parts in loaded(FILE)["components"].items():
        assert {f"#/components/{section}/{name}" for name in parts} <= used


def test_the_channels_are_the_topics_of_the_settings():
    """The document knows every topic of a pipeline by its default name, and no other."""
    names = Kafka().names
    assert {name: channel["address"] for name, channel in loaded(FILE)["channels"].items()} == names.model_dump()
    for channel in loaded(FILE)["channels"].values():
        assert channel["bindings"]["kafka"]["topic"] == channel["address"]


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_satisfy_their_schemas(name):
    """Each message's schemas are valid JSON Schema, and its examples satisfy them."""
    message = loaded(FILE)["components"]["messages"][name]
    for part in ("headers", "payload"):
        schema = inlined(_schema(message[part]))
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in message.get("examples", ()):
            if part in example:
                jsonschema.Draft202012Validator(schema).validate(example[part])


def test_the_example_decision_is_the_golden_one():
    """The document shows the decision that the golden sample fixes."""
    example = loaded(FILE)["components"]["messages"]["decision"]["examples"][0]["payload"]
    assert example == json.loads((SCHEMAS / "samples/decision/good-final-small.json").read_text())


def test_the_review_headers_are_what_the_slow_lane_writes():
    """The reasons a record is shown to people, and the header that says so, are those of the code."""
    schema = headers_schema("review")
    assert set(schema["properties"][REVIEW_REASON]["enum"]) == FOR_PEOPLE
