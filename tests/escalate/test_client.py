"""The adapter against a real HTTP server: what an endpoint does becomes one of our values, and nothing is raised."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from stream_app.errors import SettingsError
from stream_app.escalate import client as clients
from stream_app.escalate import results
from stream_app.escalate.answer import Valid, judge
from stream_app.escalate.answer_form import AnswerForm
from stream_app.escalate.client import OpenAiClient
from stream_app.escalate.endpoint_facts import api_key
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.rate_headers import SILENT, RateHeaders
from stream_app.events import Event
from stream_app.local.ports import claim_port
from stream_app.settings import Endpoint
from tests.escalate.escalated import escalation

ESCALATION = escalation(3, timestamp_ms=1)


def request(text: str = "a lovely lamp, very happy", **options):
    event = Event("lamp 3", text, b"{}", ESCALATION.source, None)
    return Prompter(PromptOptions(**options), ["sentiment"]).render(ESCALATION, event)


@pytest.fixture
async def client(llm):
    made = OpenAiClient(Endpoint(base_url=llm.base_url), connections_max=10)
    yield made
    await made.aclose()


async def test_an_answer_comes_with_its_tokens_and_id(client, llm):
    """The call the server noted is the call we made: same tokens, same request id, our event id."""
    answered = await client.ask(request(), 5.0)
    assert isinstance(answered, results.Answered)
    assert judge(request(), answered) == Valid({"sentiment": "positive"})
    (call,) = llm.calls()
    assert (answered.input_tokens, answered.output_tokens) == (call["input_tokens"], call["output_tokens"])
    assert answered.request_id == call["request_id"]
    assert call["event_id"] == "lamp 3"
    assert call["text_sha256"] == request().text_sha256


async def test_a_call_tells_nothing_of_this_machine():
    """The SDK adds nine headers about the system it runs on: no endpoint needs them, each call would hold them."""
    seen: list[str] = []

    async def answer(asked: web.Request) -> web.Response:
        seen.extend(name.lower() for name in asked.headers)
        return web.json_response({"choices": []})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        client = OpenAiClient(Endpoint(base_url=str(server.make_url("/v1"))), connections_max=1)
        await client.ask(request(), 5.0)
        await client.aclose()
    assert "authorization" in seen
    assert not [name for name in seen if name.startswith("x-stainless")]


async def test_json_mode_with_a_reason_is_understood(llm):
    """An endpoint without structured output answers the same question."""
    asked = request("dreadful, broke at once", json_schema=False, form=AnswerForm(reason=True))
    client = OpenAiClient(Endpoint(base_url=llm.base_url, json_schema=False), connections_max=1)
    try:
        verdict = judge(asked, await client.ask(asked, 5.0))
    finally:
        await client.aclose()
    assert isinstance(verdict, Valid)
    assert verdict.labels == {"sentiment": "negative"}
    assert verdict.enrichment["reason"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rate_limited", "retry_after_s": 2.5}, results.RateLimited(RateHeaders(retry_after_s=2.5))),
        ({"kind": "rate_limited_silent"}, results.RateLimited(SILENT)),
        ({"kind": "insufficient_quota"}, results.Misconfigured("insufficient_quota", "HTTP 429 insufficient_quota")),
        ({"kind": "server_error", "status": 503}, results.Failed("server_error", "HTTP 503 server_error")),
        ({"kind": "unauthorized"}, results.Misconfigured("key", "HTTP 401 invalid_api_key")),
        ({"kind": "content_refused"}, results.ContentRefused("HTTP 400 content_filter")),
        ({"kind": "content_refused", "code": "invalid_prompt"}, results.ContentRefused("HTTP 400 invalid_prompt")),
    ],
)
async def test_each_refusal_of_the_server_has_its_value(client, llm, fault, expected):
    """Foreign errors are translated here and nowhere else."""
    llm.admin("faults", fault)
    assert await client.ask(request(), 5.0) == expected


async def test_each_response_says_what_it_says_of_the_limits(client, llm):
    """An answer, a 429 and a server's error carry the limits as their headers tell them."""
    llm.admin("limits", {"requests_per_minute": 2, "tokens_per_minute": 60_000})
    answered = await client.ask(request(), 5.0)
    assert isinstance(answered, results.Answered)
    assert answered.headers.requests.limit_per_minute == 2
    assert answered.headers.requests.remaining == 1
    assert answered.headers.tokens.limit_per_minute == 60_000
    llm.admin("faults", {"kind": "server_error", "count": 1})
    failed = await client.ask(request(), 5.0)
    assert isinstance(failed, results.Failed)
    assert failed.headers.requests.limit_per_minute == 2
    await client.ask(request(), 5.0)
    refused = await client.ask(request(), 5.0)
    assert isinstance(refused, results.RateLimited)
    assert refused.headers.requests.remaining == 0
    assert 20 < (refused.headers.retry_after_s or 0.0) <= 30


