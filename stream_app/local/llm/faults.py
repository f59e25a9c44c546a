"""Faults on demand: what a real LLM's endpoint does on a bad day, by number, by chance, or to a share of events."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from stream_app.local.llm.chance import Times, chances


class FaultKind(StrEnum):
    """What goes wrong with a call."""

    RATE_LIMITED = "rate_limited"  # 429 with retry-after
    RATE_LIMITED_SILENT = "rate_limited_silent"  # 429 that does not say for how long
    INSUFFICIENT_QUOTA = "insufficient_quota"  # 429 that no waiting mends
    SERVER_ERROR = "server_error"  # `status`, 500 when it is not given
    UNAUTHORIZED = "unauthorized"  # 401
    HANG = "hang"  # takes the call and never answers
    SLOW = "slow"  # answers rightly, `delay_s` later
    CLOSE = "close"  # closes the connection without an answer
    CLOSE_MIDWAY = "close_midway"  # closes it in the middle of the body
    REFUSAL = "refusal"  # the model declines
    CONTENT_FILTER = "content_filter"  # finish_reason content_filter, no content
    CONTENT_REFUSED = "content_refused"  # 400: the provider's filter refuses the prompt
    CONTENT_REFUSED_AZURE = "content_refused_azure"  # the same in Azure's form, with an innererror
    MALFORMED_JSON = "malformed_json"  # text that is not JSON
    TRUNCATED = "truncated"  # finish_reason length, half of the JSON
    OFF_SCHEMA_LABEL = "off_schema_label"  # JSON of the right form with a label that was not allowed
    EMPTY = "empty"  # an empty string for an answer


@dataclass(slots=True)
class Fault:
    """One fault, for calls whose text contains `match`.

    Either for the next `count` calls (None: all), each with `probability`; or, with a `share`, for that share of
    all events, whatever the order of their calls: each such event fails `times` times (None: always), and its
    calls after that go well. No event is in the shares of two faults. `code` replaces the error's own.
    """

    kind: FaultKind
    count: int | None = None
    probability: float = 1.0
    match: str = ""
    share: float | None = None
    times: int | None = 1
    retry_after_s: float = 1.0
    status: int = 500
    code: str = ""
    delay_s: float = 5.0

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Fault:
        """A fault as `POST /admin/faults` takes it. Raises `ValueError` for a kind or a field that is not known."""
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown or "kind" not in given:
            raise ValueError(f"a fault has a kind and no {', '.join(sorted(unknown)) or 'kind is given'}")
        if "share" in given and given.keys() & {"count", "probability"}:
            raise ValueError("a fault with a share has times, and neither count nor probability")
        if "share" not in given and "times" in given:
            raise ValueError("times goes with a share; without one it is count")
        rest = {name: value for name, value in given.items() if name != "kind"}
        return cls(FaultKind(given["kind"]), **rest)


class Faults:
    """The faults in force, in the order they were asked for; the first that applies to a call is its fault."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
        self._faults: list[Fault] = []
        self._failed = Times()

    def add(self, fault: Fault) -> None:
        """Put a fault in force, behind those that are. Raises `ValueError` where the shares are more than all."""
        shares = sum(one.share or 0 for one in (*self._faults, fault))
        if (fault.share or 0) < 0 or shares > 1 + 1e-9:
            raise ValueError(f"the shares of all faults are {shares:g} together; 1 is every event")
        self._faults.append(fault)

    def clear(self) -> None:
        """From now on everything goes well."""
        self._faults.clear()
        self._failed.clear()

    def next_for(self, text: str, event: str) -> Fault | None:
        """The fault of the next call, which uses up one of its count or of the event's times; or None."""
        if not self._faults:
            return None
        drawn, below = chances(self._seed, f"fault/{event}")[0], 0.0
        for fault in self._faults:
            if fault.share is not None:
                above, below = below, below + fault.share
                if above <= drawn < below and fault.match in text and self._fails_again(fault, event):
                    return fault
            elif fault.match in text and self._chance.random() < fault.probability:
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count == 0:
                        self._faults.remove(fault)
                return fault
        return None

    def _fails_again(self, fault: Fault, event: str) -> bool:
        if fault.times is not None and self._failed.of(event) >= fault.times:
            return False
        self._failed.next(event)
        return True
