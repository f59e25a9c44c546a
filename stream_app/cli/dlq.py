"""`shunt dlq`: what became a dead letter, why, and its bytes."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.cli.configured import configured
from stream_app.cli.lines import printable
from stream_app.cli.table import as_table
from stream_app.codec import DeadLetterMessage, decode_dead_letter
from stream_app.errors import ShuntError, UnreadableRecord
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_record, read_topic

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from stream_app.settings import Settings

    Record = ConsumerRecord[bytes | None, bytes | None]

BYTES_PER_LINE = 16
SHOWN_BYTES_MAX = 4_096


@click.group()
def dlq() -> None:
    """List and show dead letters."""


@dlq.command("list")
@click.option("--cause", help="Only this cause, such as not_json.")
@click.option("--stage", help="Only this stage: decode, classify or escalate.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Only the newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@configured
def list_(settings: Settings, cause: str | None, stage: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, the newest last, and count them by cause."""
    letters, causes = asyncio.run(_letters(settings, cause, stage, limit))
    if as_json:
        for record, letter in letters:
            click.echo(orjson.dumps(_as_json(record, letter)).decode())
        return
    if not letters:
        click.echo("no dead letters" if cause is None and stage is None else "no such dead letters")
        return
    click.echo(
        as_table(("dead letter", "when", "from", "stage", "cause", "why"), [_row(*letter) for letter in letters])
    )
    counted = ", ".join(f"{count:,} {name}" for name, count in causes.most_common())
    click.echo(f"\n{counted}\nOne of them in full: shunt dlq show PARTITION/OFFSET")


@dlq.command("show")
@click.argument("place", metavar="[PARTITION/]OFFSET")
@click.option("--raw", is_flag=True, help="The value's bytes alone, untouched, to standard output.")
@configured
def show(settings: Settings, place: str, raw: bool) -> None:
    """Show one dead letter: its cause, headers, key and value. Without a partition, OFFSET is of partition 0."""
    record = asyncio.run(_one(settings, *_parsed(place)))
    if raw:
        click.get_binary_stream("stdout").write(record.value or b"")
        return
    for line in _description(record):
        click.echo(line)


async def _letters(
    settings: Settings, cause: str | None, stage: str | None, limit: int
) -> tuple[deque[tuple[Record, DeadLetterMessage]], Counter[str]]:
    """The newest `limit` letters that fit, oldest first, and how many fit by cause."""
    newest: deque[tuple[Record, DeadLetterMessage]] = deque(maxlen=limit)
    causes: Counter[str] = Counter()
    topic = settings.kafka.names.dlq
    async with aclosing(read_topic(Connection(settings.kafka), topic, to_end=True)) as batches:
        async for batch in batches:
            for record in sorted(batch, key=lambda record: record.timestamp):
                letter = _read(record)
                if cause in {None, letter.cause.name} and stage in {None, letter.cause.stage}:
                    newest.append((record, letter))
                    causes[letter.cause.name] += 1
    return newest, causes


def _read(record: Record) -> DeadLetterMessage:
    try:
        return decode_dead_letter(record.headers)
    except UnreadableRecord as error:
        raise ShuntError(
            f"{record.topic}/{record.partition}/{record.offset} is no dead letter: {error.message}"
        ) from error


def _row(record: Record, letter: DeadLetterMessage) -> tuple[str, ...]:
    return (
        f"{record.partition}/{record.offset}",
        _when(record),
        f"{letter.topic}/{letter.partition}/{letter.offset}",
        letter.cause.stage,
        letter.cause.name,
        printable(letter.cause.message, 80),
    )


def _as_json(record: Record, letter: DeadLetterMessage) -> dict[str, object]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": _when(record),
        "source": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "stage": letter.cause.stage,
        "cause": letter.cause.name,
        "exception": letter.cause.exception,
        "message": letter.cause.message,
        "truncated": letter.truncated,
    }


def _when(record: Record) -> str:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="seconds")


def _parsed(place: str) -> tuple[int, int]:
    partition, _, offset = place.rpartition("/")
    if not offset.isdecimal() or not (partition or "0").isdecimal():
        raise click.BadParameter(f"{place!r} is no PARTITION/OFFSET such as 0/17", param_hint="OFFSET")
    return int(partition or 0), int(offset)


async def _one(settings: Settings, partition: int, offset: int) -> Record:
    topic = settings.kafka.names.dlq
    record = await read_record(Connection(settings.kafka), topic, partition, offset)
    if record is None:
        raise ShuntError(f"there is no record {partition}/{offset} in {topic}", advice="see `shunt dlq list`")
    return record


def _description(record: Record) -> list[str]:
    letter = _read(record)
    return [
        f"dead letter  {record.topic}/{record.partition}/{record.offset}, {_when(record)}",
        f"record       {letter.topic}/{letter.partition}/{letter.offset}",
        f"cause        {letter.cause.stage}: {letter.cause.name} ({letter.cause.exception})",
        f"why          {printable(letter.cause.message)}",
        *(
            ["cut          it was too large for this topic: the whole record stands at its source"]
            if letter.truncated
            else []
        ),
        "headers",
        *(f"  {printable(name)}: {_bytes(value)}" for name, value in record.headers),
        f"key          {_bytes(record.key)}",
        f"value        {len(record.value or b''):,} bytes" if record.value is not None else "value        null",
        *_dump(record.value or b""),
    ]


def _bytes(raw: bytes | None) -> str:
    return "null" if raw is None else printable(raw.decode("utf-8", "backslashreplace"), 200)


def _dump(raw: bytes) -> list[str]:
    """The bytes in hexadecimal with their ASCII beside, as `hexdump -C` shows them."""
    lines: list[str] = []
    for start in range(0, min(len(raw), SHOWN_BYTES_MAX), BYTES_PER_LINE):
        part = raw[start : start + BYTES_PER_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"  {start:08x}  {part.hex(' '):<{3 * BYTES_PER_LINE}} {shown}")
    if len(raw) > SHOWN_BYTES_MAX:
        lines.append(f"  … {len(raw) - SHOWN_BYTES_MAX:,} bytes more: --raw prints them all")
    return lines
