"""People's verdicts in tests: given as `shunt feedback` does, and what became of each record, held to the promise."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_app.cli.feedback import send_labels
from stream_app.cli.said import Said
from tests.kafka.reading import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_app.cli.verdict_fate import Fate
    from stream_app.settings import Settings

TASK = "sentiment"


async def say(settings: Settings, labels: dict[str, str], *, task: str = TASK) -> list[Fate]:
    """Posts these labels, by source."""
    rows = [Said(f"row:{ref}", ref, None, f"text of {ref}", task, label) for ref, label in labels.items()]
    return await send_labels(settings, rows, dry_run=False)


@dataclass(slots=True)
class History:
    """One record's decisions, in log order."""

    partitions: set[int] = field(default_factory=set)
    decisions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def corrections(self) -> list[tuple[int, int, str, str]]:
        """Revision, what it replaces, by whom, and the label."""
        return [
            (one["revision"], one["replaces"], one["decided_by"], one["answers"][TASK]["label"])
            for one in self.decisions
            if one["kind"] == "correction"
        ]

    @property
    def by_people(self) -> list[str]:
        """The labels that corrections by people gave, in order."""
        return [label for _, _, who, label in self.corrections if who == "human"]


def histories(servers: str, topic: str) -> dict[str, History]:
    """By source."""
    found: dict[str, History] = defaultdict(History)
    for message in read_all(servers, topic):
        decision = json.loads(message.value())
        source = decision["source"]
        one = found[f"{source['topic']}/{source['partition']}/{source['offset']}"]
        one.partitions.add(message.partition())
        one.decisions.append(decision)
    return dict(found)


def breaches(found: dict[str, History]) -> list[str]:
    """What breaks the promise about corrections."""
    return [f"{ref}: {what}" for ref, one in found.items() for what in _breaches(one)]


def _breaches(one: History) -> Iterable[str]:
    told = [(each["kind"], each["revision"], each["decided_by"]) for each in one.decisions]
    if len(one.partitions) != 1:
        yield f"on partitions {one.partitions}"
    if sum(kind == "final" for kind, _, _ in told) != 1:
        yield f"not one final: {told}"
    standing: int | None = None
    person = False
    for each in one.decisions:
        if standing is not None and each["revision"] <= standing:
            yield f"revision {each['revision']} after {standing}: {told}"
        if each["kind"] == "correction" and each["replaces"] != standing:
            yield f"replaces {each['replaces']} where {standing} stands: {told}"
        if person and each["decided_by"] != "human":
            yield f"by {each['decided_by']} after a person: {told}"
        standing, person = each["revision"], person or each["decided_by"] == "human"
