"""A real Apache Kafka broker in KRaft mode on this machine: formatted, started, ready, stopped."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.errors import StartError
from stream_app.local.jars import Progress, jars_ready
from stream_app.local.java import java_command, java_environment
from stream_app.local.ports import ClaimedPort, claim_port
from stream_app.local.process import GuardedProcess, last_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KAFKA_PORT = 9092
HEAP_MB = 512
READY_DEADLINE_S = 120.0  # 4 s on two idle cores, 30 s on two that ten others share
FORMAT_DEADLINE_S = 120.0
STARTED = "Kafka Server started"


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of a cluster, which is a controller too."""

    id: int
    port: int
    controller_port: int


def server_properties(node: Node, nodes: Sequence[Node], data_dir: Path) -> str:
    """The broker's settings: Kafka's defaults, but for a cluster of `nodes` on one small machine.

    Replication needs as many brokers as it has copies; groups and transactions need not wait for late members
    or dead workers longer than tests and demos do.
    """
    copies = min(3, len(nodes))
    settings = {
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
        # A broker that comes back after a kill is let in only when its old session is over (9 s by default).
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # 128 MB by default, a quarter of our heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


class KafkaServer:
    """One broker, its state under `folder`; the log goes to `log`.

    The ports are chosen once and kept over restarts, since clients know them.
    """

    def __init__(self, folder: Path, log: Path, *, progress: Progress | None = None) -> None:
        self._folder = folder
        self._log = log
        self._progress = progress
        self._claims: tuple[ClaimedPort, ClaimedPort] | None = None
        self._process: GuardedProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, once started."""
        if self._claims is None:
            raise StartError("Kafka was not started")
        return f"127.0.0.1:{self._claims[0].number}"

    @property
    def process(self) -> GuardedProcess:
        """The broker's process, once started."""
        if self._process is None:
            raise StartError("Kafka was not started")
        return self._process

    async def start(self) -> None:
        """Fetch the jars where they are missing, format the folder where it is new, start, and wait until ready.

        Raises `StartError` with the reason and the log.
        """
        jars = await jars_ready(self._progress)
        if self._claims is None:
            self._claims = (claim_port(KAFKA_PORT), claim_port())
        node = Node(1, self._claims[0].number, self._claims[1].number)
        properties = self._write_properties(node)
        await asyncio.to_thread(self._format_once, jars, properties)
        self._process = GuardedProcess(
            "Kafka",
            java_command("kafka.Kafka", str(properties), heap_mb=HEAP_MB, log_level="info"),
            self._log,
            env=java_environment(jars),
            reason=first_trouble,
        )
        self._process.start()
        await self._process.wait_ready(self._says_started, deadline_s=READY_DEADLINE_S)

    def release_ports(self) -> None:
        """Let others have the ports; for a server that is not started again."""
        for claim in self._claims or ():
            claim.release()
        self._claims = None

    async def _says_started(self) -> bool:
        return STARTED in self.process.log_since_start()

    def _write_properties(self, node: Node) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        properties.write_text(server_properties(node, [node], self._folder / "data"), encoding="utf-8")
        return properties

    def _format_once(self, jars: list[Path], properties: Path) -> None:
        if (self._folder / "data" / "meta.properties").exists():
            return
        command = java_command(
            "kafka.tools.StorageTool",
            *("format", "-t", _cluster_id(), "-c", str(properties)),
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


def _cluster_id() -> str:
    """A random id as Kafka writes them: 16 bytes in URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def first_trouble(text: str) -> str | None:
    """What a Java program's output gives as the reason of its end: the first exception, else its last line."""
    exception = re.search(r"^(?:Caused by: )?[\w.$]+\.(\w+(?:Exception|Error): .+)$", text, re.MULTILINE)
    return exception.group(1)[:300] if exception else last_line(text)
