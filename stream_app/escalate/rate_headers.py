"""What an endpoint says about its limits in a response's headers. Pure; nothing an endpoint sends makes it raise.

    x-ratelimit-limit-{requests,tokens}       what the account may use a minute
    x-ratelimit-remaining-{requests,tokens}   how much of that is left now
    x-ratelimit-reset-{requests,tokens}       how long until all of it is back
    retry-after-ms, retry-after               with a 429 or 503: when to come again

OpenAI writes reset as a Go duration (`1s`, `6m0s`, `12ms`); Azure writes plain seconds, and has spelled the name
`x-rate-limit-reset-tokens`. Some servers send -1 or 0 where they do not know, so: a limit of 0 or less, a remaining
below 0 and a reset of 0 or less are unknown. A remaining of 0 is a fact, unless the limit is unknown as well
and -1 or 0 stand in all fields of that kind.
Sources: OpenAI's guide "Rate limits", section "Rate limits in headers"; openai-python issue 937 and openai-dotnet
issue 838 for Azure's forms; RFC 9110, section 10.2.3, for Retry-After.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WAIT_MAX_S = 86_400.0
"""A longer wait than a day is no rate limit: it is taken for a mistake."""
AMOUNT_MAX = 1e12
"""No account has more a minute; larger numbers are placeholders for "unlimited"."""
TEXT_MAX = 64
"""A header longer than this is not read: every field here fits in half of it."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
GO_DURATION = re.compile(r"((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
GO_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
GO_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is said about one limit; None where it is not known."""

    limit_per_minute: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


UNKNOWN = Allowance()


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """All that one response says about the limits."""

    requests: Allowance = UNKNOWN
    tokens: Allowance = UNKNOWN
    retry_after_s: float | None = None


SILENT = RateHeaders()


def rate_headers(headers: Mapping[str, str], wall_s: float) -> RateHeaders:
    """What `headers` (names in lower case, or a mapping that ignores case) say at `wall_s`, seconds of Unix time."""
    return RateHeaders(
        requests=_allowance(headers, "requests"),
        tokens=_allowance(headers, "tokens"),
        retry_after_s=_retry_after_s(headers, wall_s),
    )


def _allowance(headers: Mapping[str, str], of: str) -> Allowance:
    limit = _number(headers.get(f"x-ratelimit-limit-{of}"))
    remaining = _number(headers.get(f"x-ratelimit-remaining-{of}"))
    said = headers.get(f"x-ratelimit-reset-{of}") or headers.get(f"x-rate-limit-reset-{of}")
    reset_s = duration_s(said)
    limit = limit if limit is not None and 0 < limit < AMOUNT_MAX else None
    if remaining is not None and not 0 <= remaining < AMOUNT_MAX:
        remaining = None
    if remaining == 0 and limit is None and reset_s is None:
        remaining = None  # Azure's 0 beside a limit of -1: it does not know
    if remaining is not None and limit is not None:
        remaining = min(remaining, limit)
    return Allowance(limit, remaining, reset_s) if (limit, remaining, reset_s) != (None,) * 3 else UNKNOWN


def _retry_after_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Seconds until the next try; milliseconds come first because they are the more exact."""
    if (after_ms := _number(headers.get("retry-after-ms"))) is not None and _is_wait(after_ms / 1_000):
        return after_ms / 1_000
    said = headers.get("retry-after")
    if (after_s := duration_s(said)) is not None:
        return after_s
    if not isinstance(said, str) or len(said) > TEXT_MAX:
        return None
    try:
        date_s = parsedate_to_datetime(said).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None
    return date_s - wall_s if _is_wait(date_s - wall_s) else None


def duration_s(said: str | None) -> float | None:
    """A Go duration or plain seconds; None where it is neither, not above 0, or more than a day."""
    if (seconds := _number(said)) is None:
        if said is None or len(said) > TEXT_MAX or GO_DURATION.fullmatch(text := said.strip()) is None:
            return None
        seconds = math.fsum(float(part[1]) * GO_UNIT_S[part[2]] for part in GO_PART.finditer(text))
    return seconds if _is_wait(seconds) else None


def _number(said: str | None) -> float | None:
    if said is None or len(said) > TEXT_MAX or NUMBER.fullmatch(text := said.strip()) is None:
        return None
    return float(text)


def _is_wait(seconds: float) -> bool:
    return 0 < seconds <= WAIT_MAX_S
