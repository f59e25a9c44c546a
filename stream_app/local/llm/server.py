"""The stand-in's HTTP side: `/v1` as OpenAI's API has it, `/admin` for limits, faults and the list of calls.

GET    /v1/models            POST /v1/chat/completions
GET    /admin/calls[?since=N]        every call, exactly
POST   /admin/faults         {"kind": "rate_limited", "count": 3}   DELETE: all is well again
POST   /admin/limits         {"requests_per_minute": 600, "tokens_per_minute": 0, "burst_s": 1}
POST   /admin/latency        {"median_ms": 0, "sigma": 0}
POST   /admin/reset          as it was at the start, no calls, no faults
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from stream_app.local.llm.answer import NotRecordedError, off_schema, reply_to
from stream_app.local.llm.asked import Asked, BadRequestError, read_request
from stream_app.local.llm.calls import Call, CallLog
from stream_app.local.llm.faults import Fault, FaultKind, Faults
from stream_app.local.llm.limits import Bucket

if TYPE_CHECKING:
    from stream_app.local.llm.answer import Reply
    from stream_app.local.llm.options import StandInOptions
    from stream_app.local.llm.replay import Replay

FINGERPRINT = "shunt-stand-in"
STAND_IN_HEADER = "x-shunt-stand-in"
BODY_BYTES_MAX = 16 * 1024 * 1024

# Faults that are refused with an error and never reach the model: status, type, code, message.
ERRORS: dict[FaultKind, tuple[int, str, str, str]] = {
    FaultKind.RATE_LIMITED: (429, "requests", "rate_limit_exceeded", "Rate limit reached"),
    FaultKind.RATE_LIMITED_SILENT: (429, "requests", "rate_limit_exceeded", "Rate limit reached"),
    FaultKind.INSUFFICIENT_QUOTA: (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details",
    ),
    FaultKind.SERVER_ERROR: (500, "server_error", "server_error", "The server had an error"),
    FaultKind.UNAUTHORIZED: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    FaultKind.CONTENT_REFUSED: (
        400,
        "invalid_request_error",
        "content_filter",
        "The prompt was refused by the content management policy",
    ),
}


class StandIn:
    """The server's state and its handlers."""

    def __init__(self, options: StandInOptions, replay: Replay | None) -> None:
        self._options = options
        self._replay = replay
        self._log = CallLog()
        self._numbers = 0
        self._reset()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/admin/calls", self._admin_calls)
        app.router.add_post("/admin/faults", self._admin_faults)
        app.router.add_delete("/admin/faults", self._admin_no_faults)
        app.router.add_post("/admin/limits", self._admin_limits)
        app.router.add_post("/admin/latency", self._admin_latency)
        app.router.add_post("/admin/reset", self._admin_reset)
        return app

    def _reset(self) -> None:
        options = self._options
        self._chance = random.Random(options.seed)  # noqa: S311 - a repeatable run, not a secret
        self._faults = Faults(options.seed)
        self._log.clear()
        self._latency = (options.latency_median_ms, options.latency_sigma)
        self._requests = Bucket(options.requests_per_minute)
        self._tokens = Bucket(options.tokens_per_minute)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._numbers += 1
        request_id = f"req_{self._numbers:012d}"
        try:
            asked = read_request(await request.read(), request.headers)
        except BadRequestError as error:
            return _error(400, "invalid_request_error", "invalid_request", str(error), request_id)
        call = Call(self._numbers, time.time(), asked.model, asked.event_id, asked.text_sha256, request_id)
        self._log.open(call)
        try:
            response = await self._answer(request, asked, call)
        except (asyncio.CancelledError, ConnectionError):
            call.status = -1
            raise
        else:
            call.status = call.status or response.status
            return response
        finally:
            self._log.close(call, now_s=time.time())

    async def _answer(self, request: web.Request, asked: Asked, call: Call) -> web.StreamResponse:
        """One call's way: its fault, then the limits, then the time it takes, then what the model says."""
        fault = self._faults.next_for(asked.text)
        call.fault = fault.kind if fault is not None else None
        if fault is not None and fault.kind in ERRORS:
            return self._refused(fault, call)
        estimate = asked.input_tokens + asked.output_tokens_max
        if (limited := self._over_limit(estimate, call)) is not None:
            return limited
        try:
            reply = reply_to(asked, self._replay)
        except NotRecordedError as error:
            return _error(400, "invalid_request_error", "not_recorded", str(error), call.request_id)
        call.input_tokens, call.output_tokens = reply.input_tokens, reply.output_tokens
        # What was reserved for output and not used is given back, as clients reckon too.
        self._tokens.take(reply.input_tokens + reply.output_tokens - estimate, time.monotonic())
        await asyncio.sleep(self._latency_s() + (fault.delay_s if fault and fault.kind == FaultKind.SLOW else 0))
        return await self._respond(request, asked, reply, call, fault)

    def _refused(self, fault: Fault, call: Call) -> web.Response:
        status, kind, code, message = ERRORS[fault.kind]
        if fault.kind == FaultKind.SERVER_ERROR:
            status = fault.status
        headers = {"retry-after": str(math.ceil(fault.retry_after_s))}
        headers["retry-after-ms"] = str(round(fault.retry_after_s * 1000))
        return _error(
            status,
            kind,
            code,
            message,
            call.request_id,
            {**self._limit_headers(), **(headers if fault.kind == FaultKind.RATE_LIMITED else {})},
        )

    def _over_limit(self, estimate: int, call: Call) -> web.Response | None:
        """Take the call out of both buckets, or say how long to wait when one lacks it."""
        now = time.monotonic()
        waits_s = {"requests": self._requests.wait_s(1, now), "tokens": self._tokens.wait_s(estimate, now)}
        call.limited = max(waits_s, key=lambda kind: waits_s[kind])
        if (wait_s := waits_s[call.limited]) > 0:
            return _error(
                429,
                call.limited,
                "rate_limit_exceeded",
                f"Rate limit reached on {call.limited} per min. Please try again in {wait_s:.3f}s",
                call.request_id,
                {
                    **self._limit_headers(),
                    "retry-after": str(math.ceil(wait_s)),
                    "retry-after-ms": str(math.ceil(wait_s * 1000)),
                },
            )
        call.limited = None
        self._requests.take(1, now)
        self._tokens.take(estimate, now)
        return None

    async def _respond(
        self, request: web.Request, asked: Asked, reply: Reply, call: Call, fault: Fault | None
    ) -> web.StreamResponse:
        body = json.dumps(_completion(asked, reply, call, fault.kind if fault else None)).encode()
        headers = {
            "x-request-id": call.request_id,
            STAND_IN_HEADER: reply.source,
            "content-type": "application/json",
            **self._limit_headers(),
        }
        match fault.kind if fault else None:
            case FaultKind.HANG:
                await asyncio.Event().wait()  # until the client has had enough
            case FaultKind.CLOSE:
                _hang_up(request)
                raise ConnectionResetError
            case FaultKind.CLOSE_MIDWAY:
                response = web.StreamResponse(headers={**headers, "content-length": str(len(body))})
                await response.prepare(request)
                await response.write(body[: len(body) // 2])
                _hang_up(request)
                call.status = -1
                return response
            case _:
                pass
        return web.Response(body=body, headers=headers)

    def _latency_s(self) -> float:
        median_ms, sigma = self._latency
        return median_ms / 1000 * math.exp(sigma * self._chance.gauss(0, 1)) if median_ms else 0.0

    def _limit_headers(self) -> dict[str, str]:
        now = time.monotonic()
        return {**self._requests.headers("requests", now), **self._tokens.headers("tokens", now)}

    async def _models(self, _request: web.Request) -> web.Response:
        names = self._options.replay_names or (FINGERPRINT,)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": FINGERPRINT} for name in names]
        return web.json_response({"object": "list", "data": models})

    async def _admin_calls(self, request: web.Request) -> web.Response:
        return web.json_response(self._log.as_json(int(request.query.get("since", 0))))

    async def _admin_faults(self, request: web.Request) -> web.Response:
        try:
            self._faults.add(Fault.from_json(await request.json()))
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    async def _admin_no_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({})

    async def _admin_limits(self, request: web.Request) -> web.Response:
        given = await request.json()
        burst_s = float(given.get("burst_s", 60))
        self._requests = Bucket(int(given.get("requests_per_minute", 0)), burst_s)
        self._tokens = Bucket(int(given.get("tokens_per_minute", 0)), burst_s)
        return web.json_response({})

    async def _admin_latency(self, request: web.Request) -> web.Response:
        given = await request.json()
        self._latency = (float(given["median_ms"]), float(given.get("sigma", 0)))
        return web.json_response({})

    async def _admin_reset(self, _request: web.Request) -> web.Response:
        self._reset()
        return web.json_response({})


def _completion(asked: Asked, reply: Reply, call: Call, fault: FaultKind | None) -> dict[str, Any]:
    """The body of a chat completion, with what the fault does to it."""
    content, refusal, finish = reply.content, reply.refusal, "stop"
    match fault:
        case FaultKind.REFUSAL:
            content, refusal = None, "I'm sorry, but I can't help with that."
        case FaultKind.CONTENT_FILTER:
            content, finish = None, "content_filter"
        case FaultKind.MALFORMED_JSON:
            content = f"Sure! Here is the answer: {(content or '')[:-1]},"
        case FaultKind.TRUNCATED:
            content, finish = (content or "")[: len(content or "") // 2], "length"
        case FaultKind.OFF_SCHEMA_LABEL:
            content = off_schema(content or "")
        case FaultKind.EMPTY:
            content = ""
        case _:
            pass
    return {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": int(call.at_s),
        "model": asked.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }


def _error(
    status: int, kind: str, code: str, message: str, request_id: str, headers: dict[str, str] | None = None
) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers={"x-request-id": request_id, **(headers or {})})


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
