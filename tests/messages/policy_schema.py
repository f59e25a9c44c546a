"""The policy's schema, made from the classes that read it. Run as a program, it writes the file again."""

import json
from pathlib import Path

import msgspec

from stream_app.routing.policy import Policy

SCHEMAS = Path(__file__).parents[2] / "schemas"
FILE = SCHEMAS / "policy.schema.json"


def policy_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the artifact."""
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:shunt:schema:policy",
        "title": "Policy",
    } | msgspec.json.schema(Policy)
    return json.loads(json.dumps(made))  # a tuple among the defaults is a list in the file


if __name__ == "__main__":
    FILE.write_text(json.dumps(policy_schema(), indent=2) + "\n")
