"""Kafka, Triton and the stand-in LLM on this machine, started side by side, and gone when their owner is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TextIO, TypeVar

from stream_app.errors import StartError
from stream_app.local.kafka_cluster import KafkaCluster
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.local.triton_server import TritonServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from stream_app.local.jars import Progress
    from stream_app.local.process import GuardedProcess

DEFAULT_DIR = Path(".shunt")
# A broker that cannot write ends, and takes its topics with it; a demo writes some 20 MB.
FREE_BYTES_MIN = 256 * 2**20
T = TypeVar("T")


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


class Server(Protocol):
    """What the stack needs of a server: start it until ready, reach its process."""

    @property
    def process(self) -> GuardedProcess: ...
    async def start(self) -> None: ...


class Stack:
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
        self.kafka = (
            KafkaCluster(self.dir, brokers=brokers, properties=kafka_properties or {}, progress=progress)
            if kafka
            else None
        )
        self.triton = (
            TritonServer(
                self.dir / "triton",
                self.dir / "triton.log",
                repositories=repositories,
                load_models=load_models,
            )
            if triton
            else None
        )
        self.llm = LlmServer(self.dir / "llm.log", llm_options or StandInOptions()) if llm else None

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
    def bootstrap_servers(self) -> str:
        """Kafka's `host:port`, of each broker."""
        return _asked_for(self.kafka, "Kafka").bootstrap_servers

    @property
    def triton_grpc(self) -> str:
        """Triton's gRPC `host:port`."""
        return _asked_for(self.triton, "Triton").grpc

    @property
    def triton_http(self) -> str:
        """Triton's HTTP `host:port`."""
        return _asked_for(self.triton, "Triton").http

    @property
    def llm_base_url(self) -> str:
        """The stand-in's address for an OpenAI client."""
        return _asked_for(self.llm, "the stand-in LLM").base_url

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
            self._refuse_full_disk()
            async with asyncio.TaskGroup() as starting:
                for name, server in self._servers():
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
        await asyncio.gather(*(_end(server, kill=server is self.triton) for _, server in self._servers()))
        for holder in (self.kafka, self.triton, self.llm):
            if holder is not None:
                holder.release_ports()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def ended(self) -> list[str]:
        """Names of servers that were started and run no more."""
        return [name for name, server in self._servers() if not server.process.running]

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start_kafka(self) -> None:
        """Start Kafka again, every broker of it, on the ports and with the data it had."""
        await _asked_for(self.kafka, "Kafka").start()

    async def stop_kafka(self) -> None:
        """Stop Kafka in order."""
        await _asked_for(self.kafka, "Kafka").stop()

    async def kill_kafka(self) -> None:
        """Kill Kafka, every broker of it (SIGKILL)."""
        await _asked_for(self.kafka, "Kafka").kill()

    async def restart_kafka(self) -> None:
        """Stop Kafka in order and start it again."""
        await self.stop_kafka()
        await self.start_kafka()

    async def start_broker(self, node_id: int) -> None:
        """Start one broker again, on the ports and with the data it had; back in every set of in-sync replicas."""
        await _asked_for(self.kafka, "Kafka").start_broker(node_id)

    async def stop_broker(self, node_id: int) -> None:
        """Stop one broker in order: its partitions are led by others before it goes."""
        await _asked_for(self.kafka, "Kafka").broker(node_id).process.stop()

    async def kill_broker(self, node_id: int) -> None:
        """Kill one broker (SIGKILL)."""
        await _asked_for(self.kafka, "Kafka").broker(node_id).process.kill()

    def pause_broker(self, node_id: int) -> None:
        """Stop one broker where it stands (SIGSTOP)."""
        _asked_for(self.kafka, "Kafka").broker(node_id).pause()

    def continue_broker(self, node_id: int) -> None:
        """Let a paused broker go on (SIGCONT); `broker_in_sync` returns when it is back in the cluster."""
        _asked_for(self.kafka, "Kafka").broker(node_id).resume()

    async def broker_in_sync(self, node_id: int) -> None:
        """Returns when the cluster takes the broker for alive, and no partition waits for it."""
        await _asked_for(self.kafka, "Kafka").in_sync(node_id)

    async def start_triton(self) -> None:
        """Start Triton again, on the ports it had."""
        await _asked_for(self.triton, "Triton").start()

    async def stop_triton(self) -> None:
        """Stop Triton in order."""
        await _asked_for(self.triton, "Triton").process.stop()

    async def kill_triton(self) -> None:
        """Kill Triton and its models' processes (SIGKILL)."""
        await _asked_for(self.triton, "Triton").process.kill()

    async def restart_triton(self) -> None:
        """Stop Triton in order and start it again."""
        await self.stop_triton()
        await self.start_triton()

    async def start_llm(self) -> None:
        """Start the stand-in LLM again, on the port it had."""
        await _asked_for(self.llm, "the stand-in LLM").start()

    async def stop_llm(self) -> None:
        """Stop the stand-in LLM: its clients see refused connections."""
        await _asked_for(self.llm, "the stand-in LLM").process.stop()

    def _refuse_full_disk(self) -> None:
        free_bytes = shutil.disk_usage(self.dir).free
        if free_bytes < FREE_BYTES_MIN:
            raise StartError(
                f"only {free_bytes // 2**20} MB are free on the disk of {self.dir}",
                advice=f"the stack needs {FREE_BYTES_MIN // 2**20} MB: make room, or choose another folder (--dir)",
            )

    def _servers(self) -> list[tuple[str, Server]]:
        brokers = self.kafka.brokers if self.kafka is not None else ()
        every: list[tuple[str, Server | None]] = [
            *((broker.name, broker) for broker in brokers),
            ("Triton", self.triton),
            ("the stand-in LLM", self.llm),
        ]
        return [(name, server) for name, server in every if server is not None]

    async def _start(self, name: str, server: Server) -> None:
        started = time.monotonic()
        await server.start()
        if self._progress is not None:
            self._progress(f"{name} is ready ({time.monotonic() - started:.1f} s)")


def lock_dir(folder: Path) -> TextIO:
    """Make `folder` ours until the returned file is closed. Raises `StartError` while another stack has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "stack.lock").open("a+")
    except OSError as error:
        raise StartError(f"cannot write to {folder}", advice=str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise StartError(
            f"a stack is already running in {folder} (process {owner or 'unknown'})",
            advice="end it (shunt stack down), or choose another folder (--dir)",
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


async def _end(server: Server, *, kill: bool) -> None:
    try:
        process = server.process
    except StartError:
        return  # never came so far
    await (process.kill() if kill else process.stop())


def _asked_for(server: T | None, name: str) -> T:
    if server is None:
        raise StartError(f"this stack was started without {name}")
    return server


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the start: the others are its consequence, or come on top of it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
