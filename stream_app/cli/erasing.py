"""What is there of an event that is to be erased, and the tombstones that erase it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_app.codec import feedback_key
from stream_app.events import Outgoing

if TYPE_CHECKING:
    from stream_app.kafka.topics import TopicFound


@dataclass(slots=True)
class Traces:
    """Where an event of that id stands on the input topic, and under which keys.

    A key that other events have too is not the event's own: a tombstone would erase them with it.
    """

    event_id: str
    records: int = 0
    keyless: int = 0
    keys: dict[tuple[int, bytes], bool] = field(default_factory=dict[tuple[int, bytes], bool])
    """(partition, key) -> whether the newest record of the key is a tombstone."""
    shared: set[bytes] = field(default_factory=set[bytes])
    """Keys that other events have too."""

    def event(self, partition: int, key: bytes | None) -> None:
        """A record that is an event of this id."""
        self.records += 1
        if key is None:
            self.keyless += 1
        else:
            self.keys[partition, key] = False

    def other(self, key: bytes | None) -> None:
        """A record of another id, once the event's keys are known."""
        if key is not None and any(key == own for _, own in self.keys):
            self.shared.add(key)

    def tombstone(self, partition: int, key: bytes | None) -> None:
        """A null value."""
        if key is not None and (partition, key) in self.keys:
            self.keys[partition, key] = True

    @property
    def to_erase(self) -> list[tuple[int, bytes]]:
        """Partitions and keys that a tombstone is still to be published for."""
        return [place for place, erased in self.keys.items() if not erased and place[1] not in self.shared]


def tombstones(traces: Traces, source: TopicFound, feedback: TopicFound) -> list[Outgoing]:
    """A null value under each of the event's own keys, where its records stand; and one for all its labels."""
    key = feedback_key(traces.event_id)
    of_labels = Outgoing(feedback.name, feedback.partition_of(key), key, None, ())
    return [of_labels, *(Outgoing(source.name, number, own, None, ()) for number, own in traces.to_erase)]
