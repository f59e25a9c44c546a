"""Asks the LLM, unless the same question was answered before or is being asked right now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_app.escalate.cache import AnswerCache, Kept
from stream_app.escalate.line import Paid
from stream_app.escalate.question import AskResult, GotAnswer, NoAnswer, Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.escalate.line import Line
    from stream_app.escalate.prompt import Request

FOLLOW_CHECK_S = 0.1
"""How often one who waits for another's call looks at a deadline whose clock may be stopped."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The same question is being asked for another event: its answer will do for this one, later."""


class Asker:
    """Answers requests from the cache, from another event's same call under way, or with a call of its own."""

    def __init__(self, line: Line, cache: AnswerCache) -> None:
        self._line, self._cache = line, cache
        self._asked_after_all: set[bytes] = set()

    async def ask(self, partition: int, requests: Sequence[Request], deadline_s: float) -> AskResult:
        """The answer to one question, or why there is none by `deadline_s` (running time). Safe to cancel.

        `requests` are the question in the form of each endpoint. It is known by the first endpoint's: equal there,
        it is equal in every form, and whichever endpoint answers has answered it.
        """
        fingerprint = requests[0].fingerprint
        while (asking := self._cache.asking(fingerprint)) is not None:
            if not await self._followed(asking, deadline_s):
                return NoAnswer("deadline", "the deadline passed during another event's same call", None)
        if (kept := self._kept(fingerprint)) is not None:
            return kept
        keep: Kept | None = None
        self._cache.begin(fingerprint)
        try:
            result = await Question(self._line, partition, requests, deadline_s).answer()
            keep = _to_keep(result)
        finally:
            self._cache.end(fingerprint, keep)
        return result

    async def ask_after_all(
        self, partition: int, requests: Sequence[Request], deadline_s: float
    ) -> AskResult | UnderWay:
        """The same for a parked event, with what the others leave; no answer means not now.

        It waits for nobody's same call, and nobody waits for its own, which may be long in coming.
        """
        fingerprint = requests[0].fingerprint
        if (kept := self._kept(fingerprint)) is not None:
            return kept
        if self._cache.asking(fingerprint) is not None or fingerprint in self._asked_after_all:
            return UnderWay()
        self._asked_after_all.add(fingerprint)
        try:
            result = await Question(self._line, partition, requests, deadline_s, spare=True).answer()
        finally:
            self._asked_after_all.discard(fingerprint)
        if (keep := _to_keep(result)) is not None:
            self._cache.keep(fingerprint, keep)
        return result

    async def ask_plainly(self, partition: int, requests: Sequence[Request], deadline_s: float) -> AskResult:
        """An audit's answer, with what the others leave: a call of its own, whatever was answered before."""
        return await Question(self._line, partition, requests, deadline_s, spare=True).answer()

    def _kept(self, fingerprint: bytes) -> GotAnswer | None:
        """The answer to that question, where it was given before."""
        kept = self._cache.get(fingerprint)
        if kept is None:
            return None
        return GotAnswer(kept.answer, Paid().usage(kept.model, kept.prompt_version, cached=True))

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


def _to_keep(result: AskResult) -> Kept | None:
    """What is remembered of a result: an answer, and who gave it."""
    if not isinstance(result, GotAnswer):
        return None
    return Kept(result.answer, result.usage.model, result.usage.prompt_version)
