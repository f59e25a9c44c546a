"""Sends the demo's records at their pace, as any producer of the user's would."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.local.reviews import Sample

UNCONFIRMED_MAX = 2_000
"""Sends whose confirmation is still awaited; beyond them feeding waits for the broker."""


async def feed(
    bootstrap_servers: str,
    topic: str,
    samples: Sequence[Sample],
    *,
    rate: float | None,
    on_sent: Callable[[int], None],
    stopping: asyncio.Event,
) -> int:
    """Send the samples in order, `rate` a second; how many were sent when it ended or `stopping` was set.

    Idempotent, so that a retry of the producer is no second record.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, client_id="demo-feeder", enable_idempotence=True, linger_ms=5
    )
    unconfirmed: set[asyncio.Future[object]] = set()
    sent = 0
    try:
        await producer.start()
        started = time.monotonic()
        for sample in samples:
            await _until_due(started, sent, rate, stopping)
            if stopping.is_set():
                break
            future = await producer.send(
                topic, value=sample.value, key=sample.key, headers=list(sample.headers) or None
            )
            unconfirmed.add(future)
            sent += 1
            on_sent(sent)
            if len(unconfirmed) >= UNCONFIRMED_MAX:
                await _confirmed(unconfirmed)
        await _confirmed(unconfirmed)
    finally:
        await producer.stop()
    return sent


async def _until_due(started: float, sent: int, rate: float | None, stopping: asyncio.Event) -> None:
    """Wait until the next record is due at this rate, or the end is asked for."""
    if rate is None:
        return
    wait_s = started + sent / rate - time.monotonic()
    if wait_s > 0:
        try:
            async with asyncio.timeout(wait_s):
                await stopping.wait()
        except TimeoutError:
            return


async def _confirmed(unconfirmed: set[asyncio.Future[object]]) -> None:
    """Every send so far is stored; raises what the broker refused."""
    await asyncio.gather(*unconfirmed)
    unconfirmed.clear()
