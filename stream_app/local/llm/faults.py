"""Faults on demand: what a real LLM's endpoint does on a bad day, so many times or by chance."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


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
    MALFORMED_JSON = "malformed_json"  # text that is not JSON
    TRUNCATED = "truncated"  # finish_reason length, half of the JSON
    OFF_SCHEMA_LABEL = "off_schema_label"  # JSON of the right form with a label that was not allowed
    EMPTY = "empty"  # an empty string for an answer


@dataclass(slots=True)
class Fault:
    """One fault: for the next `count` calls (None: all), each with `probability`, whose text contains `match`."""

    kind: FaultKind
    count: int | None = None
    probability: float = 1.0
    match: str = ""
    retry_after_s: float = 1.0
    status: int = 500
    delay_s: float = 5.0

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Fault:
        """A fault as `POST /admin/faults` takes it. Raises `ValueError` for a kind or a field that is not known."""
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown or "kind" not in given:
            raise ValueError(f"a fault has a kind and no {', '.join(sorted(unknown)) or 'kind is given'}")
        rest = {name: value for name, value in given.items() if name != "kind"}
        return cls(FaultKind(given["kind"]), **rest)


class Faults:
    """The faults in force, in the order they were asked for; the first that applies to a call is its fault."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a fault in force, behind those that are."""
        self._faults.append(fault)

    def clear(self) -> None:
        """From now on everything goes well."""
        self._faults.clear()

    def next_for(self, text: str) -> Fault | None:
        """The fault of the next call, which uses up one of its count, or None."""
        for fault in self._faults:
            if fault.match in text and self._chance.random() < fault.probability:
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count == 0:
                        self._faults.remove(fault)
                return fault
        return None
