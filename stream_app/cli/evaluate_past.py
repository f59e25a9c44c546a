"""`shunt evaluate --from-topic`: past decisions, and what they would have come to at other cuts."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import click
import msgspec
import orjson

from stream_app.cli.dlq_selection import moment_ms
from stream_app.cli.table import as_table
from stream_app.codec import SourceMessage, decode_decision
from stream_app.errors import SettingsError, UnreadableRecord
from stream_app.events import Said  # noqa: TC001 - msgspec reads the annotation
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.training.past import AuditKey, PastDecisions
from stream_app.training.what_if import what_if

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_app.settings import Settings, Task
    from stream_app.training.past import PastEvent
    from stream_app.training.what_if import Between, IfCut

P = ParamSpec("P")
R = TypeVar("R")

LIMIT = 100_000
"""Events that are looked at: the newest; half a minute's reading, and shares to a fraction of a per cent."""
NOT_WITH = ("file", "policy_file", "llms", "prices", "half", "out", "audit_share", "live")
FLAGS = {"policy_file": "policy", "llms": "llm", "prices": "price"}


@dataclass(frozen=True, slots=True)
class PastOptions:
    """Which past events, and the cuts to hold against them."""

    thresholds: tuple[float, ...]
    since_ms: int | None
    limit: int


class AuditSeen(msgspec.Struct, frozen=True):
    """What a what-if needs of an audit's result: `by` is `llm` or `human`, no label where nobody answered."""

    task: str
    by: str
    label: Said | None
    source: SourceMessage


_decode_audit = msgspec.json.Decoder(AuditSeen).decode


def with_past_options(command: Callable[Concatenate[PastOptions | None, P], R]) -> Callable[P, R]:
    """Gives `command` the options of a what-if as its first argument, None without `--from-topic`."""

    @click.option("--from-topic", is_flag=True, help="Instead of FILE: past decisions, read from Kafka.")
    @click.option(
        "--threshold",
        "thresholds",
        type=click.FloatRange(0, 1),
        multiple=True,
        help="With --from-topic: what if this had been the cut? Again for more.",
    )
    @click.option(
        "--since", help="With --from-topic: only what was decided at or after this: 2026-11-20T09:30, or 2h."
    )
    @wraps(command)
    def with_options(*args: P.args, **kwargs: P.kwargs) -> R:
        given = cast("dict[str, Any]", kwargs)
        from_topic, thresholds, since = (given.pop(name) for name in ("from_topic", "thresholds", "since"))
        if not from_topic:
            if thresholds or since:
                raise click.UsageError(f"--{'threshold' if thresholds else 'since'} needs --from-topic")
            return command(None, *args, **kwargs)
        for name in NOT_WITH:
            if given.get(name):
                said = "FILE" if name == "file" else f"--{FLAGS.get(name, name).replace('_', '-')}"
                raise click.UsageError(f"--from-topic reads past decisions: leave {said} out")
        limit: int = given.get("limit") or LIMIT
        given["limit"] = None  # it is not the live run's
        return command(PastOptions(tuple(thresholds), _since(since), limit), *args, **kwargs)

    return with_options


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return moment_ms(text, int(time.time() * 1000))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time", param_hint="--since") from error


def evaluate_past(settings: Settings, asked: PastOptions, name: str | None, *, as_json: bool) -> int:
    """Read, hold the cuts against it, and say what is known of each, and what is not."""
    task = _task(settings, name)
    events = asyncio.run(_read(settings, task, asked))
    if not events:
        raise SettingsError(
            f"there is no decision about {task.name} on {settings.kafka.names.decisions}",
            advice="say an earlier --since, or let the pipeline run first",
        )
    found = what_if(events, asked.thresholds, len(task.tiers))
    if as_json:
        click.echo(
            orjson.dumps({"task": task.name, "events": len(events), "cuts": msgspec.to_builtins(found)}).decode()
        )
    else:
        click.echo(_readable(task.name, found))
    return 0