async def test_a_call_that_no_minute_could_take_is_not_asked_again(client, llm):
    """OpenAI answers 429 to what is larger than the whole limit: waiting for it would stop everyone else for ever."""
    llm.admin("limits", {"requests_per_minute": 0, "tokens_per_minute": 100})
    refused = await client.ask(request(), 5.0)
    assert isinstance(refused, results.BadRequest)
    assert "too large" in refused.why


@pytest.mark.parametrize(
    ("kind", "cause"), [("hang", "timeout"), ("close", "disconnected"), ("close_midway", "disconnected")]
)
async def test_a_call_that_may_have_been_done_says_so(client, llm, kind, cause):
    """After a time-out or a connection lost in the middle the provider may charge: the budget must know."""
    llm.fault(kind)
    failed = await client.ask(request(), 0.5)
    assert isinstance(failed, results.Failed)
    assert (failed.cause, failed.maybe_paid) == (cause, True)


async def test_a_closed_port_is_unreachable_and_costs_nothing():
    """No connection, no charge; and it is told at once, not after the time-out."""
    claim = claim_port(9500)
    client = OpenAiClient(Endpoint(base_url=f"http://127.0.0.1:{claim.number}/v1"), connections_max=1)
    try:
        failed = await client.ask(request(), 5.0)
    finally:
        await client.aclose()
    assert isinstance(failed, results.Failed)
    assert (failed.cause, failed.maybe_paid) == ("unreachable", False)


async def test_a_page_that_is_no_completion_is_unusable(llm):
    """A proxy's page with status 200, or the wrong path, is no answer and no crash."""
    client = OpenAiClient(Endpoint(base_url=llm.base_url.removesuffix("/v1")), connections_max=1)
    try:
        assert await client.ask(request(), 5.0) == results.Misconfigured("model", "HTTP 404")
    finally:
        await client.aclose()
    assert clients._read(b"<html>", {}) == results.Unusable("the body is no chat completion")
    assert clients._read(b'{"choices": []}', {}) == results.Unusable("the completion has no choices")


@pytest.mark.parametrize(
    "kind", ["malformed_json", "off_schema_label", "empty", "truncated", "refusal", "content_filter"]
)
async def test_a_bad_answer_is_still_an_answer(client, llm, kind):
    """What the model says is for `answer` to judge; it is paid for, so its tokens count."""
    llm.fault(kind)
    answered = await client.ask(request(), 5.0)
    assert isinstance(answered, results.Answered)
    assert answered.input_tokens
    assert not isinstance(judge(request(), answered), Valid)


def test_the_key_comes_from_file_or_environment_or_is_missed(tmp_path):
    """Without a key a remote endpoint is refused before anything is consumed; a local one needs none."""
    file = tmp_path / "key"
    file.write_text(" from-file\n")
    remote = Endpoint(base_url="https://llm.example/v1")
    assert api_key(Endpoint(api_key_file=file), {}) == "from-file"
    assert api_key(remote, {"OPENAI_API_KEY": "from-env"}) == "from-env"
    assert api_key(Endpoint(base_url="http://127.0.0.1:1/v1"), {})
    with pytest.raises(SettingsError, match=r"no key for https://api\.openai\.com/v1") as raised:
        api_key(Endpoint(), {})
    assert "OPENAI_API_KEY" in str(raised.value.advice)
    with pytest.raises(SettingsError, match="cannot be read"):
        api_key(Endpoint(api_key_file=tmp_path / "absent"), {})
    file.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        api_key(Endpoint(api_key_file=file), {})
