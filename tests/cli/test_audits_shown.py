"""What `shunt status` tells of audits: the results of the policy in force, read again from the topic."""

from __future__ import annotations

import asyncio

from stream_app.classify.start import following
from stream_app.cli.audits_shown import audits_lines, audits_object, audits_seen
from stream_app.kafka.connection import Connection
from stream_app.kafka.control_log import ControlVoice
from stream_app.routing.control import Alarm, encoded
from tests.classify.test_alarms import made, results  # noqa: F401 - `made` is a fixture
from tests.kafka.reading import produce


async def shown(settings):
    connection = Connection(settings.kafka)
    async with following(connection) as control:
        return await audits_seen(connection, settings, control.state)


async def test_status_tells_what_audits_came_to(stack, made):  # noqa: F811
    """Counts, bound and evidence of that policy alone, and its standing alarms; before any, that there is none."""
    settings = made("log")
    assert audits_lines(await shown(settings)) == ["audits        none of the policy in force yet"]
    values = [*results(190, lost=False), *results(10, lost=True), *results(50, lost=True, ref="scripted@9")]
    await asyncio.to_thread(produce, stack.bootstrap_servers, settings.kafka.names.audit_results, [*values, b"?"])
    alarms = [
        Alarm(policy=ref, task="sentiment", what="llm", told="too many", at="2026-11-21T09:00:00Z")
        for ref in ("scripted@1", "scripted@9")
    ]
    for alarm in alarms:
        await ControlVoice(Connection(settings.kafka)).say(alarm.key, encoded(alarm))
    seen = await shown(settings)
    told = audits_object(seen)
    of_llm = told["audits"]["sentiment"]["llm"]
    assert (of_llm["audited"], of_llm["disagreed"], of_llm["unanswered"], of_llm["bound"]) == (200, 10, 0, 0.05)
    assert told["audits"]["sentiment"]["human"]["audited"] == 0
    assert [alarm["policy"] for alarm in told["alarms"]] == ["scripted@1"]
    audited, alarm = audits_lines(seen)
    assert audited.startswith("audits        sentiment, the LLM: 200, 10 disagreed; bound 5.00%, evidence ")
    assert audited.endswith(" of 20")
    assert alarm == "ALARM         sentiment, since 2026-11-21T09:00:00Z: too many"
