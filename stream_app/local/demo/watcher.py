"""Reads the output topics as a consumer of the user's would: committed records only, from the beginning."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from stream_app.kafka.reader import read_topic
from stream_app.local.demo.outcomes import dead, decided_or_passed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.kafka.connection import Connection
    from stream_app.local.demo.outcomes import Outcome


async def watch(connection: Connection, on_outcome: Callable[[Outcome], None], *, to_end: bool = False) -> None:
    """Hand over every outcome of both output topics, for ever, or up to what the topics hold now."""
    names = connection.kafka.names
    async with asyncio.TaskGroup() as reading:
        for topic, parse in ((names.decisions, decided_or_passed), (names.dlq, dead)):
            reading.create_task(_read(connection, topic, parse, on_outcome, to_end=to_end))


async def all_outcomes(connection: Connection) -> list[Outcome]:
    """What the output topics hold now."""
    found: list[Outcome] = []
    await watch(connection, found.append, to_end=True)
    return found


async def _read(
    connection: Connection,
    topic: str,
    parse: Callable[..., Outcome],
    on_outcome: Callable[[Outcome], None],
    *,
    to_end: bool,
) -> None:
    async with aclosing(read_topic(connection, topic, to_end=to_end)) as batches:
        async for batch in batches:
            for record in batch:
                on_outcome(parse(record.value, record.headers))
