"""Kafka's own command-line tools: clients of the broker that nobody here wrote, to check what ours claim."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import ShuntError
from stream_app.local.jars import jars_ready
from stream_app.local.java import java_command, java_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
GET_OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
PRODUCER_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
HEAP_MB = 256
# How long the console consumer waits for one more record before it ends, one try after the other: its only way
# to end by itself, and no proof that it saw everything (on a loaded machine even joining its group may take
# longer). So what it committed is held against the ends of the partitions.
QUIET_TRIES_MS = (2_000, 8_000, 32_000)


class ToolError(ShuntError):
    """One of Kafka's own tools failed; the message holds its last words."""


@dataclass(frozen=True, slots=True)
class ConsoleRecord:
    """A record as the console consumer prints it: headers and key as text, `null` where there is none."""

    partition: int
    offset: int
    headers: str
    key: str
    value: str


async def run_tool(main_class: str, *args: str, deadline_s: float = 120.0) -> str:
    """Run a tool to its end and return its standard output. Raises `ToolError` when it fails or is too slow."""
    jars = await jars_ready()
    command = java_command(main_class, *args, heap_mb=HEAP_MB, log_level="error")
    process = await asyncio.create_subprocess_exec(
        *command,
        env=java_environment(jars),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise ToolError(f"{main_class} took longer than {deadline_s:.0f} s") from error
        raise
    if process.returncode != 0:
        last = (err or out).decode(errors="replace").strip().splitlines()[-3:]
        raise ToolError(f"{main_class} failed: {' '.join(last)}")
    return out.decode(errors="replace")


async def consume_all(bootstrap_servers: str, topic: str, *, deadline_s: float = 120.0) -> list[ConsoleRecord]:
    """Every committed record of a topic, read from its beginning by Kafka's own console consumer.

    Complete: the consumer's position stands at the end of every partition, or the read is repeated with more
    patience. A value's own line breaks and tabs must be escaped, as JSON does. Raises `ToolError`.
    """
    for quiet_ms in QUIET_TRIES_MS:
        group = f"console-{uuid.uuid4().hex}"
        out = await run_tool(
            CONSOLE_CONSUMER,
            *("--bootstrap-server", bootstrap_servers, "--topic", topic, "--group", group),
            *("--from-beginning", "--isolation-level", "read_committed", "--timeout-ms", str(quiet_ms)),
            *_properties("--formatter-property", "print.partition", "print.offset", "print.headers", "print.key"),
            deadline_s=deadline_s,
        )
        if await _reached_the_end(bootstrap_servers, group, topic):
            return [_record(line) for line in out.splitlines() if line.startswith("Partition:")]
    raise ToolError(
        f"Kafka's console consumer did not come to the end of {topic}",
        advice="a transaction may still be open, or something still writes to it",
    )


async def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The end offset of each partition, by Kafka's own GetOffsetShell. Raises `ToolError`."""
    out = await run_tool(GET_OFFSETS, "--bootstrap-server", bootstrap_servers, "--topic", topic)
    # A line: topic:partition:offset
    rows = [line.rsplit(":", 2) for line in out.split()]
    return {int(partition): int(offset) for _, partition, offset in rows}


async def _reached_the_end(bootstrap_servers: str, group: str, topic: str) -> bool:
    """Whether the group has committed the end of every partition that holds anything."""
    out = await run_tool(CONSUMER_GROUPS, "--bootstrap-server", bootstrap_servers, "--describe", "--group", group)
    # A line: group topic partition current-offset log-end-offset lag ...
    rows = [line.split()[2:5] for line in out.splitlines() if line.split()[:2] == [group, topic]]
    return bool(rows) and all(end in (current, "0") for _, current, end in rows)


def _properties(flag: str, *names: str) -> Sequence[str]:
    return [part for name in names for part in (flag, f"{name}=true")]


def _record(line: str) -> ConsoleRecord:
    """A line: `Partition:0<tab>Offset:7<tab>name:value,name:value<tab>key<tab>value`."""
    partition, offset, headers, key, value = line.split("\t", 4)
    return ConsoleRecord(
        partition=int(partition.removeprefix("Partition:")),
        offset=int(offset.removeprefix("Offset:")),
        headers=headers,
        key=key,
        value=value,
    )
