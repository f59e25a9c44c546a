"""Puts a hot path together from settings, after everything it needs was found to be there and to fit."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.classify.deciding import Decider
from stream_app.classify.outbox import Outbox
from stream_app.classify.scoring import Scorer
from stream_app.classify.service import ClassifyLane
from stream_app.classify.triton import TritonModels
from stream_app.codec import Codec
from stream_app.errors import ModelUnavailable, SettingsError, StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.membership import Membership
from stream_app.kafka.topics import require
from stream_app.routing.policy import Policy, load_policy
from stream_app.routing.routers import task_routers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from stream_app.routing.decide import TaskRouter
    from stream_app.routing.models import ServedModel
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decides: the connection to Triton, the routers of every task, and the policy's name."""

    models: TritonModels
    routers: tuple[TaskRouter, ...]
    policy: str | None

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
async def deciding(settings: Settings) -> AsyncGenerator[Deciding]:
    """Connects to Triton and compiles the policy for the models it serves.

    Raises StartError (Triton away, a model missing or another one than was calibrated) or SettingsError.
    """
    policy = read_policy(settings)
    async with TritonModels.connect(settings.triton.url, settings.triton.timeout_s) as models:
        names = dict.fromkeys(name for task in settings.tasks for name in task.models)
        served = {name: await _described(models, name, settings.triton.url) for name in names}
        routers = task_routers(settings.tasks, served, policy)
        yield Deciding(models, routers, policy.ref if policy is not None else None)


async def _described(models: TritonModels, name: str, url: str) -> ServedModel:
    try:
        return await models.describe(name)
    except ModelUnavailable as error:
        if await models.ready():
            raise StartError(
                f"Triton at {url} does not serve the model {name}",
                advice="load it (--load-model), or correct `tiers` in [[tasks]]",
            ) from error
        raise StartError(
            f"no Triton answers at {url}", advice="start Triton, or correct [triton] url (the gRPC port)"
        ) from error


@asynccontextmanager
async def classify_lane(settings: Settings, metrics: Metrics) -> AsyncGenerator[ClassifyLane]:
    """The hot path, ready for `run`. Raises StartError or SettingsError; nothing was consumed then."""
    connection = Connection(settings.kafka)
    topics = await require(connection)
    async with deciding(settings) as parts:
        codec = Codec(settings.events, settings.kafka.group)
        outbox = Outbox(settings, codec, parts.routers, topics, parts.policy)
        batch_bytes_max = min(topic.message_bytes_max for topic in topics.values())

        def membership(lane: ClassifyLane) -> Membership:
            return Membership(
                connection,
                topic=settings.kafka.input_topic,
                group=group_of(settings),
                work=lane,
                reach=outbox.reach,
                batch_bytes_max=batch_bytes_max,
            )

        yield ClassifyLane(settings, codec, parts.decider(settings, metrics), outbox, metrics, membership)
