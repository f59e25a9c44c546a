"""A worker's part in a swap: it gets ready for a candidate, takes what comes into force, and says so.

What is under way is decided to its end by the policy it was pinned to, as far as its models are there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from stream_app.errors import ShuntError, StartError
from stream_app.routing.control import DRIFT, WorkerSays, encoded, worker_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from stream_app.classify.audit_watch import AuditWatch
    from stream_app.classify.in_force import Policing
    from stream_app.classify.service import ClassifyLane
    from stream_app.kafka.control_log import ControlLog, ControlVoice
    from stream_app.routing.control import Candidate, InForce
    from stream_app.routing.policy import Policy

    Make = Callable[[Policy, str], Awaitable[Policing]]

log = logging.getLogger(__name__)

TRY_AGAIN_S = 2.0
LOOK_EVERY_S = 1.0


class Swapper:
    """Follows the control topic for one lane that decides by `current`. `make` compiles a policy for a swap."""

    def __init__(
        self,
        control: ControlLog,
        voice: ControlVoice,
        name: str,
        current: Policing,
        make: Make,
        watch: AuditWatch | None = None,
    ) -> None:
        self._control = control
        self._voice = voice
        self._name = name
        self._current = current
        self._make = make
        self._watch = watch
        self._ready: Policing | None = None
        self._refused: tuple[str, str] | None = None
        self._retired: list[Policing] = []

    def works(self, lane: ClassifyLane) -> list[Coroutine[None, None, None]]:
        """What runs beside the lane, and ends it when it ends."""
        return [self.run(lane), *([] if self._watch is None else [self._watch.run(), self._tell_shifts(self._watch)])]

    async def run(self, lane: ClassifyLane) -> None:
        """For ever. Raises SettingsError where a policy is in force that this worker's settings cannot decide by."""
        self._look()
        in_force = self._current.swap
        log.info("worker %s decides by %s", self._name, self._current.policy or "thresholds by hand")
        await self._say(in_force)
        while True:
            await self._control.changed.wait()
            self._control.changed.clear()
            state = self._control.state
            if await self._get_ready(state.candidate):
                await self._say(in_force)
            if await self._switch(state.in_force, lane):
                for policing in self._retired:
                    await policing.unused()
                self._retired.clear()
                in_force = self._current.swap
                await self._say(in_force)
            self._heed_alarms(lane)

    async def _tell_shifts(self, watch: AuditWatch) -> None:
        """For ever: what this worker sees to have shifted, all are told."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            policy, drift = self._current.made, self._current.drift
            if policy is not None and drift is not None:
                for task, told in drift.shifts.items():
                    await watch.alarm(policy, task, DRIFT, told)

    def _look(self) -> None:
        """Audits of the policy that decides are watched."""
        if self._watch is not None:
            self._watch.look_at(self._current.made)

    def _heed_alarms(self, lane: ClassifyLane) -> None:
        """The tasks of standing alarms are decided as the settings say for that."""
        standing = self._control.state.standing(self._current.policy)
        now = self._current.under(self._control.state.alarmed(self._current.policy))
        if now is not None:
            for alarm in standing:
                log.warning("an alarm of %s stands for task %s: %s", alarm.policy, alarm.task, alarm.told)
            self._retired = [policing for policing in self._retired if policing.busy]
            self._retired.append(lane.put_in_force(now))
            self._current = now

    async def _get_ready(self, candidate: Candidate | None) -> bool:
        """Whether there is anything new to say of it."""
        if candidate is None or candidate.swap in {self._ready and self._ready.swap, self._current.swap}:
            return False
        if self._refused is not None and self._refused[0] == candidate.swap:
            return False
        try:
            self._ready, self._refused = await self._make(candidate.policy, candidate.swap), None
        except ShuntError as error:
            log.warning("policy %s is refused: %s", candidate.policy.ref, error.one_line())
            self._ready, self._refused = None, (candidate.swap, error.one_line())
        return True

    async def _switch(self, told: InForce | None, lane: ClassifyLane) -> bool:
        """Whether another policy is in force now."""
        if told is None or told.swap == self._current.swap:
            return False
        ready = self._ready
        if ready is None or ready.swap != told.swap:
            try:
                ready = await self._make(told.policy, told.swap)
            except StartError as error:  # its models are not there; until they are, the policy before it decides
                log.warning("policy %s waits: %s", told.policy.ref, error.one_line())
                await asyncio.sleep(TRY_AGAIN_S)
                self._control.changed.set()
                return False
        self._retired.append(lane.put_in_force(ready))
        self._current, self._ready = ready, None
        self._look()
        log.info("policy %s is in force (%s)", told.policy.ref, told.cause)
        return True

    async def _say(self, in_force: str) -> None:
        refused = self._refused or (None, "")
        says = WorkerSays(
            ready=self._ready and self._ready.swap, refuses=refused[0], why=refused[1], in_force=in_force
        )
        await self._voice.say(worker_key(self._name), encoded(says))
