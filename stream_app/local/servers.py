"""The servers of a stack: where they are, and what can be done to each while the others run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from stream_app.errors import StartError

if TYPE_CHECKING:
    from stream_app.local.kafka_cluster import KafkaCluster
    from stream_app.local.llm_server import LlmServer
    from stream_app.local.process import GuardedProcess
    from stream_app.local.triton_server import TritonServer

T = TypeVar("T")


class Server(Protocol):
    """What the stack needs of a server: start it until ready, reach its process."""

    @property
    def process(self) -> GuardedProcess: ...
    async def start(self) -> None: ...


class Servers:
    """Kafka, Triton and the stand-in LLM; None for one that was not asked for, and `StartError` who needs it."""

    def __init__(self, kafka: KafkaCluster | None, triton: TritonServer | None, llm: LlmServer | None) -> None:
        self.kafka, self.triton, self.llm = kafka, triton, llm

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

    def each(self) -> list[tuple[str, Server]]:
        """Every server by its name, each broker of Kafka by itself."""
        brokers = self.kafka.brokers if self.kafka is not None else ()
        every: list[tuple[str, Server | None]] = [
            *((broker.name, broker) for broker in brokers),
            ("Triton", self.triton),
            ("the stand-in LLM", self.llm),
        ]
        return [(name, server) for name, server in every if server is not None]

    def ended(self) -> list[str]:
        """Names of servers that were started and run no more."""
        return [name for name, server in self.each() if not server.process.running]

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


def _asked_for(server: T | None, name: str) -> T:
    if server is None:
        raise StartError(f"this stack was started without {name}")
    return server
