"""The JSON Schemas, held against their golden samples."""

import copy
import json
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from stream_app.errors import SettingsError
from stream_app.routing.policy import dump_policy, load_policy
from tests.messages.policy_schema import FILE, SCHEMAS, policy_schema

KINDS = ("event", "decision", "escalation", "dead-letter", "feedback", "policy", "audit-result")
SAMPLES = sorted((SCHEMAS / "samples").glob("*/*.json"))
GOOD = [path for path in SAMPLES if path.name.startswith("good-")]
BAD = [path for path in SAMPLES if path.name.startswith("bad-")]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@cache
def schema(kind: str) -> dict:
    return json.loads((SCHEMAS / f"{kind}.schema.json").read_text())


def closed(part):
    """The schema with every object that names properties closed to others: what we write ourselves."""
    if isinstance(part, dict):
        part = {key: closed(value) for key, value in part.items()}
        if "properties" in part and part.get("type") == "object":
            part["additionalProperties"] = False
    elif isinstance(part, list):
        part = [closed(value) for value in part]
    return part


def validator(kind: str, *, strict: bool = False) -> jsonschema.Draft202012Validator:
    wanted = closed(copy.deepcopy(schema(kind))) if strict else schema(kind)
    return jsonschema.Draft202012Validator(wanted, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_a_schema(kind):
    """Each file is valid JSON Schema 2020-12, names itself, and has good and bad samples."""
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    assert schema(kind)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema(kind)["$id"] == f"urn:shunt:schema:{kind}"
    assert sum(path.parent.name == kind for path in GOOD) >= 2
    assert sum(path.parent.name == kind for path in BAD) >= 3


def test_no_sample_is_left_out():
    """Every sample is good or bad and belongs to a schema: a misspelt name would test nothing."""
    assert {path.parent.name for path in SAMPLES} == set(KINDS)
    assert len(GOOD) + len(BAD) == len(SAMPLES)


@pytest.mark.parametrize("path", GOOD, ids=named)
def test_good_samples_are_valid(path):
    """A good sample satisfies its schema; but for events, it has no field the schema does not name."""
    kind = path.parent.name
    validator(kind, strict=kind != "event").validate(json.loads(path.read_text()))


@pytest.mark.parametrize("path", BAD, ids=named)
def test_bad_samples_are_invalid(path):
    """A bad sample is refused by its schema."""
    assert not validator(path.parent.name).is_valid(json.loads(path.read_text()))


def test_the_policy_schema_is_the_policy():
    """The committed schema is that of the classes which read it (else: python tests/messages/policy_schema.py)."""
    assert json.loads(FILE.read_text()) == policy_schema()


@pytest.mark.parametrize("path", [path for path in GOOD if path.parent.name == "policy"], ids=named)
def test_good_policies_load(path):
    """What the schema calls a policy, the worker takes for one, and what it writes the schema calls a policy."""
    policy = load_policy(path.read_bytes())
    written = dump_policy(policy)
    assert load_policy(written) == policy
    validator("policy").validate(json.loads(written))


@pytest.mark.parametrize("path", [path for path in BAD if path.parent.name == "policy"], ids=named)
def test_bad_policies_are_refused(path):
    """What the schema refuses, the worker refuses."""
    with pytest.raises(SettingsError):
        load_policy(path.read_bytes())


def test_shipped_policies_satisfy_the_schema():
    """Every policy that ships with the package satisfies the schema users see."""
    for path in (SCHEMAS.parent / "stream_app").rglob("policies/*.json"):
        validator("policy").validate(json.loads(path.read_text()))