def _task(settings: Settings, name: str | None) -> Task:
    """The named task, or the only one; one with a cut by hand is as good as any."""
    by_name = {task.name: task for task in settings.tasks}
    if name is None and len(by_name) > 1:
        raise SettingsError(f"there are {len(by_name)} tasks", advice=f"say --task {' or --task '.join(by_name)}")
    if name is not None and name not in by_name:
        raise SettingsError(f"there is no task {name}", advice=f"there is {', '.join(by_name)}")
    return settings.tasks[0] if name is None else by_name[name]


async def _read(settings: Settings, task: Task, asked: PastOptions) -> list[PastEvent]:
    connection, names = Connection(settings.kafka), settings.kafka.names
    past = PastDecisions(asked.since_ms)
    # A final may be followed by a correction: twice as many offsets, and a transaction's marker each.
    newest = "earliest" if asked.since_ms is not None else 4 * asked.limit
    async with aclosing(
        read_topic(connection, names.decisions, begin=newest, since_ms=asked.since_ms, to_end=True)
    ) as batches:
        async for batch in batches:
            for record in batch:
                if record.value is not None:
                    try:
                        past.add(decode_decision(record.value))
                    except UnreadableRecord:
                        continue  # somebody else's record on this topic is not ours to count
    return past.events(task.name, task.tiers, await _audits(connection, task.name), asked.limit)


async def _audits(connection: Connection, task: str) -> dict[AuditKey, Said]:
    """What audits of the task came to, where the pipeline has any."""
    topic = connection.kafka.names.audit_results
    found: dict[AuditKey, Said] = {}
    if topic not in await connection.topics([topic]):
        return found
    async with aclosing(read_topic(connection, topic, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                try:
                    audit = _decode_audit(record.value or b"")
                except msgspec.DecodeError:
                    continue
                if audit.task == task and audit.label is not None:
                    found[audit.source.ref, audit.by] = audit.label
    return found


def _readable(task: str, found: list[IfCut]) -> str:
    header = (
        f"{task}, {found[0].events:,} events",
        "accepted",
        "LLM asked",
        "cost",
        "of asking always",
        "wrong among accepted",
        "by audits",
        "as confidence says",
    )
    rows = [
        (
            "as it was" if one.threshold is None else f"at {one.threshold:g}",
            _range(one.coverage),
            _range(one.asked),
            _usd(one.cost_usd),
            _range(one.cost_share),
            _range(one.error.between),
            "-" if one.error.audited is None else f"{one.error.audited:.2%} ({_range(one.error.audited_between)})",
            "-" if one.error.expected is None else f"{one.error.expected:.2%}",
        )
        for one in found
    ]
    return "\n".join([as_table(header, rows), "", *(_known(one) for one in found)])


def _known(one: IfCut) -> str:
    """How much of the error is known, and by whom."""
    error = one.error
    name = "as it was" if one.threshold is None else f"at {one.threshold:g}"
    if not error.accepted:
        return f"{name}: nothing would be accepted"
    whose = [
        f"{count:,} by {who}"
        for count, who in ((error.by_people, "people"), (error.by_llm, "the LLM"), (error.by_audit, "audits"))
        if count
    ]
    unknown = error.accepted - error.known
    known = f"{error.known:,} of {error.accepted:,} accepted are labelled ({', '.join(whose) or 'by nobody'})"
    rest = f"; nobody looked at {unknown:,}, so their errors are a range: all right to all wrong" if unknown else ""
    return f"{name}: {known}, {error.wrong:,} of them wrong{rest}"


def _range(found: Between | None) -> str:
    if found is None:
        return "-"
    low, high = f"{found.low:.2%}", f"{found.high:.2%}"
    return low if low == high else f"{low} to {high}"


def _usd(found: Between | None) -> str:
    if found is None:
        return "-"
    low, high = f"${found.low:,.4f}", f"${found.high:,.4f}"
    return low if low == high else f"{low} to {high}"
