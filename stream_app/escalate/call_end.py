"""What the end of a call says of the rate: counted by the provider, refused for the limit, or nobody knows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from stream_app.escalate.rate_headers import SILENT, RateHeaders
from stream_app.escalate.results import (
    Answered,
    BadRequest,
    ContentRefused,
    Failed,
    Misconfigured,
    RateLimited,
    Unusable,
)

if TYPE_CHECKING:
    from stream_app.escalate.prompt import Request
    from stream_app.escalate.results import CallResult
    from stream_app.escalate.token_use import TokenUse


@dataclass(frozen=True, slots=True)
class Counted:
    """The provider let the call in and counted so many tokens."""

    tokens: int
    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A 429 at `wall_s` (seconds of Unix time): the provider counted nothing; `headers` say when to come again."""

    wall_s: float
    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class Lost:
    """What the provider counted is not known, so what was estimated stays charged."""


CallEnd = Counted | OverLimit | Lost


def end_of(called: CallResult, request: Request, charged: int, use: TokenUse, wall_s: float) -> CallEnd:
    """How a call of `request` ended, for which `charged` tokens were reserved. `use` learns from a reported usage.

    Where the provider let the call in and does not say what it counted, that is what was charged.
    """
    match called:
        case RateLimited(headers=headers):
            return OverLimit(wall_s, headers)
        case Answered(input_tokens=int(tokens_in), output_tokens=int(tokens_out), headers=headers):
            sizes = request.input_tokens, request.output_tokens_max
            return Counted(use.settle(request.prompt_version, sizes, (tokens_in, tokens_out), charged), headers)
        case Answered(headers=headers) | Unusable(headers=headers):
            return Counted(charged, headers)
        case ContentRefused(headers=headers) | BadRequest(headers=headers):
            return Counted(charged, headers)
        case Failed() | Misconfigured():
            return Lost()
        case _:
            assert_never(called)
