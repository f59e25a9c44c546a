"""`shunt status`: how far the lanes are, and what the newest decisions say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import orjson

from stream_app.classify.start import following
from stream_app.cli.audits_shown import audits_lines, audits_object, audits_seen
from stream_app.cli.configured import configured
from stream_app.cli.recent import Recent, Spend, spend
from stream_app.cli.table import as_table
from stream_app.codec import decode_dead_letter, decode_decision
from stream_app.errors import UnreadableRecord
from stream_app.kafka.admin import LaneLag, lane_lag
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.kafka.topics import require

if TYPE_CHECKING:
    from stream_app.cli.audits_shown import Audits
    from stream_app.routing.control import InForce
    from stream_app.settings import Settings

NEWEST_OF_EACH_PARTITION = 2_000
"""Offsets that are looked at: enough for a share to a per cent or two, read in a second or two."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `shunt status` tells. `decided` covers the newest decisions only."""

    lanes: tuple[LaneLag, ...]
    decided: Recent
    dead: Counter[str]
    spend: Spend
    in_force: InForce | None
    audits: Audits


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@configured
def status(settings: Settings, as_json: bool) -> None:
    """Show lag, rates, share escalated, spend, dead letters, audits and alarms, from the topics themselves."""
    report = asyncio.run(_report(settings))
    if as_json:
        click.echo(orjson.dumps(_as_json(report, settings)).decode())
        return
    for line in _readable(report, settings):
        click.echo(line)


async def _report(settings: Settings) -> Report:
    connection = Connection(settings.kafka)
    found = await require(connection)
    names = settings.kafka.names
    decided, dead, classify, escalate, parked, audits = await asyncio.gather(
        _decided(connection, names.decisions),
        _dead(connection, names.dlq),
        lane_lag(connection, "classify", names.input, found[names.input].partitions),
        lane_lag(connection, "escalate", names.escalations, found[names.escalations].partitions),
        lane_lag(connection, "parked", names.parked, found[names.parked].partitions, of_group="escalate"),
        lane_lag(connection, "audits", names.audits, found[names.audits].partitions, of_group="escalate"),
    )
    async with following(connection) as control:
        in_force, seen = control.state.in_force, await audits_seen(connection, settings, control.state)
    return Report(
        (classify, escalate, parked, audits), decided, dead, spend(escalate.notes, time.time()), in_force, seen
    )


async def _decided(connection: Connection, topic: str) -> Recent:
    recent = Recent()
    async with aclosing(read_topic(connection, topic, begin=NEWEST_OF_EACH_PARTITION, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                if record.value is not None:
                    try:
                        recent.add([decode_decision(record.value)])
                    except (UnreadableRecord, ValueError):
                        continue  # somebody else's record on this topic is not ours to count
    return recent


async def _dead(connection: Connection, topic: str) -> Counter[str]:
    causes: Counter[str] = Counter()
    async with aclosing(read_topic(connection, topic, begin=NEWEST_OF_EACH_PARTITION, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                try:
                    causes[decode_dead_letter(record.headers).cause.name] += 1
                except UnreadableRecord:
                    causes["no dead letter"] += 1
    return causes


def _as_json(report: Report, settings: Settings) -> dict[str, object]:
    decided = report.decided
    return {
        "lanes": {lag.lane: _lane(lag) for lag in report.lanes},
        "decisions": {
            "final": decided.finals,
            "by": dict(decided.by),
            "per_s": decided.per_s,
            "span_s": decided.span_s,
            "escalated_share": decided.escalated_share,
            "degraded": dict(decided.degraded),
            "corrections": decided.corrections,
            "uncertified": decided.uncertified,
            "models": dict(decided.models),
            "cost_usd": decided.cost_usd,
            "saved_usd_estimate": decided.saved_usd_estimate,
        },
        "budget": {
            "usd_per_hour": settings.llm.usd_per_hour,
            "usd_per_day": settings.llm.usd_per_day,
            "spent_hour_usd": report.spend.hour_usd,
            "spent_day_usd": report.spend.day_usd,
            "leased_usd": report.spend.leased_usd,
        },
        "dead_letters": dict(report.dead),
        "policy": None if report.in_force is None else _policy(report.in_force),
        **audits_object(report.audits),
    }


def _policy(in_force: InForce) -> dict[str, object]:
    previous = in_force.previous
    return {
        "in_force": in_force.policy.ref,
        "cause": in_force.cause,
        "at": in_force.at,
        "forced": in_force.forced,
        "previous": previous and previous.ref,
    }


def _lane(lag: LaneLag) -> dict[str, object]:
    return {
        "group": lag.group,
        "topic": lag.topic,
        "lag": lag.records,
        "finished_ahead": lag.finished_ahead,
        "started": lag.started,
    }


def _readable(report: Report, settings: Settings) -> list[str]:
    lanes = as_table(
        ("lane", "group", "topic", "lag", ""),
        [(lag.lane, lag.group, lag.topic, lag.records, _remark(lag)) for lag in report.lanes],
    )
    dead = ", ".join(f"{count:,} {cause}" for cause, count in report.dead.most_common()) or "none"
    llm, spent = settings.llm, report.spend
    hour = f"${spent.hour_usd:.4f} of ${llm.usd_per_hour:g} this hour"
    today = f"${spent.day_usd:.4f} of ${llm.usd_per_day:g} today"
    return [
        lanes,
        "",
        *_decisions(report.decided),
        f"spend         {hour}, {today}, ${spent.leased_usd:.4f} more leased to workers",
        f"dead letters  {dead}",
        f"policy        {_in_force(report.in_force)}",
        *audits_lines(report.audits),
    ]


def _in_force(told: InForce | None) -> str:
    if told is None:
        return "that of the policy file: none was promoted"
    before = "" if told.previous is None else f", after {told.previous.ref}"
    forced = f"; forced: {'; '.join(told.forced)}" if told.forced else ""
    return f"{told.policy.ref}, by {told.cause} at {told.at}{before}{forced}"


def _remark(lag: LaneLag) -> str:
    if not lag.started:
        return "nothing committed yet"
    return f"{lag.finished_ahead:,} of them finished" if lag.finished_ahead else ""


def _decisions(decided: Recent) -> list[str]:
    if not decided.finals:
        return ["decisions     none yet"]
    by = ", ".join(f"{count:,} {who}" for who, count in decided.by.most_common())
    rate = "" if decided.per_s is None else f", {decided.per_s:,.1f}/s over {decided.span_s:,.0f} s"
    degraded = ", ".join(f"{count:,} {why}" for why, count in decided.degraded.most_common()) or "none"
    return [
        f"decisions     the newest {decided.finals:,}: {by}{rate}",
        f"escalated     {decided.escalated_share or 0:.1%}, LLM calls ${decided.cost_usd:.4f}{_saved(decided)}",
        *_models(decided),
        f"degraded      {degraded}; corrected later {decided.corrections:,}",
        f"uncertified   {decided.uncertified:,}",
    ]


def _models(decided: Recent) -> list[str]:
    """Which models answered, where several did: an endpoint has been away."""
    if len(decided.models) < 2:
        return []
    return ["answered by   " + ", ".join(f"{count:,} {model}" for model, count in decided.models.most_common())]


def _saved(decided: Recent) -> str:
    saved_usd = decided.saved_usd_estimate
    return "" if saved_usd is None else f"; about ${saved_usd:.4f} saved against asking the LLM about all (estimate)"
