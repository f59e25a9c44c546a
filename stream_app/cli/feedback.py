"""`shunt feedback FILE`: what people said of events becomes corrections, and rows to train on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.cli.configured import configured
from stream_app.cli.decided_about import decided_about
from stream_app.cli.events_at import events_at
from stream_app.cli.lines import printable
from stream_app.cli.said import Unusable, said_in
from stream_app.cli.scoring_bar import scoring_bar
from stream_app.cli.verdict_fate import SaidBefore, Sends, VerdictJudge
from stream_app.cli.verdict_sending import Sending
from stream_app.errors import SettingsError, ShuntError, StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import look_up
from stream_app.training.rows import UnreadableRow, json_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.cli.decided_about import About
    from stream_app.cli.said import Said
    from stream_app.cli.verdict_fate import Fate
    from stream_app.settings import Settings

SHOWN_MAX = 10
"""Of the rows that could not be used; `--json` names each."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--task", "only", help="Only this task's labels.  [default: every task's]")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one for each label.")
@configured
def feedback(settings: Settings, file: Path, only: str | None, dry_run: bool, as_json: bool) -> None:
    """Post people's labels and verdicts: each becomes a correction of the event's decision, and a row to train on.

    FILE has rows as `shunt sample` makes them, labels filled in, or decisions with `label` (JSON Lines, .gz too).
    Each is sent once, however often this is run; a later file may change what an earlier one said. Labels of rows
    drawn `--for audit` test what the policy promises: they teach nothing, and what they say first counts.
    """
    said, wrong = _read(settings, file, only)
    fates: list[Fate] = [*wrong]
    if said:
        fates += asyncio.run(send_labels(settings, said, dry_run=dry_run))
    if as_json:
        for fate in fates:
            click.echo(orjson.dumps(_told(fate, dry_run=dry_run)).decode())
    unusable = [fate for fate in fates if isinstance(fate, Unusable)]
    if not as_json:
        click.echo(_summary(fates, unusable, dry_run=dry_run))
    if unusable and not dry_run:
        raise ShuntError(
            f"{len(unusable):,} of {len(fates):,} labels were not sent", advice=printable(unusable[0].why)
        )


def _read(settings: Settings, file: Path, only: str | None) -> tuple[list[Said], list[Unusable]]:
    tasks = {task.name: frozenset(task.label_names) for task in settings.tasks}
    if only is not None and only not in tasks:
        raise SettingsError(f"there is no task {only}", advice=f"there is {', '.join(tasks)}")
    try:
        any_of = {task.name for task in settings.tasks if task.kind == "any_of"}
        return said_in(json_objects(file), tasks, only, any_of)
    except (UnreadableRow, OSError) as error:
        raise SettingsError(str(error), advice="give JSON Lines, as `shunt sample` writes them") from error


async def send_labels(settings: Settings, said: Sequence[Said], *, dry_run: bool) -> list[Fate]:
    """What became, or with `dry_run` would become, of each. Raises ShuntError."""
    connection, names = Connection(settings.kafka), settings.kafka.names
    wanted = (names.feedback, names.verdicts, names.parked, names.decisions, names.audit_results)
    topics = await look_up(connection, wanted)
    for name in wanted:
        if name not in topics:
            raise StartError(f"there is no topic {name!r}", advice="make it with `shunt topics create`")
    with scoring_bar("Reading decisions", None) as read:
        about = await decided_about(
            connection,
            {one.ref for one in said if one.ref is not None},
            {one.id for one in said if one.ref is None and one.id is not None},
            min(_times(said), default=None),
            read,
        )
    owners = min(topics[names.verdicts].partitions, topics[names.parked].partitions)
    texts = await _texts(settings, connection, said, about)
    kept, results = topics[names.feedback], topics[names.audit_results]
    judge = VerdictJudge(about, texts, kept, results, names.verdicts, owners)
    sending = Sending(connection, topics[names.verdicts], [kept, results], judge, lambda: int(time.time() * 1000))
    if dry_run:
        return await sending.rehearse(said)
    fates: list[Fate] = []
    async with aclosing(sending.run(said)) as chunks:
        async for chunk in chunks:
            fates += chunk
    return fates


def _times(said: Sequence[Said]) -> list[int]:
    """When the records came; none where one of them does not say."""
    times = [one.source_ms for one in said if one.source_ms is not None]
    return times if len(times) == len(said) else []


async def _texts(settings: Settings, connection: Connection, said: Sequence[Said], about: About) -> dict[str, str]:
    """The texts of events whose rows have none, read where the events stand, as far as they are still there."""
    refs = {one.ref for one in said if one.ref is not None and one.text is None}
    refs |= {
        ref for one in said if one.ref is None and one.text is None for ref in about.sources.get(one.id or "", ())
    }
    places: dict[tuple[int, int], str] = {}
    topic = settings.kafka.names.input
    for ref in refs:
        named, partition, offset = ref.rsplit("/", 2)
        if named == topic and partition.isdigit() and offset.isdigit():
            places[int(partition), int(offset)] = ref
    return {places[place]: event.text for place, event in (await events_at(settings, connection, places)).items()}


def _told(fate: Fate, *, dry_run: bool) -> dict[str, object]:
    """What `--json` prints."""
    match fate:
        case Unusable(place=place, why=why):
            return {"row": place, "result": "refused", "why": why}
        case SaidBefore(said=said, ref=ref):
            result = "said_before"
        case Sends(said=said, ref=ref):
            result = "would_be_sent" if dry_run else "sent"
    return {"row": said.place, "result": result, "source": ref, "task": said.task, "label": said.label}


def _summary(fates: Sequence[Fate], unusable: Sequence[Unusable], *, dry_run: bool) -> str:
    count = Counter(type(fate) for fate in fates)
    lines = [f"{count[Sends]:,} labels {'would be sent' if dry_run else 'sent'}, {count[SaidBefore]:,} said before"]
    lines += [f"! {one.place}: {printable(one.why, 200)}" for one in unusable[:SHOWN_MAX]]
    if len(unusable) > SHOWN_MAX:
        lines.append(f"  and {len(unusable) - SHOWN_MAX:,} more")
    if not fates:
        lines = ["no label is filled in"]
    return "\n".join(
        [*lines, "", "Next: shunt consume, which shows the corrections" if count[Sends] else ""]
    ).rstrip()
