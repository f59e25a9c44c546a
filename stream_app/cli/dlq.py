"""`shunt dlq`: what became a dead letter, why, its bytes, and back to where it came from."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console
from rich.progress import Progress

from stream_app.cli.configured import configured
from stream_app.cli.dlq_fate import ATTEMPTS_MAX, Judge
from stream_app.cli.dlq_options import filtered
from stream_app.cli.dlq_reading import Page, bounds, read_letter, read_letters, read_receipts, replays_topic
from stream_app.cli.dlq_sending import Replay
from stream_app.cli.dlq_shown import (
    Tally,
    description,
    fate_object,
    letter_object,
    listed,
    replay_lines,
    whole_object,
)
from stream_app.errors import ShuntError
from stream_app.kafka.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from stream_app.cli.dlq_reading import Receipts
    from stream_app.cli.dlq_selection import Letter, Selection
    from stream_app.settings import Settings

SHOWN_MAX = 10


@click.group()
def dlq() -> None:
    """List, show and replay dead letters."""


@dlq.command("list")
@filtered
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Only the newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@configured
def list_(settings: Settings, selection: Selection, limit: int, as_json: bool) -> None:
    """List dead letters, the newest last, and count them by cause."""
    found = asyncio.run(_found(Connection(settings.kafka), selection, limit))
    if as_json:
        for letter in found.newest:
            _json(letter_object(letter, found.receipts))
        return
    if not found.newest:
        click.echo(_nothing(settings, selection, found.letters))
        return
    click.echo(listed(found.newest, found.receipts))
    counted = ", ".join(f"{count:,} {name}" for name, count in found.causes.most_common())
    click.echo(f"\n{counted}")
    if found.foreign:
        click.echo(f"{found.foreign:,} records beside them are no dead letters of Shunt")
    click.echo("One of them in full: shunt dlq show PARTITION/OFFSET")
    click.echo("Back to where they came from: shunt dlq replay --dry-run")


@dlq.command("show")
@filtered
@click.argument("places", metavar="[[PARTITION/]OFFSET]...", nargs=-1)
@click.option(
    "--limit", type=click.IntRange(min=1), default=SHOWN_MAX, show_default=True, help="Without a place: the newest."
)
@click.option("--raw", is_flag=True, help="The value's bytes alone, untouched, to standard output: of one letter.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, its bytes as base64.")
@configured
def show(settings: Settings, selection: Selection, limit: int, raw: bool, as_json: bool) -> None:
    """Show dead letters in full: cause, headers, key and value. Without a partition, OFFSET is of partition 0."""
    letters, receipts = asyncio.run(_shown(Connection(settings.kafka), selection, limit))
    if raw and len(letters) != 1:
        raise click.UsageError(f"--raw takes one dead letter, these are {len(letters)}: name its PARTITION/OFFSET")
    if raw:
        click.get_binary_stream("stdout").write(letters[0].value or b"")
    elif as_json:
        for letter in letters:
            _json(whole_object(letter, receipts))
    elif letters:
        click.echo("\n\n".join("\n".join(description(letter, receipts)) for letter in letters))
    else:
        click.echo(_nothing(settings, selection, 0 if selection.asks_nothing else 1))


@dlq.command("replay")
@filtered
@click.argument("places", metavar="[[PARTITION/]OFFSET]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
@click.option("--limit", type=click.IntRange(min=1), help="Send at most so many, the oldest of a partition first.")
@click.option(
    "--attempts-max",
    type=click.IntRange(min=1),
    default=ATTEMPTS_MAX,
    show_default=True,
    help="Refuse what has been replayed so often and died again.",
)
@click.option("--force", is_flag=True, help="Send also what was replayed --attempts-max times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one for each letter.")
@configured
def replay(
    settings: Settings,
    selection: Selection,
    dry_run: bool,
    limit: int | None,
    attempts_max: int,
    force: bool,
    as_json: bool,
) -> None:
    """Send dead letters back to where they came from, byte for byte; without a filter, all.

    Each is sent once, however often this is run: letters that were replayed before are passed over. What fails again
    becomes a dead letter of its own, with its attempts counted.
    """

    async def run() -> Tally:
        connection = Connection(settings.kafka)
        names = settings.kafka.names
        there = await connection.topics([names.input, names.escalations])
        judge = Judge(names, there, attempts_max=attempts_max, force=force)
        return await _replay(connection, judge, selection, limit, dry_run=dry_run, as_json=as_json)

    tally = asyncio.run(run())
    if not as_json and not tally.letters:
        click.echo(_nothing(settings, selection, 0 if selection.asks_nothing else 1))
    elif not as_json:
        click.echo("\n".join(replay_lines(tally, dry_run=dry_run)))
    if tally.refused and not dry_run:
        refused = ", ".join(f"{count:,} {why}" for why, count in tally.refused.most_common())
        raise ShuntError(
            f"{tally.refused.total():,} of {tally.letters:,} dead letters were not sent ({refused})",
            advice=tally.refusals[0].advice,
        )


@dataclass(slots=True)
class Found:
    """The newest letters that fit, oldest first; how many fit by cause; how many letters, and others, there are."""

    newest: list[Letter] = field(default_factory=list["Letter"])
    causes: Counter[str] = field(default_factory=Counter[str])
    letters: int = 0
    foreign: int = 0
    receipts: Receipts = field(default_factory=dict)


async def _found(connection: Connection, selection: Selection, limit: int) -> Found:
    topic = connection.kafka.names.dlq
    found = Found()
    newest: list[tuple[int, tuple[int, int], Letter]] = []  # a heap, the oldest on top
    begin = await bounds(connection, topic)
    with _bar("Reading", begin.offsets) as page_read:
        async with aclosing(read_letters(connection, topic, begin)) as pages:
            async for page in pages:
                found.letters += len(page.letters)
                found.foreign += page.foreign
                for letter in filter(selection.takes, page.letters):
                    found.causes[letter.told.cause.name] += 1
                    heapq.heappush(newest, (letter.timestamp_ms, letter.place, letter))
                    if len(newest) > limit:
                        heapq.heappop(newest)
                page_read(page)
    found.newest = [letter for _, _, letter in sorted(newest)]
    found.receipts = await read_receipts(connection, replays_topic(topic))
    return found


async def _shown(connection: Connection, selection: Selection, limit: int) -> tuple[list[Letter], Receipts]:
    """The letters at the places that are named, else the newest; of them those that fit."""
    if not selection.places:
        found = await _found(connection, selection, limit)
        return found.newest, found.receipts
    topic = connection.kafka.names.dlq
    letters = [await read_letter(connection, topic, *place) for place in sorted(selection.places)]
    return [*filter(selection.takes, letters)], await read_receipts(connection, replays_topic(topic))


async def _replay(
    connection: Connection, judge: Judge, selection: Selection, limit: int | None, *, dry_run: bool, as_json: bool
) -> Tally:
    tally = Tally()
    topic = connection.kafka.names.dlq
    for place in sorted(selection.places):
        await read_letter(connection, topic, *place)  # a place that is mistyped is an error, not nothing to do
    begin = await bounds(connection, topic)
    if not begin.offsets:
        return tally
    with _bar("Replaying", begin.offsets) as page_read:
        replaying = Replay(
            connection, judge, selection, limit=limit, now_ms=lambda: int(time.time() * 1000), page_read=page_read
        )
        async with aclosing(replaying.rehearse(begin) if dry_run else replaying.run(begin)) as chunks:
            async for chunk in chunks:
                for fate in chunk:
                    tally.add(fate)
                    if as_json:
                        _json(fate_object(fate, dry_run=dry_run))
    return tally


@contextmanager
def _bar(title: str, offsets: int) -> Generator[Callable[[Page], object]]:
    """A bar on standard error while the block runs, if that is a terminal; it takes each page that is done with."""
    console = Console(stderr=True)
    # What is printed meanwhile goes to standard output, not to the console of the bar.
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task(title, total=offsets)
        yield lambda page: bar.update(bar_id, completed=page.read)


def _nothing(settings: Settings, selection: Selection, letters: int) -> str:
    """Why there is nothing to show."""
    if letters and not selection.asks_nothing:
        return f"no such dead letters in {settings.kafka.names.dlq}"
    return f"no dead letters in {settings.kafka.names.dlq}"


def _json(told: dict[str, Any]) -> None:
    click.echo(orjson.dumps(told).decode())
