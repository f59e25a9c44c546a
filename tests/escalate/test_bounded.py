"""Overload: with the LLM stalled, partitions are paused and what a worker holds stays under its bound."""

from __future__ import annotations

import asyncio
from collections import Counter

from stream_app.escalate.partition_work import FETCH, WAITING_BYTES_MAX, WAITING_RECORDS_MAX
from tests.escalate import escalated
from tests.escalate.test_hand_over import until
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture

IN_FLIGHT = 20
EVENTS = 9_000
"""More than a worker may hold of every partition, even of one that is all it owns."""
DISTINCT = 300
"""Different questions: the rest of the backlog is answered from the cache once the LLM is back."""


def held(lane) -> tuple[int, int, list[bool]]:
    """Records and bytes that wait, and of which partitions no more is wanted."""
    works = list(lane._works.escalated)
    waiting = sum(len(work.waiting) for work in works)
    return waiting, sum(work.waiting_bytes for work in works), [not work.partition.wanted for work in works]


async def test_a_stalled_llm_pauses_partitions_and_drops_nothing(stack, llm, prefix):  # noqa: F811
    """More input than the bounds, a rebalance in the middle, then the LLM comes back: one final for every event."""
    settings = escalated.settings(
        stack.bootstrap_servers, llm.base_url, prefix, max_in_flight=IN_FLIGHT, timeout_s=4.0, deadline_s=300.0
    )
    llm.fault("hang")
    texts = [escalated.texts(1, number % DISTINCT)[0] for number in range(EVENTS)]
    await asyncio.to_thread(escalated.produce, stack.bootstrap_servers, f"{prefix}-escalations", texts)
    seen: list[tuple[int, int]] = []

    async with working(settings) as (first, _):

        def all_paused() -> bool:
            waiting, size_bytes, paused = held(first)
            seen.append((waiting, size_bytes))
            return bool(paused) and all(paused)

        await until(all_paused)
        async with working(settings) as (second, _):
            await until(lambda: len(held(first)[2]) < escalated.PARTITIONS and held(second)[2] != [])
            await until(lambda: all_paused() and all(held(second)[2]))
        await until(lambda: len(held(first)[2]) == escalated.PARTITIONS and all_paused())
        llm.admin("faults", method="DELETE")
        await caught_up(stack, settings)
    # One fetch may arrive above the bound, and each partition may be that one after another.
    above = escalated.PARTITIONS * FETCH.records
    assert WAITING_RECORDS_MAX // 2 < max(waiting for waiting, _ in seen) <= WAITING_RECORDS_MAX + above
    assert max(size_bytes for _, size_bytes in seen) <= WAITING_BYTES_MAX + above * 3_000
    decisions = escalated.finals(stack.bootstrap_servers, f"{prefix}-decisions")
    assert escalated.finals_per_source(decisions) == Counter(range(EVENTS))
