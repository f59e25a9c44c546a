"""What headers say of the limits: what OpenAI's do, what Azure OpenAI's do on better and worse days, or nothing.

OpenAI's are in its guide to rate limits. Azure's differ from one API and year to the next, as users report them:
only what remains (Azure/azure-rest-api-specs#26884), a wait named `x-rate-limit-reset-tokens` and no `retry-after`
(openai/openai-python#937), -1 for limits and 0 for the reset (openai/openai-dotnet#838).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_app.local.llm.limits import Limit
    from stream_app.local.llm.provider import RateLimited, RateLimits

REGION = "Stand-in"


class HeaderStyle(StrEnum):
    """Whose headers, and on which day."""

    OPENAI = "openai"  # limit, remaining, reset as a Go duration
    AZURE = "azure"  # limit, remaining, reset in whole seconds
    AZURE_REMAINING = "azure_remaining"  # only what remains; a 429 says the wait in a header of its own
    AZURE_MINUS_ONE = "azure_minus_one"  # limit and remaining -1, reset 0
    AZURE_ZERO = "azure_zero"  # limit, remaining and reset 0
    NONE = "none"  # a 429's status is all there is

    @property
    def is_azure(self) -> bool:
        """Whether refusals have Azure's form too."""
        return self.value.startswith("azure")


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """The style, and whether a limit's 429 says `retry-after` (s) and `retry-after-ms`."""

    style: HeaderStyle = HeaderStyle.OPENAI
    retry_after: bool = True

    def of_call(self, number: int, request_id: str) -> dict[str, str]:
        """Headers that name the call."""
        named = {"x-request-id": request_id}
        if self.style.is_azure:
            named["apim-request-id"] = f"00000000-0000-4000-8000-{number:012x}"
            named["x-ms-region"] = REGION
        return named

    def of_limits(self, limits: tuple[RateLimits, ...], now_s: float) -> dict[str, str]:
        """`x-ratelimit-*` of the limits in force; of several on the same thing, the one with least left."""
        said: dict[str, str] = {}
        if self.style is HeaderStyle.NONE:
            return said
        for kind in ("requests", "tokens"):
            found: list[Limit] = [limit for each in limits if (limit := getattr(each, kind)) is not None]
            if found:
                tightest = min(found, key=lambda limit: limit.remaining(now_s)) if len(found) > 1 else found[0]
                for part, value in self._parts(tightest, now_s).items():
                    said[f"x-ratelimit-{part}-{kind}"] = value
        return said

    def of_wait(self, limited: RateLimited) -> dict[str, str]:
        """How long to wait, where the rules say it and waiting helps."""
        if math.isinf(limited.wait_s):
            return {}
        said: dict[str, str] = {}
        if self.retry_after:
            said = retry_after(limited.wait_s)
        if self.style is HeaderStyle.AZURE_REMAINING:
            said[f"x-rate-limit-reset-{limited.limit}"] = str(math.ceil(limited.wait_s))
        return said

    def _parts(self, limit: Limit, now_s: float) -> dict[str, str]:
        match self.style:
            case HeaderStyle.AZURE_REMAINING:
                return {"remaining": str(limit.remaining(now_s))}
            case HeaderStyle.AZURE_MINUS_ONE:
                return {"limit": "-1", "remaining": "-1", "reset": "0"}
            case HeaderStyle.AZURE_ZERO:
                return {"limit": "0", "remaining": "0", "reset": "0"}
            case HeaderStyle.AZURE:
                reset = str(math.ceil(limit.reset_s(now_s)))
            case _:
                reset = go_duration(limit.reset_s(now_s))
        return {"limit": str(limit.per_minute), "remaining": str(limit.remaining(now_s)), "reset": reset}


def retry_after(wait_s: float) -> dict[str, str]:
    """The wait in whole seconds and in milliseconds, rounded up."""
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def go_duration(seconds: float) -> str:
    """Seconds as OpenAI's headers write them: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    ms = round(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    short = f"{ms / 1000:.3f}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + f"{short}s"
