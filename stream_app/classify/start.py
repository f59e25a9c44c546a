"""Puts a hot path together from settings, after everything it needs was found to be there and to fit."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_app.classify.audit_watch import AuditWatch
from stream_app.classify.deciding import Decider
from stream_app.classify.drifting import Drifting
from stream_app.classify.in_force import Policing
from stream_app.classify.model_control import LOAD_WITHIN_S, ModelControl
from stream_app.classify.outbox import Outbox
from stream_app.classify.scoring import Scorer
from stream_app.classify.service import ClassifyLane
from stream_app.classify.swapping import Swapper
from stream_app.classify.triton import TritonModels
from stream_app.codec import Codec
from stream_app.errors import KafkaUnreachable, ModelUnavailable, SettingsError, StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.control_log import ControlLog, ControlVoice
from stream_app.kafka.membership import Membership
from stream_app.kafka.topics import require
from stream_app.routing.control import DRIFT
from stream_app.routing.ladder import audit_share, under_alarm
from stream_app.routing.policy import Policy, load_policy
from stream_app.routing.routers import task_routers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from stream_app.classify.in_force import Alarmed
    from stream_app.routing.decide import TaskRouter
    from stream_app.routing.ladder import OnAlarm
    from stream_app.routing.models import ServedModel
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics


CAUGHT_UP_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decides: the connection to Triton, the routers of every task, and the policy's name."""

    models: TritonModels
    routers: tuple[TaskRouter, ...]
    policy: str | None

    def under(self, alarmed: Alarmed, on_alarm: OnAlarm) -> Deciding:
        """The same while these alarms stand. A cut by hand has no promise to lose; a drift only uncertifies."""
        actions: dict[str, OnAlarm] = {task: "log" for task, _ in alarmed}
        actions |= {task: on_alarm for task, what in alarmed if what != DRIFT}
        routers = tuple(
            under_alarm(router, actions[router.task])
            if router.task in actions and router.uncertified_reason != "manual"
            else router
            for router in self.routers
        )
        return replace(self, routers=routers)

    def decider(self, settings: Settings, metrics: Metrics) -> Decider:
        """A decider that counts into `metrics`."""
        return Decider(self.routers, Scorer(self.models, settings.classify.infer_records_max, metrics))


def group_of(settings: Settings) -> str:
    """The hot path's consumer group."""
    return f"{settings.kafka.group}-classify"


def read_policy(settings: Settings) -> Policy | None:
    """The policy file of the settings, if one is named. SettingsError where it is missing or no policy."""
    file = settings.policy.file
    if file is None:
        return None
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the policy file {file} cannot be read ({error.strerror})",
            advice="make it with `shunt calibrate`, or correct [policy] file",
        ) from error
    return load_policy(raw, str(file))


@asynccontextmanager
async def deciding(settings: Settings, *, in_force: bool) -> AsyncGenerator[Deciding]:
    """Connects to Triton and compiles the policy file for the models it serves; or the policy that is `in_force`.

    Raises StartError (Triton away, a model missing or another one than was calibrated) or SettingsError.
    """
    policy = await policy_in_force(settings) if in_force else read_policy(settings)
    async with TritonModels.connect(settings.triton.url, settings.triton.timeout_s) as models:
        yield await compiled(settings, models, policy)


async def policy_in_force(settings: Settings) -> Policy | None:
    """What a worker that starts now would decide by: the file's where the control topic has none or is not there."""
    connection = Connection(settings.kafka)
    try:
        if await connection.topics([settings.kafka.names.control]):
            async with following(connection) as control:
                if control.state.in_force is not None:
                    return control.state.in_force.policy
    except KafkaUnreachable:
        pass  # whoever needs Kafka says so by himself
    return read_policy(settings)


@asynccontextmanager
async def challenging(settings: Settings, challenger: Policy) -> AsyncGenerator[Deciding]:
    """As `deciding`, by a policy that is not in force: Triton is asked to serve its models too, from now on."""
    asked = {name for task in settings.tasks for name in task.models}
    async with ModelControl.connect(settings.triton.url, LOAD_WITHIN_S) as models:
        for name, weights in weights_of(challenger).items():
            if name in asked:
                await models.add(name, weights)
        yield await compiled(settings, models, challenger)


