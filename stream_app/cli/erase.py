"""`shunt erase --id ID`: takes an event out of what may be trained on, and publishes its tombstone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.cli.configured import configured
from stream_app.cli.erasing import Traces, tombstones
from stream_app.cli.sent_once import OPEN_WITHIN_S, SendingOutput
from stream_app.codec import Codec
from stream_app.errors import MembershipLost, ShuntError, StartError, UnreadableRecord
from stream_app.events import Event, Tombstone
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.kafka.topics import look_up

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.topics import TopicFound
    from stream_app.settings import Settings

    Record = ConsumerRecord[bytes | None, bytes | None]


@click.command()
@click.option("--id", "event_id", required=True, help="The event's id.")
@click.option(
    "--list",
    "erased",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add the id to this file, which `shunt distill --held-out` obeys.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be erased, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@configured
def erase(settings: Settings, event_id: str, erased: Path | None, dry_run: bool, as_json: bool) -> None:
    """Erase an event: none of its labels trains a model any more, and its key gets a tombstone.

    The tombstone passes through the pipeline to the decisions topic. What stands on topics that are not compacted
    goes with their retention: docs/operating.md says where and when.
    """
    traces = asyncio.run(_erase(settings, event_id, dry_run=dry_run))
    if erased is not None and not dry_run:
        with erased.open("ab") as lines:
            lines.write(orjson.dumps({"id": event_id}) + b"\n")
    told = {
        "id": event_id,
        "records": traces.records,
        "tombstones": len(traces.to_erase),
        "without_key": traces.keyless,
        "shared_keys": len(traces.shared),
        "dry_run": dry_run,
    }
    click.echo(orjson.dumps(told).decode() if as_json else "\n".join(_lines(traces, dry_run=dry_run)))


async def _erase(settings: Settings, event_id: str, *, dry_run: bool) -> Traces:
    connection, names = Connection(settings.kafka), settings.kafka.names
    topics = await look_up(connection, [names.input, names.feedback])
    for name in (names.input, names.feedback):
        if name not in topics:
            raise StartError(f"there is no topic {name!r}", advice="make it with `shunt topics create`")
    traces = await _traces(settings, connection, event_id)
    if not dry_run:
        await _publish(connection, traces, topics[names.input], topics[names.feedback])
    return traces


async def _traces(settings: Settings, connection: Connection, event_id: str) -> Traces:
    """Two readings: the event's keys first, then who else has them."""
    found = Traces(event_id)
    async with aclosing(_records(settings, connection)) as records:
        async for record, event in records:
            if isinstance(event, Tombstone):
                found.tombstone(record.partition, record.key)
            elif event is not None and event.id == event_id:
                found.event(record.partition, record.key)
    if found.keys:
        async with aclosing(_records(settings, connection)) as records:
            async for record, event in records:
                if not isinstance(event, Tombstone) and (event is None or event.id != event_id):
                    found.other(record.key)
    return found


async def _records(
    settings: Settings, connection: Connection
) -> AsyncGenerator[tuple[Record, Event | Tombstone | None]]:
    """Every record of the input topic to the end that it has now, with what it is; None where it is no event."""
    codec, topic = Codec(settings.events, settings.kafka.group), settings.kafka.names.input
    async with aclosing(read_topic(connection, topic, to_end=True)) as batches:
        async for batch in batches:
            for one in batch:
                try:
                    yield (
                        one,
                        codec.decode(
                            topic, one.partition, one.offset, one.timestamp, one.key, one.value, one.headers
                        ),
                    )
                except UnreadableRecord:
                    yield one, None


async def _publish(connection: Connection, traces: Traces, source: TopicFound, feedback: TopicFound) -> None:
    """All tombstones or none. Raises ShuntError."""
    about = f"that erase {traces.event_id}"
    output = SendingOutput(connection, f"shunt-erase-{feedback.name}", about, [source, feedback])
    try:
        async with asyncio.timeout(OPEN_WITHIN_S):
            await output.open()
            await output.deliver(tombstones(traces, source, feedback))
    except (MembershipLost, TimeoutError) as error:
        raise ShuntError(
            f"{traces.event_id} was not erased, or it is not known ({error})", advice="run the same command again"
        ) from error
    finally:
        await output.close()


def _lines(traces: Traces, *, dry_run: bool) -> list[str]:
    would = "would be" if dry_run else "are"
    lines = [
        f"{traces.event_id}: its labels {would} erased from training, {traces.records:,} records stand on the input",
        f"{len(traces.to_erase):,} tombstones {'would be' if dry_run else 'were'} published",
    ]
    if traces.keyless:
        lines.append(f"! {traces.keyless:,} of its records have no key: they go with the topic's retention alone")
    if traces.shared:
        lines.append(f"! {len(traces.shared):,} of its keys are other events' too: no tombstone for those")
    return lines
