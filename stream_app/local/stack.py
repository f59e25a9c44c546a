"""Kafka, Triton and the stand-in LLM on this machine, started side by side, and gone when their owner is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from stream_app.errors import StartError
from stream_app.local.folder import lock_dir, refuse_full_disk
from stream_app.local.kafka_cluster import KafkaCluster
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.local.servers import Servers
from stream_app.local.triton_server import TritonServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from stream_app.local.jars import Progress
    from stream_app.local.servers import Server

DEFAULT_DIR = Path(".shunt")


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where the servers of a running stack are; None for one that was not asked for."""

    bootstrap_servers: str | None
    triton_grpc: str | None
    triton_http: str | None
    llm_base_url: str | None
    dir: str

    def as_json(self) -> dict[str, str | None]:
        """The same as a JSON object (`shunt stack up --json`)."""
        return asdict(self)


class Stack(Servers):
    """The embedded stack, its state and logs under `dir`.

        async with Stack.start(dir=Path(".shunt"), load_models=["sentiment_fast"]) as stack:
            stack.bootstrap_servers, stack.triton_grpc, stack.llm_base_url

    On leaving the block, and on any end of this process, kill -9 included, every server ends too. The stack is
    bound to no event loop: `open` and `close` may run in different ones. A folder has one stack at a time.

    With `brokers=3` Kafka is a cluster that keeps three copies of everything and needs two; each broker, by its
    id from 1 on, can be killed, started again, stopped and paused. `kafka_properties` are added to every
    broker's settings, or override them.
    """

    def __init__(
        self,
        dir: Path = DEFAULT_DIR,  # noqa: A002 - the name users of the API and the JSON know
        *,
        kafka: bool = True,
        triton: bool = True,
        llm: bool = True,
        model_repository: Path | Sequence[Path] = (),
        load_models: Sequence[str] = (),
        llm_options: StandInOptions | None = None,
        brokers: int = 1,
        kafka_properties: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.dir = dir.resolve()
        self._progress = progress
        self._lock: TextIO | None = None
        repositories = [model_repository] if isinstance(model_repository, Path) else list(model_repository)
        super().__init__(
            KafkaCluster(self.dir, brokers=brokers, properties=kafka_properties or {}, progress=progress)
            if kafka
            else None,
            TritonServer(
                self.dir / "triton", self.dir / "triton.log", repositories=repositories, load_models=load_models
            )
            if triton
            else None,
            LlmServer(self.dir / "llm.log", llm_options or StandInOptions()) if llm else None,
        )

    @classmethod
    def start(
        cls,
        dir: Path = DEFAULT_DIR,  # noqa: A002
        *,
        kafka: bool = True,
        triton: bool = True,
        llm: bool = True,
        model_repository: Path | Sequence[Path] = (),
        load_models: Sequence[str] = (),
        llm_options: StandInOptions | None = None,
        brokers: int = 1,
        kafka_properties: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """A stack for `async with`: servers run inside the block. Entering raises `StartError` with the reason."""
        return cls(
            dir,
            kafka=kafka,
            triton=triton,
            llm=llm,
            model_repository=model_repository,
            load_models=load_models,
            llm_options=llm_options,
            brokers=brokers,
            kafka_properties=kafka_properties,
            progress=progress,
        )

    @property
    def info(self) -> StackInfo:
        """All addresses at once."""
        return StackInfo(
            bootstrap_servers=self.kafka.bootstrap_servers if self.kafka else None,
            triton_grpc=self.triton.grpc if self.triton else None,
            triton_http=self.triton.http if self.triton else None,
            llm_base_url=self.llm.base_url if self.llm else None,
            dir=str(self.dir),
        )

    async def open(self) -> None:
        """Start every server side by side and return when all are ready; if one fails, none is left running."""
        self._lock = lock_dir(self.dir)
        try:
            refuse_full_disk(self.dir)
            async with asyncio.TaskGroup() as starting:
                for name, server in self.each():
                    starting.create_task(self._start(name, server))
        except BaseExceptionGroup as errors:
            await self.close()
            raise _first(errors) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop every server and return when nothing of them is left.

        Kafka is asked, so that its next start finds its logs in order; Triton has no state, and takes 3 s to go.
        """
        await asyncio.gather(*(_end(server, kill=server is self.triton) for _, server in self.each()))
        for holder in (self.kafka, self.triton, self.llm):
            if holder is not None:
                holder.release_ports()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self, name: str, server: Server) -> None:
        started = time.monotonic()
        await server.start()
        if self._progress is not None:
            self._progress(f"{name} is ready ({time.monotonic() - started:.1f} s)")


async def _end(server: Server, *, kill: bool) -> None:
    try:
        process = server.process
    except StartError:
        return  # never came so far
    await (process.kill() if kill else process.stop())


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the start: the others are its consequence, or come on top of it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
