"""The idea of the OpenAI cookbook's parallel request processor, written afresh: what many people run instead.

    python -m benchmarks.cookbook_client SHUNT_TOML

One process with two buckets of its own, requests and tokens, each of a minute's limit and full at first. A call takes
one request and its input and longest output, and nothing is given back. After a 429 nothing starts for
15 s. A call that failed goes to the head of the queue, four times; then its event is given up.

It reads the same topic as the LLM lane and asks the same questions; its answers go nowhere. Its token count is the
stand-in's own (better than it could have against a real provider).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import openai
from aiokafka import AIOKafkaConsumer

from stream_app.escalate.prompters import prompter_of
from stream_app.events import Event
from stream_app.local.llm.asked import tokens
from stream_app.settings import load_settings
from tests.escalate import escalated

if TYPE_CHECKING:
    from stream_app.escalate.prompt import Request
    from stream_app.settings import Endpoint, Settings

ATTEMPTS = 5
PAUSE_S = 15.0
LOOP_S = 0.005


@dataclass
class Bucket:
    """A minute's limit, full at first, refilled evenly."""

    per_minute: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.per_minute

    def refill(self, elapsed_s: float) -> None:
        self.level = min(self.per_minute, self.level + self.per_minute * elapsed_s / 60)


@dataclass
class Waiting:
    """A request, what it takes of the bucket of tokens, and how often it may be tried yet."""

    request: Request
    tokens: int
    attempts_left: int = ATTEMPTS


class Cookbook:
    """The loop: one request at a time, when both buckets hold enough."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._model = endpoint.model
        self._client = openai.AsyncOpenAI(
            api_key="none", base_url=endpoint.base_url, max_retries=0, http_client=openai.DefaultAioHttpClient()
        )
        self._requests, self._tokens = Bucket(endpoint.requests_per_minute), Bucket(endpoint.tokens_per_minute)
        self.waiting: deque[Waiting] = deque()
        self._again: deque[Waiting] = deque()
        self._limited_s = -PAUSE_S
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        refilled_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            self._requests.refill(now_s - refilled_s)
            self._tokens.refill(now_s - refilled_s)
            refilled_s = now_s
            queue = self._again or self.waiting
            if queue and self._requests.level >= 1 and self._tokens.level >= queue[0].tokens:
                self._start(queue.popleft())
            else:
                await asyncio.sleep(LOOP_S)
            await asyncio.sleep(max(0.0, self._limited_s + PAUSE_S - time.monotonic()))

    def _start(self, next_one: Waiting) -> None:
        self._requests.level -= 1
        self._tokens.level -= next_one.tokens
        call = asyncio.create_task(self._call(next_one))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, one: Waiting) -> None:
        one.attempts_left -= 1
        try:
            await self._client.chat.completions.create(
                model=self._model,
                messages=one.request.messages,
                response_format=one.request.response_format,
                max_tokens=one.request.output_tokens_max,
                temperature=0,
                extra_headers={"x-shunt-event-id": one.request.event_id},
            )
        except openai.OpenAIError as error:
            if isinstance(error, openai.RateLimitError):
                self._limited_s = time.monotonic()
            if one.attempts_left:
                self._again.append(one)


async def read(settings: Settings, cookbook: Cookbook) -> None:
    """Every escalation of the topic, from its beginning, as a request."""
    prompter = prompter_of(settings)
    consumer = AIOKafkaConsumer(
        settings.kafka.names.escalations,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
    )
    async with consumer:
        async for record in consumer:
            event = json.loads(record.value)
            escalation = escalated.escalation(event["n"], partition=record.partition)
            request = prompter.render(
                escalation, Event(event["id"], event["text"], record.value, escalation.source, None)
            )
            length = tokens(sum(len(message["content"]) for message in request.messages))
            cookbook.waiting.append(Waiting(request, length + request.output_tokens_max))


async def main() -> None:
    settings = load_settings(Path(sys.argv[1]))
    cookbook = Cookbook(settings.llm.endpoints[0])
    async with asyncio.TaskGroup() as group:
        group.create_task(cookbook.run())
        group.create_task(read(settings, cookbook))


if __name__ == "__main__":
    asyncio.run(main())