async def compiled(settings: Settings, models: TritonModels, policy: Policy | None) -> Deciding:
    """The policy, compiled for the versions of the models that it names. Raises as `deciding` does."""
    names = dict.fromkeys(name for task in settings.tasks for name in task.models)
    versions = weights_of(policy)
    served = {
        name: await _described(models, name, next(iter(versions.get(name, {})), ""), settings.triton.url)
        for name in names
    }
    routers = task_routers(settings.tasks, served, policy)
    return Deciding(models, routers, policy.ref if policy is not None else None)


def weights_of(policy: Policy | None) -> dict[str, dict[str, str]]:
    """Model -> version -> the weights' sha-256, of all models that the policy names."""
    found: dict[str, dict[str, str]] = {}
    for task in policy.tasks.values() if policy is not None else ():
        for member in (member for tier in task.tiers for member in tier.members):
            found.setdefault(member.model, {})[member.version] = member.weights_sha256
    return found


async def _described(models: TritonModels, name: str, version: str, url: str) -> ServedModel:
    """The model in that version; where only others are served, the newest: the policy says what it was made for."""
    missing: ModelUnavailable | None = None
    for wanted in dict.fromkeys((version, "")):
        try:
            return await models.describe(name, wanted)
        except ModelUnavailable as error:
            missing = error
    if await models.ready():
        raise StartError(
            f"Triton at {url} does not serve the model {name}",
            advice="load it (--load-model), or correct `tiers` in [[tasks]]",
        ) from missing
    raise StartError(
        f"no Triton answers at {url}", advice="start Triton, or correct [triton] url (the gRPC port)"
    ) from missing


@asynccontextmanager
async def classify_lane(settings: Settings, metrics: Metrics) -> AsyncGenerator[ClassifyLane]:
    """The hot path, ready for `run`: it has read the control topic to its end, whose policy goes before the file.

    Raises StartError or SettingsError; nothing was consumed then.
    """
    connection = Connection(settings.kafka)
    topics = await require(connection)
    codec = Codec(settings.events, settings.kafka.group)
    name = uuid.uuid4().hex[:12]
    promised = [task.name for task in settings.tasks if not task.by_hand]
    async with (
        following(connection) as control,
        TritonModels.connect(settings.triton.url, settings.triton.timeout_s) as models,
    ):

        async def police(policy: Policy | None, swap: str) -> Policing:
            parts = await compiled(settings, models, policy)

            drift = Drifting(policy, promised, settings.audit.shift_min, metrics)

            def again(alarmed: Alarmed) -> Policing:
                on_alarm = settings.audit.on_alarm
                now, by_audits = parts.under(alarmed, on_alarm), any(what != DRIFT for _, what in alarmed)
                share = audit_share(settings.audit.share, on_alarm, alarmed=by_audits)
                outbox = Outbox(settings, codec, now.routers, topics, now.policy, share)
                return Policing(
                    now.decider(settings, metrics), outbox, now.policy, swap, policy, drift, alarmed, again
                )

            return again(control.state.alarmed(parts.policy))

        told = control.state.in_force
        policing = await (police(read_policy(settings), "") if told is None else police(told.policy, told.swap))
        batch_bytes_max = min(topic.message_bytes_max for topic in topics.values())

        def membership(lane: ClassifyLane) -> Membership:
            return Membership(
                connection,
                topic=settings.kafka.input_topic,
                group=group_of(settings),
                work=lane,
                reach=policing.outbox.reach,
                batch_bytes_max=batch_bytes_max,
                name=name,
            )

        voice = ControlVoice(connection)
        watch = AuditWatch(connection, control, voice, metrics, promised)
        swapper = Swapper(control, voice, name, policing, police, watch)
        yield ClassifyLane(settings, codec, policing, metrics, membership, swapper)


@asynccontextmanager
async def following(connection: Connection) -> AsyncGenerator[ControlLog]:
    """The control topic, read to its end, and on. Raises StartError where that takes too long."""
    control = ControlLog(connection)
    reading = asyncio.create_task(control.follow())
    try:
        try:
            async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
                await control.caught_up.wait()
        except TimeoutError as error:
            raise StartError(
                f"the control topic was not read within {CAUGHT_UP_WITHIN_S:.0f} s", advice="see the log"
            ) from error
        yield control
    finally:
        reading.cancel()
        await asyncio.wait({reading})
