"""Asks the LLM, unless the same question was answered before or is being asked right now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_app.escalate.question import AskResult, GotAnswer, Line, NoAnswer, Paid, Question

if TYPE_CHECKING:
    from stream_app.escalate.answer import Valid
    from stream_app.escalate.cache import AnswerCache
    from stream_app.escalate.prompt import Request

FOLLOW_CHECK_S = 0.1
"""How often one who waits for another's call looks at a deadline whose clock may be stopped."""


class Asker:
    """Answers requests from the cache, from another event's same call under way, or with a call of its own."""

    def __init__(self, line: Line, cache: AnswerCache) -> None:
        self._line, self._cache = line, cache
        self._asked_after_all: set[bytes] = set()

    async def ask(self, partition: int, request: Request, deadline_s: float) -> AskResult:
        """The answer to `request`, or why there is none by `deadline_s` (running time). Safe to cancel."""
        fingerprint = request.fingerprint
        while (asking := self._cache.asking(fingerprint)) is not None:
            if not await self._followed(asking, deadline_s):
                return NoAnswer("deadline", "the deadline passed during another event's same call", None)
        if (kept := self._kept(request)) is not None:
            return kept
        answer: Valid | None = None
        self._cache.begin(fingerprint)
        try:
            result = await Question(self._line, partition, request, deadline_s).answer()
            answer = result.answer if isinstance(result, GotAnswer) else None
        finally:
            self._cache.end(fingerprint, answer)
        return result

    async def ask_after_all(self, partition: int, request: Request, deadline_s: float) -> AskResult:
        """The same for a parked event, with what the others leave; no answer means not now.

        It waits for nobody's same call, and nobody waits for its own, which may be long in coming.
        """
        fingerprint = request.fingerprint
        if (kept := self._kept(request)) is not None:
            return kept
        if self._cache.asking(fingerprint) is not None or fingerprint in self._asked_after_all:
            return NoAnswer("deadline", "another event's same call is under way", None)
        self._asked_after_all.add(fingerprint)
        try:
            result = await Question(self._line, partition, request, deadline_s, spare=True).answer()
        finally:
            self._asked_after_all.discard(fingerprint)
        if isinstance(result, GotAnswer):
            self._cache.keep(fingerprint, result.answer)
        return result

    def _kept(self, request: Request) -> GotAnswer | None:
        """The answer to that request, where it was given before."""
        kept = self._cache.get(request.fingerprint)
        if kept is None:
            return None
        return GotAnswer(kept, Paid().usage(self._line.client.model, request.prompt_version, cached=True))

    async def _followed(self, asking: asyncio.Event, deadline_s: float) -> bool:
        """Waits for another's same call to end; False at the deadline."""
        admission = self._line.admission
        while not asking.is_set():
            left_s = admission.left_s(deadline_s)
            if left_s <= 0:
                return False
            try:
                async with asyncio.timeout(max(left_s, FOLLOW_CHECK_S)):
                    await asking.wait()
            except TimeoutError:
                continue
        return True
