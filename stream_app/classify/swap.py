"""A swap, from the side of who orders it: another policy comes into force in every worker, without a pause.

1. fence any other swap; read what is in force;
2. let Triton serve the new versions beside those in use;
3. write the candidate; wait until every worker in the group says that it is ready for it;
4. write that it is in force;
5. wait until every worker says that nothing under way is decided by the old one any more;
6. let Triton let the old versions go.

Killed anywhere, it leaves a policy in force and all that this one needs: what 2 loaded, or 6 did not let go, stays.
The workers' words only save pauses: a batch whose model is gone is decided by the policy in force.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_app.classify.model_control import LOAD_WITHIN_S, ModelControl
from stream_app.classify.start import compiled, following, group_of, read_policy, weights_of
from stream_app.errors import MembershipInterrupted, MembershipLost, ShuntError, StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.control_log import ControlOutput, live_clients
from stream_app.kafka.membership import client_id
from stream_app.kafka.topics import require
from stream_app.routing.control import CANDIDATE, IN_FORCE, Candidate, InForce, encoded, worker_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_app.kafka.control_log import ControlLog
    from stream_app.routing.control import Cause, WorkerSays
    from stream_app.routing.policy import Policy
    from stream_app.settings import Settings

LOOK_EVERY_S = 0.3


@dataclass(frozen=True, slots=True)
class Proposal:
    """The policy that is to come into force, and why; `forced` are the reasons against it that were overruled."""

    policy: Policy
    cause: Cause
    forced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Swapped:
    """What came of it: the policies, how many workers took it over, and those that had not said so in time.

    While one has not, the old versions stay loaded.
    """

    before: str | None
    now: str
    forced: tuple[str, ...]
    workers: int
    behind: tuple[str, ...]
    let_go: tuple[str, ...]


class Swap:
    """One swap. `tell` hears of each step, `within_s` bounds each wait for the workers."""

    def __init__(self, settings: Settings, *, within_s: float, keep_old: bool, tell: Callable[[str], object]) -> None:
        self._settings = settings
        self._within_s = within_s
        self._keep_old = keep_old
        self._tell = tell
        self._id = uuid.uuid4().hex[:12]
        self._connection = Connection(settings.kafka)

    async def run(self, propose: Callable[[Policy | None, InForce | None], Proposal]) -> Swapped:
        """Brings into force what `propose` makes of the policy in force and its record.

        Raises what it raises; StartError or SettingsError where Triton or a worker cannot go along: then nothing has
        changed. ShuntError where another swap took over, or Kafka was away.
        """
        await require(self._connection)
        output = ControlOutput(self._connection)
        url = self._settings.triton.url
        try:
            await output.begin()
            async with following(self._connection) as control, ModelControl.connect(url, LOAD_WITHIN_S) as models:
                return await self._swap(propose, output, control, models)
        except MembershipInterrupted as error:
            raise ShuntError(
                f"Kafka did not answer in time ({error.message})", advice="see `shunt status`, then run it again"
            ) from error
        except MembershipLost as error:
            raise ShuntError(
                "another swap has begun", advice="let it end, then look whether yours is needed"
            ) from error
        finally:
            await output.close()

    async def _swap(
        self,
        propose: Callable[[Policy | None, InForce | None], Proposal],
        output: ControlOutput,
        control: ControlLog,
        models: ModelControl,
    ) -> Swapped:
        told = control.state.in_force
        current = read_policy(self._settings) if told is None else told.policy
        proposal = propose(current, told)
        old, new = self._weights(current), self._weights(proposal.policy)
        served = {name: await models.served(name) for name in new}
        try:
            for name, weights in new.items():
                self._tell(f"loading {name}, version {' and '.join(weights)}")
                await models.add(name, {**old.get(name, {}), **weights})
            await compiled(self._settings, models, proposal.policy)
            ready = await self._made_ready(proposal, output, control)
        except BaseException:
            await self._undo(output, models, served)
            raise
        in_force = InForce(
            swap=self._id,
            policy=proposal.policy,
            previous=current,
            cause=proposal.cause,
            forced=proposal.forced,
            at=_now(),
        )
        gone = {worker_key(name): None for name in control.state.workers if name not in ready}
        await output.write({IN_FORCE: encoded(in_force), CANDIDATE: None, **gone})
        self._tell(f"{proposal.policy.ref} is in force")
        workers, behind = await self._said(control, lambda says: says.in_force == self._id)
        let_go = () if behind or self._keep_old else await self._let_go(models, old, new)
        return Swapped(
            current and current.ref, proposal.policy.ref, proposal.forced, len(workers), tuple(sorted(behind)), let_go
        )

    async def _made_ready(self, proposal: Proposal, output: ControlOutput, control: ControlLog) -> set[str]:
        """The workers that are ready: every one of the group."""
        candidate = Candidate(swap=self._id, policy=proposal.policy, at=_now())
        await output.write({CANDIDATE: encoded(candidate)})
        self._tell(f"waiting for the workers to be ready for {proposal.policy.ref}")
        workers, behind = await self._said(control, lambda says: says.ready == self._id)
        for name, says in control.state.workers.items():
            if name in workers and says.refuses == self._id:
                raise StartError(f"worker {name} refuses {proposal.policy.ref}: {says.why}")
        if behind:
            raise StartError(
                f"{len(behind)} of {len(workers)} workers were not ready within {self._within_s:.0f} s",
                advice=f"look at the logs of {', '.join(sorted(behind))}",
            )
        return workers

    async def _said(self, control: ControlLog, so: Callable[[WorkerSays], bool]) -> tuple[set[str], set[str]]:
        """The group's members, and those that have not said so by the end of the time. Ends early at a refusal."""
        group, until_s = group_of(self._settings), time.monotonic() + self._within_s
        while True:
            members = {
                name.removeprefix(client_id(group) + "-") for name in await live_clients(self._connection, group)
            }
            says = {name: control.state.workers.get(name) for name in members}
            behind = {name for name, word in says.items() if word is None or not so(word)}
            refused = any(word is not None and word.refuses == self._id for word in says.values())
            if not behind or refused or time.monotonic() > until_s:
                return members, behind
            await asyncio.sleep(LOOK_EVERY_S)

    def _weights(self, policy: Policy | None) -> dict[str, dict[str, str]]:
        """What the settings' tasks ask of Triton by that policy."""
        asked = {name for task in self._settings.tasks for name in task.models}
        return {name: versions for name, versions in weights_of(policy).items() if name in asked}

    async def _let_go(
        self, models: ModelControl, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
    ) -> tuple[str, ...]:
        """Ends what only the old policy asked for."""
        ended = list[str]()
        for name, versions in new.items():
            spare = [version for version in old.get(name, {}) if version not in versions]
            if spare:
                await models.let_go(name, spare)
                ended += [f"{name}:{version}" for version in spare]
        return tuple(ended)

    async def _undo(self, output: ControlOutput, models: ModelControl, served: Mapping[str, frozenset[str]]) -> None:
        """No candidate any more, and Triton serves what it did; as far as that can be done."""
        with suppress(ShuntError):
            await output.write({CANDIDATE: None})
            for name, versions in served.items():
                await models.let_go(name, await models.served(name) - versions)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
