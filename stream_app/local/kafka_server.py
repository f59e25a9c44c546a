"""A real Apache Kafka broker in KRaft mode on this machine: formatted, started, ready, stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import StartError
from stream_app.local.jars import Progress, jars_ready
from stream_app.local.java import java_command, java_environment
from stream_app.local.process import GuardedProcess, last_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

READY_DEADLINE_S = 120.0  # 4 s on two idle cores, 30 s on two that ten others share
FORMAT_DEADLINE_S = 120.0
STARTED = "Kafka Server started"


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of a cluster, which is a controller too."""

    id: int
    port: int
    controller_port: int


def server_properties(
    node: Node, nodes: Sequence[Node], data_dir: Path, more: Mapping[str, str] | None = None
) -> str:
    """The broker's settings: Kafka's defaults, but for a cluster of `nodes` on one small machine.

    Replication needs as many brokers as it has copies; groups and transactions need not wait for late members
    or dead workers longer than tests and demos do. `more` is added, or overrides.
    """
    copies = min(3, len(nodes))
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "log.dirs": data_dir,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": min(2, copies),
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": min(2, copies),
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": min(2, copies),
        # 50 partitions each by default: on one disk only 50 times the files to open at the first commit.
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.num.partitions": 8,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # How often the coordinator looks for transactions whose worker is gone (10 s by default): readers with
        # read_committed wait for it after every kill.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        # A broker that comes back after a kill is let in only when its old session is over (9 s by default). Not
        # less: one that gets no processor for so long is shut out, and a lone broker then makes no topic.
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 500,
        # 128 MB by default, a quarter of our heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        **(more or {}),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


@dataclass(frozen=True, slots=True)
class Place:
    """A broker's place in its cluster: itself, all nodes, and the id that all of them are formatted with.

    `properties` are added to `server_properties`, or override them.
    """

    node: Node
    nodes: Sequence[Node]
    cluster_id: str
    properties: Mapping[str, str]


class KafkaServer:
    """One broker, its state under `folder`; the log goes to `log`. `place` is asked at each start."""

    def __init__(
        self,
        name: str,
        folder: Path,
        log: Path,
        place: Callable[[], Place],
        *,
        heap_mb: int,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._folder = folder
        self._log = log
        self._place = place
        self._heap_mb = heap_mb
        self._progress = progress
        self._process: GuardedProcess | None = None

    @property
    def process(self) -> GuardedProcess:
        """The broker's process, once started."""
        if self._process is None:
            raise StartError(f"{self.name} was not started")
        return self._process

    async def start(self) -> None:
        """Fetch the jars where they are missing, format the folder where it is new, start, and wait until ready.

        Raises `StartError` with the reason and the log.
        """
        jars = await jars_ready(self._progress)
        place = self._place()
        properties = self._write_properties(place)
        await asyncio.to_thread(self._format_once, jars, properties, place.cluster_id)
        self._process = GuardedProcess(
            self.name,
            java_command("kafka.Kafka", str(properties), heap_mb=self._heap_mb, log_level="info"),
            self._log,
            env=java_environment(jars),
            reason=first_trouble,
        )
        self._process.start()
        await self._process.wait_ready(self._says_started, deadline_s=READY_DEADLINE_S)

    def pause(self) -> None:
        """Stop the broker where it stands (SIGSTOP): its connections stay open, and nothing answers.

        Raises `StartError` when it does not run.
        """
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT), which others may have given up meanwhile."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.process.pid
        if pid is None:
            raise StartError(f"{self.name} does not run")
        os.kill(pid, number)

    async def _says_started(self) -> bool:
        return STARTED in self.process.log_since_start()

    def _write_properties(self, place: Place) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        text = server_properties(place.node, place.nodes, self._folder / "data", place.properties)
        properties.write_text(text, encoding="utf-8")
        return properties

    def _format_once(self, jars: list[Path], properties: Path, cluster_id: str) -> None:
        if (self._folder / "data" / "meta.properties").exists():
            return
        command = java_command(
            "kafka.tools.StorageTool",
            *("format", "-t", cluster_id, "-c", str(properties)),
            heap_mb=128,
            log_level="warn",
        )
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                command,
                env=java_environment(jars),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=FORMAT_DEADLINE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(f"Kafka's folder was not formatted within {FORMAT_DEADLINE_S:.0f} s") from error
        with self._log.open("a", encoding="utf-8") as log:
            log.write(done.stdout)
        if done.returncode != 0:
            why = first_trouble(done.stdout)
            raise StartError("Kafka's folder could not be formatted", advice=f"{why} (log: {self._log})")


def first_trouble(text: str) -> str | None:
    """What a Java program's output gives as the reason of its end: the first exception, else its last line."""
    exception = re.search(r"^(?:Caused by: )?[\w.$]+\.(\w+(?:Exception|Error): .+)$", text, re.MULTILINE)
    return exception.group(1)[:300] if exception else last_line(text)
