"""What a live evaluation hears of its endpoint, beside the answers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.escalate.results import Answered, ContentRefused, Misconfigured, RateLimited

if TYPE_CHECKING:
    from stream_app.escalate.client import LlmClient
    from stream_app.escalate.prompt import Request
    from stream_app.escalate.results import CallResult


class Heard:
    """A client that remembers what it heard. Implements `LlmClient`."""

    def __init__(self, client: LlmClient) -> None:
        self._client = client
        self.name, self.model = client.name, client.model
        self.calls, self.answers = 0, 0
        self.problem: str | None = None
        self.turned_away = False
        """The last call was refused for the key, the model, the address or the quota: a person must act."""

    async def ask(self, request: Request, timeout_s: float) -> CallResult:
        """As the client does."""
        self.calls += 1
        called = await self._client.ask(request, timeout_s)
        self.turned_away = isinstance(called, Misconfigured)
        if isinstance(called, Answered | ContentRefused):
            self.answers += 1
        elif not isinstance(called, RateLimited):
            self.problem = called.why
        return called
