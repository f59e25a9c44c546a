"""The worker: a Faust app that carries the lanes, the web server and the end of the process.

`faust -A stream_app.app worker` takes its role from `SHUNT_ROLE` and its settings from `SHUNT_CONFIG` or
`shunt.toml`; `shunt run` builds the same app. Faust gives lifecycle, web server and the user's own pages and
agents; the lanes bring their own Kafka clients, and where a lane runs Faust has none: its consumer cannot
end a data path that it is no part of.
"""

from __future__ import annotations

import asyncio
import logging
import os
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click
import faust
from faust.app.base import BootStrategy

from stream_app.committed_transport import CommittedTransport
from stream_app.errors import SettingsError, ShuntError
from stream_app.lanes import live_view, works_of
from stream_app.settings import Settings, load_settings
from stream_app.supervision import Ending, LaneService, LoopWatch, ShuntWorker
from stream_app.telemetry import Metrics
from stream_app.web.pages import Pages
from stream_app.web.server import ShuntWeb, bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from faust.types import TransportT
    from mode import ServiceT

    from stream_app.supervision import Work
    from stream_app.telemetry import Lane

ROLE_VARIABLE = "SHUNT_ROLE"


class Role(StrEnum):
    """What a worker does. Without a role it runs both lanes in one process."""

    BOTH = ""
    CLASSIFY = "classify"
    ESCALATE = "escalate"
    FEEDS = "feeds"


class Boot(BootStrategy):
    """Faust starts Kafka clients only for agents of the user's own, and only where no lane runs."""

    def _should_enable_kafka_consumer(self) -> bool:
        return cast("ShuntApp", self.app).has_own_agents

    def _should_enable_kafka_producer(self) -> bool:
        return cast("ShuntApp", self.app).has_own_agents


class ShuntApp(faust.App):
    """The Faust app of a worker. `works` are its lanes: each gets the event that asks it to stop."""

    BootStrategy = Boot
    logger = logging.getLogger("faust.app")

    def __init__(
        self,
        settings: Settings,
        works: Mapping[Lane, Work],
        metrics: Metrics,
        *,
        live: Callable[[int], dict[str, Any]] | None = None,
        may_end: bool = False,
    ) -> None:
        web = settings.web
        self.ending = Ending(settings.kafka.drain_timeout_s)
        self._lane_names: tuple[Lane, ...] = tuple(works)
        self._pages = Pages(metrics, self._lane_names, self.ending.stopping.is_set, live)
        # Faust takes no port 0, so a free one is taken now and its number told to Faust.
        self._bound = bound_socket(web.host, 0) if web.port == 0 else None
        super().__init__(
            f"{settings.kafka.group}-{'-'.join(self._lane_names)}",
            broker=[f"kafka://{server.strip()}" for server in settings.kafka.bootstrap_servers.split(",")],
            Worker=ShuntWorker,
            web_bind=web.host,
            web_host=web.host,
            web_port=web.port if self._bound is None else self._bound.getsockname()[1],
            store="memory://",
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
        )
        lanes: Iterable[ServiceT] = (
            LaneService(lane, work, self.ending, may_end=may_end) for lane, work in works.items()
        )
        for service in (*lanes, LoopWatch(metrics)):
            self.service(cast("Any", service))  # typed for classes; Faust starts instances just as well

    @property
    def has_own_agents(self) -> bool:
        """True where a user's agents are to run: never in a process that runs a data path."""
        return bool(self.agents) and set(self._lane_names) <= {"feeds"}

    def _new_transport(self) -> TransportT:
        return CommittedTransport(self.conf.broker_consumer, self)

    def _new_web(self) -> ShuntWeb:
        return ShuntWeb(self, self._pages, self._bound)

    def _create_directories(self) -> None:
        """Faust makes folders for its tables; a worker without agents has none."""
        if self.has_own_agents:
            super()._create_directories()


def create_app(settings: Settings, role: Role = Role.BOTH) -> ShuntApp:
    """The app of a worker in that role. Raises SettingsError or StartError; nothing is connected yet."""
    metrics = Metrics()
    live = live_view(settings) if role is Role.FEEDS else None
    works = works_of(settings, role.value, metrics, live)
    return ShuntApp(settings, works, metrics, live=None if live is None else live.snapshot)


def run_worker(app: ShuntApp) -> NoReturn:
    """Run the worker until it ends; raises SystemExit with its status."""
    app.finalize()
    app.worker_init()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    ShuntWorker(app, quiet=True, loglevel="info", loop=loop).execute_from_commandline()


@cache
def _app_of_environment() -> ShuntApp:
    """The app as `faust -A` needs it: role and settings from the environment."""
    try:
        name = os.environ.get(ROLE_VARIABLE, "")
        if name not in set(Role):
            advice = "classify, escalate or feeds; leave it out for both lanes in one process"
            raise SettingsError(f"{ROLE_VARIABLE} is {name!r}", advice=advice)
        return create_app(load_settings(), Role(name))
    except ShuntError as error:
        refused = click.ClickException(error.one_line())
        refused.exit_code = error.exit_status
        raise refused from error


def __getattr__(name: str) -> Any:
    """`app` is made when Faust asks for it, so that importing this module needs no settings."""
    if name == "app":
        return _app_of_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
