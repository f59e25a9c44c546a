"""The port to the LLM, and its adapter over `openai.AsyncOpenAI`. Foreign errors become our values here alone.

The port is one method, `ask`; it never raises for what an endpoint does (only CancelledError passes). Retry,
limits and budget are not its business: `max_retries=0`, one HTTP request per call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote, urlsplit

import aiohttp
import httpx2
import msgspec
import openai
import orjson

from stream_app.escalate.endpoint_facts import LOOPBACK, REASONING_MODEL, api_key
from stream_app.escalate.rate_headers import rate_headers
from stream_app.escalate.results import (
    Answered,
    BadRequest,
    CallResult,
    ContentRefused,
    Failed,
    Misconfigured,
    RateLimited,
    Unusable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.escalate.prompt import Request
    from stream_app.escalate.rate_headers import RateHeaders
    from stream_app.settings import Endpoint

CONNECT_S = 5.0
_OMIT = openai.Omit()
UNTOLD = {
    f"X-Stainless-{fact}": _OMIT
    for fact in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
}
UNTOLD_OF_A_CALL = dict.fromkeys(("x-stainless-retry-count", "x-stainless-read-timeout"), _OMIT)
"""What the SDK would tell of this machine with every call: nobody's business, and 4 KB of memory a call."""
CONTENT_CODES = frozenset(
    {"content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"}
)
RETRIABLE_STATUS = frozenset({408, 409, 425})
CONFIGURATION_STATUS = frozenset({401, 403, 404, 405})
NO_QUOTA = "insufficient_quota"
TOO_LARGE = "request too large"
"""How OpenAI's 429 for a call begins that takes more than a minute's limit: waiting would not help."""


class LlmClient(Protocol):
    """One call to an endpoint."""

    name: str
    """The endpoint's name in metrics and logs (`endpoint_names`)."""
    model: str

    async def ask(self, request: Request, timeout_s: float) -> CallResult:
        """The endpoint's answer within `timeout_s`. Raises nothing but CancelledError."""
        ...


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    usage: _Usage | None = None


_COMPLETION = msgspec.json.Decoder(_Completion)


class OpenAiClient:
    """The adapter. Open connections are bounded by `connections_max`; close it with `aclose`."""

    def __init__(self, endpoint: Endpoint, *, connections_max: int, name: str | None = None) -> None:
        """Raises SettingsError where the key is missing. `name`: instead of the host."""
        self.model = endpoint.model
        host = urlsplit(endpoint.base_url).netloc
        self.name = name or host
        self._official = host.endswith("openai.com")
        self._local = urlsplit(endpoint.base_url).hostname in LOOPBACK
        limits = httpx2.Limits(max_connections=connections_max, max_keepalive_connections=connections_max)
        # The aiohttp transport takes half the CPU of the default one (benchmarks/llm_lane.py).
        transport = openai.DefaultAioHttpClient(limits=limits)
        self._client = openai.AsyncOpenAI(
            api_key=api_key(endpoint),
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=transport,
            default_headers=cast("Mapping[str, str]", UNTOLD),
        )

    async def ask(self, request: Request, timeout_s: float) -> CallResult:
        """One POST to `/chat/completions`; foreign errors become values."""
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        try:
            async with asyncio.timeout(timeout_s):  # the client's own bounds each read, not the whole
                response = await self._client.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=bytes(memoryview(orjson.dumps(self._body(request)))),  # orjson's own keeps 16 KB each
                    options={"timeout": timeout, "headers": self._headers(request)},
                )
                return _read(response.content, response.headers)
        except openai.APIStatusError as error:
            return _of_status(error)
        except TimeoutError:
            return Failed("timeout", f"no answer in {timeout_s:.1f} s", maybe_paid=True)
        except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
            return _of_connection(error)

    def _headers(self, request: Request) -> dict[str, str | openai.Omit]:
        """A local endpoint is told which event this is, so that its log can be held against ours; nobody else is."""
        headers: dict[str, str | openai.Omit] = {"content-type": "application/json", **UNTOLD_OF_A_CALL}
        if self._local:
            headers["x-shunt-event-id"] = quote(request.event_id)
            headers["x-shunt-text-sha256"] = request.text_sha256
        return headers

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def _body(self, request: Request) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self.model,
            "messages": request.messages,
            "response_format": request.response_format,
            # OpenAI's newer models know only the new name, most other servers only the old one.
            "max_completion_tokens" if self._official else "max_tokens": request.output_tokens_max,
        }
        if not REASONING_MODEL.match(self.model):
            body["temperature"] = 0
        return body


def _read(content: bytes, headers: Mapping[str, str]) -> Answered | Unusable:
    said = rate_headers(headers, time.time())
    try:
        completion = _COMPLETION.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Unusable("the body is no chat completion", said)
    if not completion.choices:
        return Unusable("the completion has no choices", said)
    choice, usage = completion.choices[0], completion.usage or _Usage()
    return Answered(
        content=choice.message.content,
        refusal=choice.message.refusal or None,
        finish_reason=choice.finish_reason,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        request_id=headers.get("x-request-id") or completion.id,
        headers=said,
    )


def _of_connection(error: BaseException) -> Failed:
    """What happened to the connection. The transport reports a refused one as a time-out: the root cause tells."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    why = str(causes[-1]) or type(causes[-1]).__name__
    if any(isinstance(one, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) for one in causes):
        return Failed("unreachable", why)
    if any(isinstance(one, TimeoutError | httpx2.ReadTimeout) for one in causes):
        return Failed("timeout", why, maybe_paid=True)
    return Failed("disconnected", why, maybe_paid=True)


def _of_status(error: openai.APIStatusError) -> CallResult:
    """What a status of 4xx or 5xx means."""
    status, code = error.status_code, error.code or ""
    said = rate_headers(cast("Mapping[str, str]", error.response.headers), time.time())
    why = f"HTTP {status}" + (f" {code}" if code else "")
    if status == 429:
        return _of_429(error, why, said)
    if status >= 500 or status in RETRIABLE_STATUS:
        return Failed("server_error", why, said)
    if code in CONTENT_CODES or _speaks_of_content(error):
        return ContentRefused(why, said)
    if status in CONFIGURATION_STATUS:
        return Misconfigured({401: "key", 403: "right", 404: "model", 405: "address"}[status], why)
    return BadRequest(f"{why}: {error.message[:300]}", said)


def _of_429(error: openai.APIStatusError, why: str, said: RateHeaders) -> CallResult:
    """A 429 is for the rate, unless it names something that waiting does not mend."""
    if NO_QUOTA in (error.code, error.type):
        return Misconfigured(NO_QUOTA, why)
    if TOO_LARGE in error.message.lower():
        return BadRequest(f"{why}: {error.message[:300]}", said)
    return RateLimited(said)


def _speaks_of_content(error: openai.APIStatusError) -> bool:
    """Azure and others refuse content with a plain 400 whose message is all that tells."""
    message = error.message.lower()
    return error.status_code in {400, 403} and ("content management policy" in message or "content_filter" in message)
