"""The stand-in's public side: chat completions as OpenAI's API has them, and at the addresses of Azure OpenAI's.

GET    /v1/models
POST   /v1/chat/completions    POST /openai/deployments/NAME/chat/completions    POST /openai/v1/chat/completions

What tests and demos tell it and ask it is in `admin`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from stream_app.local.llm import bodies
from stream_app.local.llm.admin import Admin
from stream_app.local.llm.answer import NotRecordedError, reply_to
from stream_app.local.llm.asked import Asked, BadRequestError, api_key, read_request
from stream_app.local.llm.calls import Call
from stream_app.local.llm.chance import chances
from stream_app.local.llm.faults import Fault, FaultKind
from stream_app.local.llm.headers import retry_after
from stream_app.local.llm.provider import Admission, QuotaSpent, RateLimited
from stream_app.local.llm.state import State, now_s

if TYPE_CHECKING:
    from stream_app.local.llm.answer import Reply
    from stream_app.local.llm.options import StandInOptions
    from stream_app.local.llm.replay import Replay

STAND_IN_HEADER = "x-shunt-stand-in"
BODY_BYTES_MAX = 16 * 1024 * 1024
CLIENT_LEFT = -1


class StandIn:
    """The server's state and its handlers."""

    def __init__(self, options: StandInOptions, replay: Replay | None) -> None:
        self._options = options
        self._replay = replay
        self._state = State(options)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/openai/v1/chat/completions", self._chat)
        app.router.add_post("/openai/deployments/{deployment}/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        Admin(lambda: self._state, self._reset).add_to(app)
        return app

    def _reset(self) -> None:
        self._state = State(self._options, self._state.log.last)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        state = self._state
        call = Call(state.log.last + 1, now_s(), api_key(request.headers))
        state.log.open(call)
        status = 500
        try:
            asked = read_request(body, request.headers)
            response = await self._answer(state, request, asked, call)
            status = call.status or response.status
        except BadRequestError as refused:
            status = 400
            return _refusal(state, call, 400, bodies.error("invalid_request_error", "invalid_request", str(refused)))
        except (asyncio.CancelledError, ConnectionError):
            status = CLIENT_LEFT
            raise
        else:
            return response
        finally:
            state.log.close(call, status, now_s())

    async def _answer(self, state: State, request: web.Request, asked: Asked, call: Call) -> web.StreamResponse:
        """One call's way: its fault, then the limits, then the time it takes, then what the model says."""
        call.model, call.event_id, call.text_sha256 = asked.model, asked.event_id, asked.text_sha256
        call.output_tokens_max = asked.output_tokens_max
        event = asked.event_id or asked.text_sha256
        fault = state.faults.next_for(asked.text, event)
        call.fault = fault.kind if fault is not None else None
        if fault is not None and fault.kind in bodies.ERRORS:
            return _failed(state, call, fault)
        admitted = state.provider.admit(call.key, asked.input_tokens, asked.output_tokens_max, call.at_s)
        if not isinstance(admitted, Admission):
            return _not_let_in(state, call, admitted)
        call.admitted_s = call.at_s
        call.reserved_tokens, call.charged_tokens = admitted.reserved_tokens, admitted.charged_tokens
        try:
            reply = reply_to(asked, self._replay)
            call.input_tokens, call.output_tokens = reply.input_tokens, reply.output_tokens
            takes_s = state.latency.draw_s(chances(state.seed, event, state.asked.next(event)))
            await asyncio.sleep(takes_s + (fault.delay_s if fault and fault.kind == FaultKind.SLOW else 0))
            return await _respond(state, request, asked, reply, call, fault.kind if fault else None)
        except NotRecordedError as error:
            return _refusal(state, call, 400, bodies.error("invalid_request_error", "not_recorded", str(error)))
        finally:
            call.cost_pico = state.provider.settle(admitted, call.input_tokens, call.output_tokens, now_s())
            call.charged_tokens = admitted.charged_tokens

    async def _models(self, _request: web.Request) -> web.Response:
        names = self._options.replay_names or (bodies.FINGERPRINT,)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": bodies.FINGERPRINT} for name in names]
        return web.json_response({"object": "list", "data": models})


def _failed(state: State, call: Call, fault: Fault) -> web.Response:
    """The error of a fault on demand."""
    status, body = bodies.ERRORS[fault.kind]
    if fault.kind == FaultKind.SERVER_ERROR:
        status = fault.status
    if fault.code:
        body = {"error": {**body["error"], "code": fault.code}}
    waits = retry_after(fault.retry_after_s) if fault.kind == FaultKind.RATE_LIMITED else {}
    return _refusal(state, call, status, body, waits)


def _not_let_in(state: State, call: Call, why: RateLimited | QuotaSpent) -> web.Response:
    match why:
        case QuotaSpent():
            call.limited = "quota"
            return _refusal(state, call, 429, bodies.QUOTA_SPENT)
        case RateLimited():
            call.limited = why.limit
            rules = state.headers
            azure, says_wait = rules.style.is_azure, rules.retry_after
            body = bodies.over_limit(why, call.model, azure=azure, says_wait=says_wait)
            return _refusal(state, call, 429, body, rules.of_wait(why))


def _refusal(
    state: State, call: Call, status: int, body: bodies.Json, headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response(body, status=status, headers={**_headers(state, call), **(headers or {})})


def _headers(state: State, call: Call) -> dict[str, str]:
    limits = (state.provider.limits, state.provider.account_of(call.key).limits)
    return {
        **state.headers.of_call(call.number, call.request_id),
        **state.headers.of_limits(limits, now_s()),
    }


async def _respond(
    state: State, request: web.Request, asked: Asked, reply: Reply, call: Call, fault: FaultKind | None
) -> web.StreamResponse:
    """The answer, unless the connection is what fails."""
    body = json.dumps(bodies.completion(asked, reply, call, fault)).encode()
    headers = {STAND_IN_HEADER: reply.source, "content-type": "application/json", **_headers(state, call)}
    match fault:
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
            call.status = CLIENT_LEFT
            return response
        case _:
            pass
    return web.Response(body=body, headers=headers)


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
