"""The demo from start to end: stack, topics, workers, records in, outcomes out, and the balance."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_app.errors import SettingsError, ShuntError
from stream_app.escalate.prices import price_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from stream_app.local.demo import config, folder
from stream_app.local.demo.audit import Audit, audit, calls_made
from stream_app.local.demo.feeder import feed
from stream_app.local.demo.kills import kill_schedule
from stream_app.local.demo.options import DemoLlm, DemoOptions, choose_llm
from stream_app.local.demo.report import balance, examples, next_commands
from stream_app.local.demo.signals import stop_signals, unless
from stream_app.local.demo.summary import Summary, as_json, summarise
from stream_app.local.demo.tally import Tally
from stream_app.local.demo.watcher import all_outcomes, watch
from stream_app.local.demo.workers import Workers
from stream_app.local.llm.options import StandInOptions
from stream_app.local.ports import claim_port
from stream_app.local.reviews import Sample, demo_samples, gold_tasks, samples_of_file
from stream_app.local.stack import Stack
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_app.local.demo.outcomes import Outcome
    from stream_app.local.demo.screen import Screen

WEB_PORT = 6066
POLL_S = 0.1
STALL_S = 90.0
"""Nothing came out for so long, and something is missing: the balance is drawn with what there is."""
PATIENCE_S = 10.0
"""After Ctrl-C, how long what is under way may still take."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the demo ended: the object for programs, and whether every record sent has exactly one outcome."""

    told: dict[str, Any]
    whole: bool


