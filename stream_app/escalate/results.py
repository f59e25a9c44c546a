"""What one call to an endpoint can end in: a closed union, matched exhaustively by whoever calls.

`headers` is what the response says of the limits; SILENT where there was no response.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_app.escalate.rate_headers import SILENT, RateHeaders


@dataclass(frozen=True, slots=True)
class Answered:
    """A chat completion. Tokens are None where the endpoint does not count them."""

    content: str | None
    refusal: str | None
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    request_id: str | None
    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class RateLimited:
    """HTTP 429 for the rate: every caller of the key waits, for as long as the headers say."""

    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class ContentRefused:
    """The provider refused the content with an error status: an outcome, like the model's own refusal."""

    why: str
    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class Unusable:
    """HTTP 200 with a body that is no chat completion."""

    why: str
    headers: RateHeaders = SILENT


@dataclass(frozen=True, slots=True)
class Failed:
    """The endpoint could not be used; trying again may help.

    `cause` is `unreachable`, `disconnected`, `timeout` or `server_error`. `maybe_paid` says that the endpoint
    may have done the work all the same, and charge for it.
    """

    cause: str
    why: str
    headers: RateHeaders = SILENT
    maybe_paid: bool = False


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The endpoint works and will not serve this account: key, right, model, address or quota. Nobody retries
    quickly; a person must change something.
    """

    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class BadRequest:
    """The endpoint refuses this very request for good (too long for the model, a parameter it lacks)."""

    why: str
    headers: RateHeaders = SILENT


CallResult = Answered | RateLimited | ContentRefused | Unusable | Failed | Misconfigured | BadRequest
