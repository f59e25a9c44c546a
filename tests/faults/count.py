"""The independent count: what a pipeline made of its input, read by a client that shares no code with the project.

Nothing of `stream_app` is imported here. Every record of the input topic, as a `read_committed` reader sees it,
is compared with the outcomes on the output topics by its source, topic/partition/offset (header `shunt-source`).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.kafka.reading import each_message

if TYPE_CHECKING:
    from confluent_kafka import Message

EXAMPLES_MAX = 5


@dataclass
class Count:
    """What was found. `lost`, `duplicated`, `altered`, `disordered` and `foreign` must be empty."""

    records: int = 0
    finals: int = 0
    provisionals: int = 0
    corrections: int = 0
    dead_letters: int = 0
    tombstones: int = 0
    degraded: int = 0
    by_llm: int = 0
    lost: list[str] = field(default_factory=list)
    """Input records without an outcome."""
    duplicated: list[str] = field(default_factory=list)
    """Sources with more than one outcome, or more than one of a kind that may come once."""
    altered: list[str] = field(default_factory=list)
    """Outcomes whose key, id, payload or bytes are not the input's."""
    disordered: list[str] = field(default_factory=list)
    """Small finals of a key against the input's order; revisions against log order, or on two partitions; corrections
    of anything but one degraded final."""
    foreign: list[str] = field(default_factory=list)
    """Outcomes of records that are not in the input (aborted ones)."""

    @property
    def breaches(self) -> dict[str, int]:
        """How many of each, those that are not 0."""
        kinds = ("lost", "duplicated", "altered", "disordered", "foreign")
        return {kind: len(getattr(self, kind)) for kind in kinds if getattr(self, kind)}

    def summary(self) -> dict[str, object]:
        """As a JSON object: the numbers, the breaches with a few examples."""
        names = (
            "records",
            "finals",
            "provisionals",
            "corrections",
            "dead_letters",
            "tombstones",
            "degraded",
            "by_llm",
        )
        breaches = ("lost", "duplicated", "altered", "disordered", "foreign")
        return {
            **{name: getattr(self, name) for name in names},
            **{name: len(getattr(self, name)) for name in breaches},
            "examples": {name: getattr(self, name)[:EXAMPLES_MAX] for name in breaches if getattr(self, name)},
        }


@dataclass(frozen=True, order=True)
class Revision:
    """One of several decisions about a record; in log order, as they stand on one partition."""

    offset: int
    partition: int
    kind: str
    number: int
    replaces: int | None = field(compare=False)
    degraded: bool = field(compare=False)


@dataclass
class Input:
    """What is remembered of an input record."""

    key: bytes | None
    id: str | None
    digest: int
    """hash() of the raw value, for dead letters."""
    payload: bytes | None
    tombstone: bool


def input_of(message: Message) -> Input:
    """What the record should come out with. `payload` is the raw fragment behind `"meta":`, to the end."""
    value = message.value()
    if value is None:
        return Input(message.key(), None, 0, None, tombstone=True)
    try:
        ident = json.loads(value)["id"]
    except (ValueError, KeyError, TypeError):
        ident = None
    _, found, rest = value.partition(b'"meta":')
    return Input(message.key(), ident, hash(value), found + rest[:-1] if found else None, tombstone=False)


def count(bootstrap_servers: str, source: str, decisions: str, dlq: str) -> Count:
    """Reads the three topics to their ends and compares."""
    found = Count()
    inputs = {
        f"{source}/{message.partition()}/{message.offset()}": input_of(message)
        for message in each_message(bootstrap_servers, source)
    }
    found.records = len(inputs)
    ends: Counter[str] = Counter()
    revisions: dict[str, list[Revision]] = defaultdict(list)
    last: dict[tuple[bytes | None, int, int], int] = {}
    for message in each_message(bootstrap_servers, decisions):
        _decision(found, inputs, ends, revisions, last, message)
    for message in each_message(bootstrap_servers, dlq):
        _dead_letter(found, inputs, ends, message)
    _revisions(found, revisions)
    found.lost = [ref for ref in inputs if ref not in ends]
    found.duplicated += [ref for ref, times in ends.items() if times > 1]
    return found


def _source_of(message: Message) -> str:
    return dict(message.headers() or ()).get("shunt-source", b"?").decode()


def _decision(found, inputs, ends, revisions, last, message: Message) -> None:
    ref = _source_of(message)
    record = inputs.get(ref)
    if record is None:
        found.foreign.append(ref)
        return
    if message.value() is None:
        found.tombstones += 1
        ends[ref] += 1
        if not record.tombstone or message.key() != record.key:
            found.altered.append(f"{ref}: a tombstone")
        return
    decision = json.loads(message.value())
    kind = decision["kind"]
    if kind == "provisional":
        found.provisionals += 1
    elif kind == "correction":
        found.corrections += 1
    else:
        found.finals += 1
        ends[ref] += 1
        found.degraded += decision["degraded"]
        found.by_llm += decision["decided_by"] == "llm"
    if kind != "final" or decision["revision"] > 0 or decision["degraded"]:
        place = message.offset(), message.partition()
        said = kind, decision["revision"], decision.get("replaces"), decision["degraded"]
        revisions[ref].append(Revision(*place, *said))
    said = decision["source"]
    same = message.key() == record.key and decision["id"] == record.id
    same = same and f"{said['topic']}/{said['partition']}/{said['offset']}" == ref
    if not same or (record.payload and record.payload not in message.value()):
        found.altered.append(f"{ref}: {message.value()[:200]!r}")
    if kind == "final" and decision["decided_by"] == "small" and not decision["degraded"]:
        line = (message.key(), said["partition"], message.partition())
        if last.get(line, -1) > said["offset"]:
            found.disordered.append(f"{ref} after offset {last[line]} of the same key")
        last[line] = said["offset"]


def _dead_letter(found, inputs, ends, message: Message) -> None:
    ref = _source_of(message)
    record = inputs.get(ref)
    if record is None:
        found.foreign.append(ref)
        return
    found.dead_letters += 1
    ends[ref] += 1
    if message.key() != record.key or hash(message.value()) != record.digest:
        found.altered.append(f"{ref}: a dead letter of {len(message.value() or b'')} bytes")


def _revisions(found: Count, revisions: dict[str, list[Revision]]) -> None:
    """Revisions of a record rise in log order, on one partition; one provisional at most, and first.

    One correction at most, last, and of a degraded final.
    """
    for ref, seen in revisions.items():
        in_log_order = sorted(seen)
        numbers = [each.number for each in in_log_order]
        kinds = [each.kind for each in in_log_order]
        if kinds.count("provisional") > 1 or kinds.count("correction") > 1:
            found.duplicated.append(f"{ref}: {kinds}")
        corrected = {each.number for each in seen if each.kind == "final" and each.degraded}
        replaced = {each.replaces for each in seen if each.kind == "correction"}
        rising = numbers == sorted(set(numbers)) and len({each.partition for each in seen}) == 1
        if not rising or "provisional" in kinds[1:] or "correction" in kinds[:-1] or not replaced <= corrected:
            found.disordered.append(f"{ref}: revisions {in_log_order}")
