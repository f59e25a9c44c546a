"""The bodies of what the stand-in sends: completions, and errors as OpenAI and Azure OpenAI write them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stream_app.local.llm.answer import off_schema
from stream_app.local.llm.faults import FaultKind

if TYPE_CHECKING:
    from stream_app.local.llm.answer import Reply
    from stream_app.local.llm.asked import Asked
    from stream_app.local.llm.calls import Call
    from stream_app.local.llm.provider import RateLimited

FINGERPRINT = "shunt-stand-in"

Json = dict[str, Any]


def error(kind: str | None, code: str, message: str, param: str | None = None) -> Json:
    """An error in OpenAI's form; `kind` is its `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


QUOTA_SPENT = error(
    "insufficient_quota",
    "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details.",
)
_RATE_LIMITED = error("requests", "rate_limit_exceeded", "Rate limit reached")
_AZURE_CONTENT = {
    **error(None, "content_filter", "The response was filtered by the content management policy.", "prompt")["error"],
    "status": 400,
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {
            "hate": {"filtered": False, "severity": "safe"},
            "jailbreak": {"filtered": False, "detected": False},
            "self_harm": {"filtered": False, "severity": "safe"},
            "sexual": {"filtered": False, "severity": "safe"},
            "violence": {"filtered": True, "severity": "medium"},
        },
    },
}

# Faults that are refused with an error and never reach the model.
ERRORS: dict[FaultKind, tuple[int, Json]] = {
    FaultKind.RATE_LIMITED: (429, _RATE_LIMITED),
    FaultKind.RATE_LIMITED_SILENT: (429, _RATE_LIMITED),
    FaultKind.INSUFFICIENT_QUOTA: (429, QUOTA_SPENT),
    FaultKind.SERVER_ERROR: (500, error("server_error", "server_error", "The server had an error")),
    FaultKind.UNAUTHORIZED: (401, error("invalid_request_error", "invalid_api_key", "Incorrect API key provided")),
    FaultKind.CONTENT_REFUSED: (
        400,
        error("invalid_request_error", "content_filter", "The prompt was refused by the content management policy"),
    ),
    FaultKind.CONTENT_REFUSED_AZURE: (400, {"error": _AZURE_CONTENT}),
}


def over_limit(limited: RateLimited, model: str, *, azure: bool, says_wait: bool) -> Json:
    """The body of a 429 by a limit; without `says_wait` its message does not tell how long to wait."""
    kind, never = limited.limit, math.isinf(limited.wait_s)
    if azure:
        retry = f" Please retry after {math.ceil(limited.wait_s)} seconds." if says_wait and not never else ""
        name = "token" if kind == "tokens" else "call"
        return {"error": {"code": "429", "message": f"Requests have exceeded {name} rate limit.{retry}"}}
    numbers = f"on {kind} per min: Limit {limited.per_minute}, Requested {limited.requested}."
    if never:
        return error(kind, "rate_limit_exceeded", f"Request too large for {model} {numbers}")
    retry = f" Please try again in {limited.wait_s:.3f}s." if says_wait else ""
    return error(kind, "rate_limit_exceeded", f"Rate limit reached for {model} {numbers}{retry}")


def completion(asked: Asked, reply: Reply, call: Call, fault: FaultKind | None) -> Json:
    """A chat completion, with what the fault does to it."""
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
