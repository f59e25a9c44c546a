"""The exact list of calls the stand-in has had, for tests and for the bill."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT_MAX = 500_000  # about 250 MB; counts go on beyond it


@dataclass(slots=True)
class Call:
    """One call. `status` is 0 while it is in the air, and -1 when the client left before the answer.

    `fault` is what went wrong on demand, `limited` which limit refused it. Tokens are what was billed.
    """

    number: int
    at_s: float
    model: str
    event_id: str | None
    text_sha256: str
    request_id: str
    status: int = 0
    fault: str | None = None
    limited: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    duration_s: float = 0.0


class CallLog:
    """Calls in the order they came in, the newest `KEPT_MAX` of them, and how many are in flight."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all calls."""
        self._kept: deque[Call] = deque(maxlen=KEPT_MAX)
        self.total = 0
        self.in_flight = 0
        self.in_flight_max = 0

    def open(self, call: Call) -> None:
        """A call has come in."""
        self._kept.append(call)
        self.total += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def close(self, call: Call, *, now_s: float) -> None:
        """The call has been answered, or its client has gone."""
        call.duration_s = now_s - call.at_s
        self.in_flight = max(0, self.in_flight - 1)  # a reset in between starts at nought

    def as_json(self, since: int = 0) -> dict[str, Any]:
        """All kept calls from number `since` on, and the sums over all kept ones."""
        statuses = Counter(str(call.status) for call in self._kept)
        return {
            "total": self.total,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "statuses": dict(statuses),
            "input_tokens": sum(call.input_tokens for call in self._kept),
            "output_tokens": sum(call.output_tokens for call in self._kept),
            "calls": [asdict(call) for call in self._kept if call.number >= since],
        }
