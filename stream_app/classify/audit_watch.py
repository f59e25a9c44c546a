"""A worker's look at audits: every worker reads all results of the policy in force, and says an alarm."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_app.codec import decode_audit_result, timestamp_ms
from stream_app.errors import ShuntError, UnreadableRecord
from stream_app.kafka.reader import read_topic
from stream_app.routing.alarms import Audited, AuditState
from stream_app.routing.control import Alarm, encoded

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiokafka.structs import ConsumerRecord

    from stream_app.kafka.connection import Connection
    from stream_app.kafka.control_log import ControlLog, ControlVoice
    from stream_app.routing.policy import Policy
    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)

AGAIN_S = 1.0
CLOCKS_APART_MS = 24 * 3_600_000
"""No result of a policy is older than the policy, but for clocks that differ."""


class AuditWatch:
    """Follows the results of one policy at a time, from its beginning; the same state in every worker."""

    def __init__(
        self,
        connection: Connection,
        control: ControlLog,
        voice: ControlVoice,
        metrics: Metrics,
        tasks: Collection[str],
    ) -> None:
        """`tasks` are those that are decided by a policy's own cut."""
        self._connection, self._control, self._voice, self._metrics = connection, control, voice, metrics
        self._tasks = tasks
        self._policy: Policy | None = None
        self._changed = asyncio.Event()

    def look_at(self, policy: Policy | None) -> None:
        """That policy decides from now on: what was seen of another one says nothing of it."""
        if policy != self._policy:
            self._policy = policy
            self._changed.set()

    async def run(self) -> None:
        """For ever: follows the policy that it is to look at."""
        while True:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            following = [] if self._policy is None else [asyncio.create_task(self._follow(self._policy))]
            try:
                await asyncio.wait({changed, *following}, return_when=asyncio.FIRST_COMPLETED)
                for task in following:
                    if task.done():
                        task.result()  # a bug, which must not stay unnoticed
            finally:
                for task in (changed, *following):
                    task.cancel()
                await asyncio.wait({changed, *following})

    async def _follow(self, policy: Policy) -> None:
        """For ever; begins anew where Kafka was away."""
        while True:
            try:
                await self._fold(policy, AuditState.of(policy, self._tasks))
            except (KafkaError, ShuntError) as error:
                log.warning("the audit results cannot be read: %s; trying again", error)
            await asyncio.sleep(AGAIN_S)

    async def _fold(self, policy: Policy, state: AuditState) -> None:
        topic = self._connection.kafka.names.audit_results
        async with aclosing(read_topic(self._connection, topic, since_ms=results_since_ms(policy))) as batches:
            async for batch in batches:
                for record in batch:
                    fold(state, record)
                    # Told again after a restart, or by another worker: its record is the same and changes nothing.
                for (task, by), watched in state.watched.items():
                    self._metrics.audit_evidence(task, by, watched.risk, watched.wealth, alarm=watched.alarm)
                    if watched.alarm:
                        await self.alarm(policy, task, by, state.told(task, by))

    async def alarm(self, policy: Policy, task: str, what: str, told: str) -> None:
        """Says it on the control topic, unless somebody has: all workers act on that record, and none on its own."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        alarm = Alarm(policy=policy.ref, task=task, what=what, told=told, at=at)
        if alarm.key in self._control.state.alarms:
            return
        log.warning("ALARM: policy %s, task %s: %s", policy.ref, task, told)
        await self._voice.say(alarm.key, encoded(alarm))


def results_since_ms(policy: Policy) -> int:
    """From when on there can be results of that policy."""
    return timestamp_ms(policy.made_at) - CLOCKS_APART_MS


def fold(state: AuditState, record: ConsumerRecord[bytes | None, bytes | None]) -> None:
    """Takes one record of the results topic in; somebody else's is passed over."""
    try:
        result = decode_audit_result(record.value)
    except UnreadableRecord as error:
        log.warning("offset %d of the audit results is passed over: %s", record.offset, error.message)
        return
    lost, answered = result.result != "agree", result.result != "no_answer"
    state.take(Audited(result.policy, result.task, result.by, lost, answered))
