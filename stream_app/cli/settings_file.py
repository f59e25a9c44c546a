"""The text of a first shunt.toml: what one has to look at, each with a sentence; the rest keeps its default. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.cli.sample import Fields


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are. `stand_in` is the stand-in LLM's address where one runs."""

    bootstrap_servers: str = "127.0.0.1:9092"
    triton: str = "127.0.0.1:8001"
    stand_in: str | None = None


TEMPLATE = """\
# Settings of one Shunt pipeline. Every key, with its default: docs/settings.md.
# An environment variable wins over this file: SHUNT_KAFKA__GROUP=other, SHUNT_LLM__USD_PER_HOUR=1.

[kafka]
bootstrap_servers = {bootstrap_servers}
group = "shunt"                      # each lane has a consumer group of its own: shunt-classify, shunt-escalate
input_topic = {topic}
# The other topics derive from it ({plain_topic}-decisions, -escalations, -dlq and others); each can be named:
# [kafka.topics]
# decisions = "my-decisions"

[events]
{found}id_field = {id_field}
text_fields = {text_fields}          # paths with dots; several are joined in this order

[triton]
url = {triton}                       # the gRPC port

# One question about every event, with a fixed set of labels. Add a table [[tasks]] for each further one.
[[tasks]]
name = "sentiment"
labels = ["negative", "positive"]    # or a table: label = "what it means", for the LLM
tiers = ["sentiment_fast"]           # small models, asked in turn; ["a", ["a", "b"]] asks b only where a is unsure
threshold = 0.9                      # sure from here on: by hand, and not certified
# target_error = 0.05                # instead of the threshold: certified by `shunt calibrate`, needs a policy
# escalate_max = 0.2                 # or: this share goes to the LLM, held whatever comes; needs a policy

# [policy]
# file = "policy.json"               # made by `shunt calibrate` from labelled texts of yours

[llm]
usd_per_hour = 5.0                   # a limit that holds, for all workers together
usd_per_day = 50.0
max_in_flight = 256                  # calls at a time, per worker
deadline_s = 60                      # one event, all tries together; then on_deadline
on_deadline = "degrade"              # publish the small models' answer, marked degraded; or "dlq"
on_budget = "wait"                   # or "degrade", "dlq"
on_outage = "wait"

{endpoint_note}[[llm.endpoints]]
base_url = {base_url}
model = "gpt-4o-mini"
# api_key_env = "OPENAI_API_KEY"     # the key is read from this variable, or from a file: api_key_file = "..."
requests_per_minute = 500            # the account's limits, for all workers together
tokens_per_minute = 200000
# tokens_counted = "max_tokens"      # how the provider counts them: docs/llm-lane.md
# A further table [[llm.endpoints]] names who answers while this one is away, with limits of its own; or, with
# second_opinion = true, who is asked too where the policy expects that to be worth it.

[web]
host = "127.0.0.1"
port = 6066                          # health, metrics, and with `shunt run feeds` the live page
"""


def settings_file(topic: str, addresses: Addresses, fields: Fields | None) -> str:
    """The file's text; `fields` is None where no sample told them."""
    id_field = fields.id_field if fields else "id"
    note = (
        "# This is the stand-in LLM of `shunt stack`: it answers by a fixed rule. A real one: leave base_url out.\n"
    )
    return TEMPLATE.format(
        bootstrap_servers=_string(addresses.bootstrap_servers),
        topic=_string(topic),
        plain_topic=topic,
        found=_found(fields),
        id_field=_string(id_field or "id"),
        text_fields=f"[{', '.join(map(_string, fields.text_fields if fields else ('text',)))}]",
        triton=_string(addresses.triton),
        endpoint_note=note if addresses.stand_in else "",
        base_url=_string(addresses.stand_in or "https://api.openai.com/v1"),
    )


def _found(fields: Fields | None) -> str:
    if fields is None:
        return "# Not read off the topic: check these against a record of yours.\n"
    if fields.id_field is None:
        return "# No field tells the records apart: an event without an id is named topic/partition/offset.\n"
    return f"# Read off the newest {fields.records} records.\n"


def _string(text: str) -> str:
    """A TOML string: as in JSON, but every character outside ASCII as itself, and DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
