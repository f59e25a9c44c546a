"""What `shunt status` tells of audits: what they came to under the policy in force, and the alarms that stand."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from stream_app.classify.audit_watch import fold, results_since_ms
from stream_app.classify.start import read_policy
from stream_app.errors import SettingsError
from stream_app.kafka.reader import read_topic
from stream_app.routing.alarms import AuditState

if TYPE_CHECKING:
    from stream_app.kafka.connection import Connection
    from stream_app.routing.alarms import Watched
    from stream_app.routing.control import Alarm, Control
    from stream_app.settings import Settings

WHO = {"llm": "the LLM", "human": "people"}


@dataclass(frozen=True, slots=True)
class Audits:
    """All results of the policy in force, None without one, and its standing alarms."""

    state: AuditState | None
    alarms: list[Alarm]


async def audits_seen(connection: Connection, settings: Settings, control: Control) -> Audits:
    """Reads the results topic to its end."""
    policy = control.in_force.policy if control.in_force is not None else None
    if policy is None:
        try:
            policy = read_policy(settings)
        except SettingsError:
            policy = None  # it stands with the workers, not here
    if policy is None:
        return Audits(None, [])
    state = AuditState.of(policy, [task.name for task in settings.tasks if not task.by_hand])
    topic, since_ms = settings.kafka.names.audit_results, results_since_ms(policy)
    async with aclosing(read_topic(connection, topic, since_ms=since_ms, to_end=True)) as batches:
        async for batch in batches:
            for record in batch:
                fold(state, record)
    return Audits(state, control.standing(policy.ref))


def audits_object(audits: Audits) -> dict[str, Any]:
    """For a program: `audits` by task and who looked, and `alarms`."""
    found: dict[str, dict[str, Any]] = {}
    for (task, by), watched in audits.state.watched.items() if audits.state is not None else ():
        found.setdefault(task, {})[by] = {
            "audited": watched.audited,
            "disagreed": watched.disagreed,
            "unanswered": watched.unanswered,
            "bound": watched.bound,
            "wealth": watched.wealth,
            "alarm": watched.alarm,
        }
    return {"audits": found, "alarms": [msgspec.to_builtins(alarm) for alarm in audits.alarms]}


def audits_lines(audits: Audits) -> list[str]:
    """For a person."""
    lines = [
        f"audits        {task}, {WHO[by]}: {_told(watched)}"
        for (task, by), watched in (audits.state.watched.items() if audits.state is not None else ())
        if watched.audited
    ]
    lines += [f"ALARM         {alarm.task}, since {alarm.at}: {alarm.told}" for alarm in audits.alarms]
    return lines or ["audits        none of the policy in force yet"]


def _told(watched: Watched) -> str:
    silent = f", {watched.unanswered:,} without an answer" if watched.unanswered else ""
    bound = "nothing to hold it against" if watched.bound is None else f"bound {watched.bound:.2%}"
    monitor = watched.monitor
    evidence = "" if monitor is None else f", evidence {monitor.wealth:.2g} of {1 / monitor.delta:.0f}"
    return f"{watched.audited:,}, {watched.disagreed:,} disagreed{silent}; {bound}{evidence}"
