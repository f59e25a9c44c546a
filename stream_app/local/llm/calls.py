"""The exact list of calls the stand-in has had, let in or not, for tests and for the bill."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stream_app.local.llm.account import PICO

KEPT_MAX = 500_000
"""The newest so many calls are kept, about 370 MB; sums go on beyond them."""
KEY_CHARS_MAX = 24
"""A longer key may be a real one, sent here by mistake: of those, the list shows the ends."""


@dataclass(slots=True)
class Call:
    """One call. `status` is 0 while it is in the air, and -1 when the client left before the answer.

    `fault` is what went wrong on demand, `limited` what kept it out: `requests`, `tokens` or `quota`. Input and
    output tokens are what was billed. `reserved_tokens` were taken of the limits on tokens when it was let in,
    `charged_tokens` stand against them now; one that was let in is charged one request. Times are of the wall
    clock as it was at the start of the server, and do not jump with it.
    """

    number: int
    at_s: float
    key: str
    model: str = ""
    event_id: str | None = None
    text_sha256: str = ""
    status: int = 0
    fault: str | None = None
    limited: str | None = None
    admitted_s: float | None = None
    ended_s: float | None = None
    output_tokens_max: int = 0
    reserved_tokens: int = 0
    charged_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0

    @property
    def request_id(self) -> str:
        """By which an answer is found in the list."""
        return f"req_{self.number:012d}"

    def as_json(self, wall_ahead_s: float) -> dict[str, Any]:
        """The call as the list has it; `wall_ahead_s` is the wall clock less the monotonic one."""
        return {
            "number": self.number,
            "request_id": self.request_id,
            "at_s": self.at_s,
            "admitted_s": self.admitted_s,
            "ended_s": self.ended_s,
            "at_monotonic_s": self.at_s - wall_ahead_s,
            "admitted_monotonic_s": None if self.admitted_s is None else self.admitted_s - wall_ahead_s,
            "ended_monotonic_s": None if self.ended_s is None else self.ended_s - wall_ahead_s,
            "duration_s": 0.0 if self.ended_s is None else self.ended_s - self.at_s,
            "key": shown(self.key),
            "model": self.model,
            "event_id": self.event_id,
            "text_sha256": self.text_sha256,
            "status": self.status,
            "fault": self.fault,
            "limited": self.limited,
            "output_tokens_max": self.output_tokens_max,
            "reserved_tokens": self.reserved_tokens,
            "charged_requests": int(self.admitted_s is not None),
            "charged_tokens": self.charged_tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": self.cost_pico / PICO,
        }


class CallLog:
    """Calls in the order they came in, the newest `KEPT_MAX` of them, and how many are in flight."""

    def __init__(self, last: int = 0) -> None:
        """`last` is the number of the last call before it."""
        self._kept: deque[Call] = deque(maxlen=KEPT_MAX)
        self._statuses: Counter[str] = Counter()
        self._input_tokens = self._output_tokens = 0
        self._last = last
        self.total = 0
        self.in_flight = 0
        self.in_flight_max = 0

    @property
    def last(self) -> int:
        """The newest call's number."""
        return self._last

    def open(self, call: Call) -> None:
        """A call has come in."""
        self._kept.append(call)
        self._last = call.number
        self.total += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def close(self, call: Call, status: int, now_s: float) -> None:
        """The call has been answered, or its client has gone."""
        call.status, call.ended_s = status, now_s
        self.in_flight -= 1
        self._statuses[str(status)] += 1
        self._input_tokens += call.input_tokens
        self._output_tokens += call.output_tokens

    def as_json(self, since: int, wall_ahead_s: float) -> dict[str, Any]:
        """The kept calls from number `since` on, and the sums over all since the last reset.

        `first` is the oldest number that is kept, `next` the one that the next call will have.
        """
        first = self._kept[0].number if self._kept else self._last + 1
        newer = islice(self._kept, max(0, since - first), None)  # numbers have no gaps
        return {
            "total": self.total,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "statuses": {**self._statuses, **({"0": self.in_flight} if self.in_flight else {})},
            "input_tokens": self._input_tokens,
            "output_tokens": self._output_tokens,
            "first": first,
            "next": self._last + 1,
            "calls": [call.as_json(wall_ahead_s) for call in newer],
        }


def shown(key: str) -> str:
    """The key as the list shows it."""
    return key if len(key) <= KEY_CHARS_MAX else f"{key[:3]}…{key[-4:]}"
