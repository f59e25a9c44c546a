"""Events of the input topic by their places, as far as they are still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.codec import Codec
from stream_app.errors import UnreadableRecord
from stream_app.events import Event
from stream_app.kafka.reader import read_records

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_app.kafka.connection import Connection
    from stream_app.settings import Settings

Place = tuple[int, int]
"""Partition and offset."""


async def events_at(settings: Settings, connection: Connection, places: Collection[Place]) -> dict[Place, Event]:
    """Those that can be read; a record that is gone, a tombstone or no event is left out."""
    topic, codec = settings.kafka.names.input, Codec(settings.events, settings.kafka.group)
    found = dict[Place, Event]()
    for place, record in (await read_records(connection, topic, places)).items() if places else ():
        try:
            event = codec.decode(topic, *place, record.timestamp, record.key, record.value, record.headers)
        except UnreadableRecord:
            continue
        if isinstance(event, Event):
            found[place] = event
    return found