class Demo:
    """One run. `run` does it all; nothing it started is left when it returns or raises."""

    def __init__(self, options: DemoOptions, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        config.require_platform()
        self._llm: DemoLlm = choose_llm(options)
        self._policy = config.shipped_policy()
        self._samples = _samples(options)
        self._tasks = frozenset(self._policy.tasks) & (gold_tasks(self._samples) or frozenset(self._policy.tasks))
        self._folder: Path = folder.new_run_folder()
        self._first_outcome = asyncio.Event()
        self._tally = Tally(planned=sum(sample.value is not None for sample in self._samples))

    async def run(self) -> Ended:
        """Raises StartError or SettingsError with the reason, Interrupted when stopped before the first record."""
        with stop_signals() as stopping, self._screen:
            stack = self._stack()
            self._screen.say(self._llm.notice, "yellow" if self._llm.stand_in else "magenta")
            if not self._llm.stand_in and not config.price_known(self._llm.model):
                self._screen.say(
                    f"The price of {self._llm.model} is not known here: costs are shown as $0.", "yellow"
                )
            self._screen.doing("starting Kafka, Triton and the LLM's stand-in side by side")
            try:
                await unless(stopping, stack.open())
                return await self._with(stack, stopping)
            finally:
                self._screen.doing("stopping")
                await stack.close()
                folder.forget_data(self._folder)

    def _stack(self) -> Stack:
        stand_in = StandInOptions(replay=self._options.replay, replay_names=self._options.llm_names)
        return Stack(
            self._folder,
            llm=self._llm.stand_in,
            model_repository=config.shipped_models_path(),
            load_models=config.models_of(self._policy, self._tasks),
            llm_options=stand_in if self._llm.replays else None,
            progress=self._screen.step,
        )

    async def _with(self, stack: Stack, stopping: asyncio.Event) -> Ended:
        """The run on a stack that is up."""
        settings = self._settings(stack)
        connection = Connection(settings.kafka)
        await unless(stopping, create(connection, plan(settings.kafka, None)))
        workers = Workers(self._folder / "shunt.toml", self._folder, settings.web.port)
        page = f"http://{settings.web.host}:{settings.web.port}/"
        try:
            await self._start(workers, stopping)
            sent = await self._until_done(connection, workers, stopping, page)
            self._screen.doing("reading the topics once more, for the balance")
            return await self._balance(connection, settings, sent, stopping, page)
        except* ShuntError as errors:
            raise _first(errors) from None
        finally:
            await workers.stop()

    async def _start(self, workers: Workers, stopping: asyncio.Event) -> None:
        self._screen.doing("starting the workers: classify, escalate, feeds")
        began_s = time.monotonic()
        await unless(stopping, workers.start())
        self._screen.step(f"the workers are ready ({time.monotonic() - began_s:.1f} s), logs in {self._folder}")

    def _settings(self, stack: Stack) -> Settings:
        port = claim_port(WEB_PORT).number
        path = self._folder / "shunt.toml"
        path.write_text(config.settings_text(self._policy, self._tasks, stack.info, self._llm, port), "utf-8")
        return load_settings(path)

    async def _until_done(
        self, connection: Connection, workers: Workers, stopping: asyncio.Event, page: str
    ) -> Sequence[Sample]:
        """Feed, watch and kill until everything sent has an outcome; what was sent."""
        texts = {sample.id: sample.text for sample in self._samples if sample.id is not None}
        self._screen.watch(self._tally, texts, page)
        rate = self._options.pace(self._tally.planned)
        async with asyncio.TaskGroup() as side:
            watching = side.create_task(watch(connection, self._seen))
            feeding = side.create_task(
                feed(
                    connection.kafka.bootstrap_servers,
                    connection.kafka.input_topic,
                    self._samples,
                    rate=rate,
                    on_sent=self._tally.count_sent,
                    stopping=stopping,
                )
            )
            killing = side.create_task(self._kills(workers, rate))
            await self._until_closed(workers, feeding, stopping)
            for task in (watching, killing):
                task.cancel()
        return self._samples[: await feeding]

    def _seen(self, outcome: Outcome) -> None:
        self._tally.add(outcome)
        self._first_outcome.set()
        self._screen.outcome(outcome)

    async def _kills(self, workers: Workers, rate: float | None) -> None:
        """Kill as scheduled, counted from the first record that came out."""
        if not self._options.kill:
            return
        await self._first_outcome.wait()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for kill in kill_schedule(self._tally.planned / rate if rate else 0.0):
            await asyncio.sleep(max(0.0, began + kill.at_s - loop.time()))
            pids = await workers.kill(kill.roles)
            names = " and ".join(kill.roles)
            self._screen.say(f"kill -9  {names} (process {', '.join(map(str, pids))}), started again", "bold yellow")

    async def _until_closed(self, workers: Workers, feeding: asyncio.Task[int], stopping: asyncio.Event) -> None:
        """Return when each record sent has an outcome, nothing moves any more, or the end was asked for."""
        patience_s = PATIENCE_S
        while not (feeding.done() and self._tally.closed >= feeding.result()) and self._tally.idle_s < STALL_S:
            workers.check()
            if stopping.is_set():
                patience_s -= POLL_S
                if patience_s <= 0:
                    return
            await asyncio.sleep(POLL_S)

    async def _balance(
        self, connection: Connection, settings: Settings, sent: Sequence[Sample], stopping: asyncio.Event, page: str
    ) -> Ended:
        """Draw the balance from the topics, show it, and stay for the page where someone may want to look."""
        outcomes = await all_outcomes(connection)
        price = price_of(settings.llm.endpoints[0])
        summary = summarise(sent, outcomes, rule_based=self._llm.follows_rule, price=price)
        counted = await audit(connection.kafka, len(sent)) if self._options.kill else None
        calls = await calls_made(settings.llm.endpoints[0].base_url) if self._llm.stand_in else None
        seconds = self._tally.seconds
        self._screen.show(
            balance(
                summary,
                llm=self._llm,
                seconds=seconds,
                audit=counted,
                calls_made=calls,
                width=self._screen.width,
            )
        )
        texts = {sample.id: sample.text for sample in sent if sample.id is not None}
        self._screen.show(examples(outcomes, texts))
        stays = not (self._options.exit or stopping.is_set()) and self._screen.has_a_reader
        self._screen.show(next_commands(self._folder / "shunt.toml", page if stays else None))
        if stays:
            await stopping.wait()
        return Ended(self._told(summary, seconds, settings, page), whole=_whole(summary, counted))

    def _told(self, summary: Summary, seconds: float, settings: Settings, page: str) -> dict[str, Any]:
        addresses = {"bootstrap_servers": settings.kafka.bootstrap_servers, "web": page}
        return as_json(summary, llm_stand_in=self._llm.stand_in, seconds=seconds, addresses=addresses)


def _samples(options: DemoOptions) -> list[Sample]:
    """What to send. Raises SettingsError for a file that has nothing."""
    if options.input is None:
        return demo_samples(options.records_wanted)
    samples = samples_of_file(options.input, options.records)
    if not samples:
        raise SettingsError(f"{options.input} has no rows", advice="--input wants JSON Lines with a text in each")
    return samples


def _first(errors: BaseExceptionGroup[ShuntError]) -> ShuntError:
    """The error that ended the run; those after it are its consequence."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _whole(summary: Summary, counted: Audit | None) -> bool:
    return summary.missing == summary.extra == 0 and (counted is None or counted.lost == counted.duplicated == 0)
