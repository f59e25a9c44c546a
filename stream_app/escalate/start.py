"""Puts a slow lane together from settings, after everything it needs was found to be there and to fit."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from stream_app.codec import Codec
from stream_app.errors import SettingsError
from stream_app.escalate.budget import NANO
from stream_app.escalate.client import OpenAiClient
from stream_app.escalate.endpoint_names import endpoint_names
from stream_app.escalate.line import PricedClient
from stream_app.escalate.partition_work import FETCH
from stream_app.escalate.prices import price_of
from stream_app.escalate.prompt import BYTES_PER_TOKEN
from stream_app.escalate.prompters import prompters_of
from stream_app.escalate.service import EscalateLane
from stream_app.kafka.connection import Connection
from stream_app.kafka.membership import Membership
from stream_app.kafka.topics import require

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from stream_app.escalate.prices import Price
    from stream_app.settings import Settings
    from stream_app.telemetry import Metrics


PROMPT_BYTES = 4_000
"""About what instructions, labels, hint and schema take; a token is a byte at worst."""


def group_of(settings: Settings) -> str:
    """The slow lane's consumer group."""
    return f"{settings.kafka.group}-escalate"


def require_budget(settings: Settings, prices: Iterable[Price], partitions: int) -> None:
    """SettingsError where a partition's share of the budget could not pay a call with the longest text.

    At none of the endpoints, whose `prices` are given: any of them may have to answer.
    """
    llm = settings.llm
    text_bytes = int(llm.text_tokens_max * BYTES_PER_TOKEN) + PROMPT_BYTES
    call_usd = max(price.cost_nusd(text_bytes, llm.output_tokens_max) for price in prices) / NANO
    share_usd = min(llm.usd_per_hour, llm.usd_per_day) / partitions
    if call_usd > share_usd:
        raise SettingsError(
            f"one call may cost ${call_usd:.4f}, a partition's share of the LLM budget is ${share_usd:.4f}",
            advice=f"raise llm.usd_per_hour to ${call_usd * partitions:.2f}, lower llm.text_tokens_max, "
            "or give the escalation topic fewer partitions",
        )


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncGenerator[tuple[PricedClient, ...]]:
    """A client for each endpoint, closed at the end of the block. SettingsError where a price or key is missing."""
    llm = settings.llm
    async with AsyncExitStack() as opened:
        made: list[PricedClient] = []
        for endpoint, name in zip(llm.endpoints, endpoint_names(llm.endpoints), strict=True):
            price = price_of(endpoint)
            client = OpenAiClient(endpoint, connections_max=llm.max_in_flight, name=name)
            opened.push_async_callback(client.aclose)
            made.append(PricedClient(client, price))
        yield tuple(made)


@asynccontextmanager
async def escalate_lane(settings: Settings, metrics: Metrics) -> AsyncGenerator[EscalateLane]:
    """The slow lane, ready for `run`. Raises StartError or SettingsError; nothing was consumed then."""
    prompters = prompters_of(settings)
    async with _clients(settings) as endpoints:
        connection = Connection(settings.kafka)
        topics = await require(connection)
        prices = [endpoint.price for endpoint in endpoints]
        require_budget(settings, prices, topics[settings.kafka.names.escalations].partitions)
        codec = Codec(settings.events, settings.kafka.group)
        batch_bytes_max = min(topic.message_bytes_max for topic in topics.values())
        names = settings.kafka.names
        told = (names.decisions, names.dlq, names.review, names.feedback, names.audit_results)
        outputs = [topics[name].each_partition for name in told]
        shared = [tp for each_partition in outputs for tp in each_partition]
        parked = topics[names.parked]

        def reach(number: int) -> list[TopicPartition]:
            return [*shared, TopicPartition(parked.name, number % parked.partitions)]

        def membership(lane: EscalateLane) -> Membership:
            return Membership(
                connection,
                topic=names.escalations,
                followers=(names.parked, names.audits),
                group=group_of(settings),
                work=lane,
                reach=reach,
                batch_bytes_max=batch_bytes_max,
                fetch=FETCH,
            )

        yield EscalateLane(settings, codec, endpoints, prompters, topics, metrics, membership, connection)
