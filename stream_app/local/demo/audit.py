"""Lost and duplicated, counted by Kafka's own console consumer: a reader that nobody here wrote."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from stream_app.local.console import consume_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_app.local.console import ConsoleRecord
    from stream_app.settings import Kafka

SOURCE = re.compile(r"(?:^|,)shunt-source:([^,]+)")
NONE_OF_THEM = 1_000_000_000
"""A call number that is never reached: only the sums are wanted."""
KIND = re.compile(r"(?:^|,)kind:([^,]+)")


@dataclass(frozen=True, slots=True)
class Audit:
    """What the console consumer saw: `closing` finals, dead letters and tombstones for `sent` records."""

    sent: int
    closing: int
    lost: int
    duplicated: int


async def audit(kafka: Kafka, sent: int) -> Audit:
    """Read both output topics with `isolation.level=read_committed`. Raises `ToolError`."""
    topics = (kafka.names.decisions, kafka.names.dlq)
    read = await asyncio.gather(*(consume_all(kafka.bootstrap_servers, topic) for topic in topics))
    return counted((record for records in read for record in records), sent)


def counted(records: Iterable[ConsoleRecord], sent: int) -> Audit:
    """Every record sent must be the source of exactly one closing record."""
    times = Counter(source for record in records if (source := _closes(record.headers)) is not None)
    return Audit(sent, closing=times.total(), lost=sent - len(times), duplicated=times.total() - len(times))


async def calls_made(llm_base_url: str) -> int:
    """How many calls the stand-in LLM has had, by its own count."""
    address = f"{llm_base_url.removesuffix('/v1')}/admin/calls?since={NONE_OF_THEM}"
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        told = await response.json()
    return int(told["total"])


def _closes(headers: str) -> str | None:
    """The source that a record closes; None for a provisional decision or a correction."""
    kinds = KIND.findall(headers)
    if kinds and kinds[-1] != "final":
        return None
    sources: list[str] = SOURCE.findall(headers)
    return sources[-1] if sources else None
