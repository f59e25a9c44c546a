"""`shunt consume`: decisions, or any topic, as they come."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Literal

import click

from stream_app.cli.configured import configured
from stream_app.cli.lines import json_line, readable_line
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic

if TYPE_CHECKING:
    from stream_app.settings import Settings


@click.command()
@click.argument("topic", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many records.")
@click.option("--new", is_flag=True, help="Only what comes from now on.  [default: from the beginning]")
@click.option("--to-end", is_flag=True, help="End at the topic's present end.  [default: go on until Ctrl-C]")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line: the decision as it stands on the topic."
)
@configured
def consume(settings: Settings, topic: str | None, limit: int | None, new: bool, to_end: bool, as_json: bool) -> None:
    """Print what TOPIC holds: a topic's name, or its use (decisions, escalations, parked, dlq, review, input).

    Without TOPIC, the decisions. Only committed records are read, no group is joined, nothing is committed.
    """
    name = settings.kafka.names.model_dump().get(topic or "decisions", topic)
    begin: Literal["earliest", "latest"] = "latest" if new else "earliest"
    with suppress(KeyboardInterrupt):  # Ctrl-C is this command's ordinary end
        asyncio.run(_consume(Connection(settings.kafka), str(name), limit, begin, to_end=to_end, as_json=as_json))


async def _consume(
    connection: Connection,
    topic: str,
    limit: int | None,
    begin: Literal["earliest", "latest"],
    *,
    to_end: bool,
    as_json: bool,
) -> None:
    line = json_line if as_json else readable_line
    left = limit
    async with aclosing(read_topic(connection, topic, begin=begin, to_end=to_end)) as batches:
        async for batch in batches:
            for record in batch[:left]:
                click.echo(line(record))
            if left is not None:
                left -= min(left, len(batch))
                if left == 0:
                    return
