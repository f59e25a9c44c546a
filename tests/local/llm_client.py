"""The stand-in LLM as its own tests use it: an OpenAI client, its admin side, and the LLM lane's requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai

from tests.stand_in import StandIn

SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "sentiment": {"type": "string", "enum": ["negative", "positive"]},
        "toxicity": {"type": "string", "enum": ["clean", "toxic"]},
    },
    "required": ["reason", "sentiment", "toxicity"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "labels", "strict": True, "schema": SCHEMA}}


def messages_about(text: str) -> list[dict[str, str]]:
    """The messages as the LLM lane writes them."""
    return [
        {"role": "system", "content": "Label the text between <event> and </event>."},
        {"role": "user", "content": f"<event>\n{json.dumps({'text': text})}\n</event>"},
    ]


class StandInClient:
    """An OpenAI client of a stand-in, and its admin side."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.openai = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=5)
        self._stand_in = StandIn(base_url)

    async def ask(self, text: str, event: str | None = None, **more: Any) -> Any:
        given = {"model": "some-model", "response_format": FORM, "max_completion_tokens": 50} | more
        if event is not None:
            given["extra_headers"] = {"x-shunt-event-id": event}
        return await self.openai.chat.completions.create(messages=messages_about(text), **given)

    async def labels(self, text: str) -> dict[str, str]:
        return json.loads((await self.ask(text)).choices[0].message.content)

    async def admin(self, method: str, path: str, body: dict | None = None) -> dict:
        return await asyncio.to_thread(self._stand_in.admin, path, body, method)

    async def tell(self, path: str, **body: Any) -> None:
        await self.admin("POST", path, body)

    async def calls(self) -> list[dict[str, Any]]:
        return (await self.admin("GET", "calls"))["calls"]

    async def account(self) -> dict[str, Any]:
        return await self.admin("GET", "account")
