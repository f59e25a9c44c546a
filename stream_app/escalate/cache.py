"""Answers kept by the hash of the whole rendered request, and which requests are being asked right now.

The prompt shows probabilities rounded to two places, so the same text with nearly the same small answers is the
same request. Only usable answers are kept; the least recently used go first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.escalate.answer import Valid

ANSWERS_MAX = 50_000
"""About 20 MB: a hash and a few short strings each."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A usable answer, and which model gave it to which version of the prompt."""

    answer: Valid
    model: str
    prompt_version: str


class AnswerCache:
    """A bounded LRU of usable answers."""

    def __init__(self, answers_max: int = ANSWERS_MAX) -> None:
        self._answers_max = answers_max
        self._answers: OrderedDict[bytes, Kept] = OrderedDict()
        self._asking: dict[bytes, asyncio.Event] = {}

    def get(self, fingerprint: bytes) -> Kept | None:
        """The kept answer to that request."""
        answer = self._answers.get(fingerprint)
        if answer is not None:
            self._answers.move_to_end(fingerprint)
        return answer

    def asking(self, fingerprint: bytes) -> asyncio.Event | None:
        """Set when the call under way for that request is over; None where there is none."""
        return self._asking.get(fingerprint)

    def begin(self, fingerprint: bytes) -> None:
        """A call for that request begins; `end` must follow."""
        self._asking[fingerprint] = asyncio.Event()

    def end(self, fingerprint: bytes, answer: Kept | None) -> None:
        """The call is over: wakes those who wait for it, and keeps a usable answer."""
        self._asking.pop(fingerprint).set()
        if answer is not None:
            self.keep(fingerprint, answer)

    def keep(self, fingerprint: bytes, answer: Kept) -> None:
        """Keeps a usable answer to that request."""
        self._answers[fingerprint] = answer
        if len(self._answers) > self._answers_max:
            self._answers.popitem(last=False)
