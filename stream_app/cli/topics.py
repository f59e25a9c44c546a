"""`shunt topics create`: the topics of the pipeline, made or only shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from stream_app.cli.configured import configured
from stream_app.cli.table import as_table
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import DAY_MS, Difference, TopicPlan, create, differences, look_up, plan

if TYPE_CHECKING:
    from stream_app.settings import Kafka, Settings

PARTITIONS = click.IntRange(1, 10_000)


@click.group()
def topics() -> None:
    """Make the topics of a pipeline."""


@topics.command("create")
@click.option("--partitions", type=PARTITIONS, help="Of an input topic that is still to be made.  [default: 6]")
@click.option(
    "--escalation-partitions",
    type=PARTITIONS,
    help="At most so many workers share the LLM lane.  [default: as the input]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be made.")
@configured
def create_(settings: Settings, partitions: int | None, escalation_partitions: int | None, dry_run: bool) -> None:
    """Make the topics that are missing, and say what differs in those that are there.

    It may be called again: what exists is left as it is.
    """
    planned, made, wrong = asyncio.run(_create(settings.kafka, partitions, escalation_partitions, dry_run=dry_run))
    click.echo(_table(planned, made, dry_run=dry_run))
    for difference in wrong:
        click.echo(f"{'!' if difference.breaks else '-'} {difference.topic} {difference.what}")
    click.echo("\nNothing was changed." if dry_run else "\nNext: shunt check")


async def _create(
    kafka: Kafka, partitions: int | None, escalations: int | None, *, dry_run: bool
) -> tuple[tuple[TopicPlan, ...], list[str], list[Difference]]:
    """The plan, the names that were (or would be) made, and what differs in the others."""
    connection = Connection(kafka)
    found = await look_up(connection, kafka.names.model_dump().values())
    there = found.get(kafka.names.escalations)
    escalations = there.partitions if there else escalations
    planned = plan(kafka, found.get(kafka.input_topic), partitions=partitions, escalations=escalations)
    wrong = [difference for difference in differences(planned, found) if difference.topic in found]
    made = (
        [topic.name for topic in planned if topic.name not in found] if dry_run else await create(connection, planned)
    )
    return planned, made, wrong


def _table(planned: tuple[TopicPlan, ...], made: list[str], *, dry_run: bool) -> str:
    new = "would be made" if dry_run else "made"
    return as_table(
        ("topic", "partitions", "cleanup", "retention", "written by", "read by", ""),
        [
            (
                topic.name,
                topic.partitions,
                topic.cleanup.value,
                _retention(topic.retention_ms),
                topic.written_by,
                topic.read_by,
                new if topic.name in made else "exists",
            )
            for topic in planned
        ],
    )


def _retention(retention_ms: int) -> str:
    return "for ever" if retention_ms < 0 else f"{retention_ms / DAY_MS:g} days"
