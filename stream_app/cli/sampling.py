"""`shunt sample`: what of the user's topic is worth labelling."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import numpy as np
import orjson

from stream_app.classify.deciding import Decider
from stream_app.classify.scoring import Scorer
from stream_app.classify.start import deciding, policy_in_force
from stream_app.cli.accepted import AcceptedDraw, draw_accepted
from stream_app.cli.configured import configured
from stream_app.cli.dlq_selection import moment_ms
from stream_app.cli.drawn import Draw, Drawn
from stream_app.cli.scoring_bar import scoring_bar
from stream_app.codec import Codec, rfc3339
from stream_app.errors import SettingsError, ShuntError, UnreadableRecord
from stream_app.events import Event, SmallOpinion, Tombstone
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.telemetry import Metrics
from stream_app.training.held_out import HeldOut, read_held_out, text_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.start import Deciding
    from stream_app.routing.decide import Routed, TaskRouter
    from stream_app.settings import Settings

    Record = ConsumerRecord[bytes | None, bytes | None]

For = Literal["calibration", "training", "audit"]
SEED = 7


@click.command()
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["calibration", "training", "audit"]),
    default="calibration",
    show_default=True,
    help="calibration: uniformly. training: what the small models are least sure of. audit: uniformly, of what the "
    "policy in force accepted.",
)
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True, help="How many events.")
@click.option("--since", help="Only events from this time on: 2026-11-20T09:30, or 2h.")
@click.option("--task", "only", help="Ask for this task's label alone.  [default: every task's]")
@click.option(
    "--not-in",
    "known",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="Nothing that is in this file: labelled rows, a policy, a list of what is held out. Again for more.",
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="The same seed draws the same events.")
@configured
def sample(
    settings: Settings,
    purpose: For,
    count: int,
    since: str | None,
    only: str | None,
    known: tuple[Path, ...],
    seed: int,
) -> None:
    """Print events of the input topic that are worth labelling (JSON Lines), an empty label for each task.

    A person fills in `labels`; `shunt calibrate` and `shunt feedback` read the file as it is then. What is drawn
    `--for audit` is for `shunt feedback`, which counts how often accepted answers are wrong.
    """
    tasks = [task.name for task in settings.tasks if only in {None, task.name}]
    if not tasks:
        names = ", ".join(task.name for task in settings.tasks)
        raise SettingsError(f"there is no task {only}", advice=f"there is {names}")
    passed_over = reduce(HeldOut.__or__, map(read_held_out, known), HeldOut())
    if purpose == "audit":
        asyncio.run(_print_accepted(settings, tasks, passed_over, count, seed, _since(since)))
        return
    drawing = _Drawing(settings, Draw[Drawn](count, seed), passed_over, tasks)
    drawn = asyncio.run(drawing.run(purpose, _since(since)))
    if not drawn:
        raise ShuntError(f"there is nothing to draw in {settings.kafka.names.input}", advice="say an earlier --since")
    for one in drawn:
        click.echo(orjson.dumps(_row(one, tasks)).decode())
    told = f"{len(drawn):,} drawn of {drawing.events:,} events"
    click.echo(f"{told}; fill in their labels. Next: shunt calibrate FILE, or shunt feedback FILE", err=True)


async def _print_accepted(
    settings: Settings, tasks: Sequence[str], passed_over: HeldOut, count: int, seed: int, since_ms: int | None
) -> None:
    """Without what the small models said of it: who knew would say the same too often."""
    policy = await policy_in_force(settings)
    if policy is None:
        raise SettingsError("no policy is in force", advice="cuts by hand promise nothing that people could test")
    draw = AcceptedDraw(policy.ref, settings.kafka.names.input, tasks, passed_over, count, seed)
    with scoring_bar("Reading decisions", None) as read:
        found = await draw_accepted(settings, policy, draw, since_ms, read)
    drawn = [one for one in found if not passed_over.holds_text(one.event.text)]
    if not drawn:
        raise ShuntError(f"policy {policy.ref} has accepted nothing that could be drawn", advice="wait for decisions")
    for one in drawn:
        click.echo(orjson.dumps({**_row(one, one.tasks), "why": "audit"}).decode())
    told = f"{len(drawn):,} drawn of {draw.offered:,} events with accepted answers"
    click.echo(f"{told}; fill in their labels, all of them. Next: shunt feedback FILE", err=True)


def _since(text: str | None) -> int | None:
    try:
        return None if text is None else moment_ms(text, int(time.time() * 1000))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time", param_hint="--since") from error


class _Drawing:
    """Reads the input topic as it is now, and offers each event that is one."""

    def __init__(self, settings: Settings, draw: Draw[Drawn], passed_over: HeldOut, tasks: Sequence[str]) -> None:
        self._settings, self._draw, self._passed_over, self._tasks = settings, draw, passed_over, tasks
        self._codec = Codec(settings.events, settings.kafka.group)
        self._tombstones: dict[tuple[int, bytes], int] = {}
        self.events = 0

    async def run(self, purpose: For, since_ms: int | None) -> list[Drawn]:
        """What is drawn."""
        connection, topic = Connection(self._settings.kafka), self._settings.kafka.names.input
        async with AsyncExitStack() as open_:
            decider: Decider | None = None
            if purpose == "training":
                parts: Deciding = await open_.enter_async_context(deciding(self._settings, in_force=True))
                scorer = Scorer(parts.models, self._settings.classify.infer_records_max, Metrics())
                decider = Decider(parts.routers, scorer)
            read = open_.enter_context(scoring_bar("Reading events", None))
            batches = await open_.enter_async_context(
                aclosing(read_topic(connection, topic, since_ms=since_ms, to_end=True))
            )
            async for batch in batches:
                events = self._events(batch)
                self.events += len(events)
                if decider is not None and events:
                    await self._offer_uncertain(decider, events)
                else:
                    for event in events:
                        self._draw.offer(text_sha256(event.text), Drawn(event))
                read(len(batch))
        return [one for one in self._draw.drawn() if not self._erased(one.event)]

    def _erased(self, event: Event) -> bool:
        """Whether a tombstone for its key came after it."""
        if event.key is None:
            return False
        return self._tombstones.get((event.source.partition, event.key), -1) > event.source.offset

    def _events(self, batch: Sequence[Record]) -> list[Event]:
        """Those that may be drawn; what is no event is left to the dead-letter topic."""
        found: list[Event] = []
        for record in batch:
            try:
                event = self._codec.decode(
                    record.topic,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    record.key,
                    record.value,
                    record.headers,
                )
            except UnreadableRecord:
                continue
            if isinstance(event, Tombstone):
                if event.key is not None:
                    self._tombstones[record.partition, event.key] = record.offset
            elif not (self._passed_over.holds_id(event.id) or self._passed_over.holds_text(event.text)):
                found.append(event)
        return found

    async def _offer_uncertain(self, decider: Decider, events: Sequence[Event]) -> None:
        """Ranked by the task that the small models are least sure of, among those that are asked for."""
        verdicts = await decider.decide([event.text for event in events])
        asked = [
            (router, routed)
            for router, routed in zip(decider.routers, verdicts.routed, strict=True)
            if router.task in self._tasks
        ]
        least = np.minimum.reduce([routed.confidence for _, routed in asked])
        for row, event in enumerate(events):
            if row not in verdicts.refused:
                small = {router.task: _opinion(router, routed, row) for router, routed in asked}
                self._draw.offer(text_sha256(event.text), Drawn(event, small), 1.0 - float(least[row]))


def _opinion(router: TaskRouter, routed: Routed, row: int) -> SmallOpinion:
    shares = [round(float(share), 6) for share in routed.probabilities[row]]
    return SmallOpinion(
        label=router.said(int(routed.label[row])),
        confidence=round(float(routed.confidence[row]), 6),
        probabilities=dict(zip(router.labels, shares, strict=True)),
        model=router.tiers[int(routed.tier[row])].ref,
    )


def _row(one: Drawn, tasks: Sequence[str]) -> dict[str, object]:
    """As a person gets it, and `shunt calibrate` and `shunt feedback` read it."""
    source = one.event.source
    row: dict[str, object] = {
        "id": one.event.id,
        "text": one.event.text,
        "labels": dict.fromkeys(tasks),
        "source": {
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
            "timestamp": rfc3339(source.timestamp_ms).decode(),
        },
    }
    if one.small:
        row["small"] = {
            task: {"label": said.label, "confidence": said.confidence, "model": said.model}
            for task, said in one.small.items()
        }
    return row
