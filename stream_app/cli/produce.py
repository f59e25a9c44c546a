"""`shunt produce FILE`: the lines of a file as records on the input topic."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stream_app.cli.configured import configured
from stream_app.errors import ShuntError, StartError
from stream_app.kafka.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_app.settings import Settings

REQUEST_BYTES_MAX = 64 * 1024 * 1024
"""The topic's own `max.message.bytes` decides what is too large, not this client."""
IN_FLIGHT_MAX = 5_000


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Records a second.  [default: as fast as it goes]"
)
@configured
def produce(settings: Settings, file: Path, rate: float | None) -> None:
    """Send FILE (JSON Lines, .gz too, - for standard input) to the input topic.

    Each line is one record, sent as the bytes it is; its key is the event's id, so that events with the same
    id keep their order. Empty lines are skipped.
    """
    sent = asyncio.run(_produce(settings, file, rate))
    click.echo(f"{sent:,} records sent to {settings.kafka.input_topic}")
    click.echo("Next: shunt consume")


async def _produce(settings: Settings, file: Path, rate: float | None) -> int:
    topic = settings.kafka.input_topic
    if topic not in await Connection(settings.kafka).topics([topic]):
        raise StartError(f"there is no topic {topic!r}", advice="make the topics with `shunt topics create`")
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client_id="shunt-produce",
        enable_idempotence=True,
        max_request_size=REQUEST_BYTES_MAX,
        linger_ms=0 if rate else 5,
    )
    try:
        await producer.start()
    except KafkaConnectionError as error:
        raise StartError(f"no Kafka broker answers at {settings.kafka.bootstrap_servers}") from error
    try:
        return await _send_lines(producer, topic, settings.events.id_field, file, rate)
    finally:
        await producer.stop()


async def _send_lines(producer: AIOKafkaProducer, topic: str, id_field: str, file: Path, rate: float | None) -> int:
    """Send every line; how many. No more than `IN_FLIGHT_MAX` are unconfirmed at a time."""
    path = tuple(id_field.split("."))
    waiting: list[tuple[int, asyncio.Future[Any]]] = []
    sent, started = 0, time.monotonic()
    with _progress(file) as progress, _opened(file) as lines:
        bar = progress.add_task("Sending", total=_size(file))
        for number, line in _records(lines):
            if rate:
                await asyncio.sleep(started + sent / rate - time.monotonic())
            confirmed = await _send(producer, topic, key_of(line, path), line, number)
            waiting.append((number, confirmed))
            sent += 1
            if len(waiting) >= IN_FLIGHT_MAX:
                await _confirm(waiting, topic)
                progress.update(bar, completed=_bytes_read(lines))
        await _confirm(waiting, topic)
    return sent


async def _send(
    producer: AIOKafkaProducer, topic: str, key: bytes | None, line: bytes, number: int
) -> asyncio.Future[Any]:
    try:
        return await producer.send(topic, value=line, key=key)
    except KafkaError as error:
        raise _refused(number, topic, error) from error


async def _confirm(waiting: list[tuple[int, asyncio.Future[Any]]], topic: str) -> None:
    for number, confirmed in waiting:
        try:
            await confirmed
        except KafkaError as error:
            raise _refused(number, topic, error) from error
    waiting.clear()


def _refused(number: int, topic: str, error: KafkaError) -> ShuntError:
    return ShuntError(f"line {number} was not taken by topic {topic!r} ({type(error).__name__}: {error})")


def key_of(line: bytes, path: tuple[str, ...]) -> bytes | None:
    """The id at `path` as the record's key; None for a line without one, or that is no JSON object."""
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    for name in path:
        value = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).encode()


def _records(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip(b"\r\n"):
            yield number, stripped


def _opened(file: Path) -> IO[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    return cast("IO[bytes]", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _size(file: Path) -> int | None:
    return None if str(file) == "-" else file.stat().st_size


def _bytes_read(lines: IO[bytes]) -> int:
    """How far into the file on disk: of a compressed one, into its compressed bytes."""
    if isinstance(lines, gzip.GzipFile):
        return cast("Any", lines).fileobj.tell()
    return lines.tell() if lines.seekable() else 0


def _progress(file: Path) -> Progress:
    """A bar on standard error where a person watches it, else nothing."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description} " + file.name), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
