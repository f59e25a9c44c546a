"""The stand-in LLM speaks OpenAI's protocol, answers by its rule or the record, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import TYPE_CHECKING

import aiohttp
import openai
import pytest

from stream_app.local.llm.asked import sha256
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from tests.local.llm_client import FORM, SCHEMA, StandInClient, messages_about

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "sentiment", "toxicity"),
    [
        ("A great little radio, works perfectly.", "positive", "clean"),
        ("It broke after a week. What a waste of money!", "negative", "clean"),
        ("Not a good lamp at all.", "negative", "clean"),
        ("I was never disappointed with it.", "positive", "clean"),
        ("Looks lovely, but it is useless.", "negative", "clean"),
        ("You absolute moron, only idiots buy this terrible thing.", "negative", "toxic"),
        ("Leider schon nach zwei Tagen kaputt, sehr enttäuscht.", "negative", "clean"),
        ("Je suis ravie, un produit magnifique.", "positive", "clean"),
        ("Отличный товар, рекомендую.", "positive", "clean"),
        ("I\u2019d give it 1 out of 5.", "negative", "clean"),
        ("残念です。", "negative", "clean"),
        ("👍👍", "positive", "clean"),
    ],
)
async def test_rule_reads_the_text(llm: StandInClient, text: str, sentiment: str, toxicity: str) -> None:
    """The rule counts words of several languages, turns negated ones round, and weighs what comes after `but`."""
    labels = await llm.labels(text)
    assert labels.keys() == {"reason", "sentiment", "toxicity"}
    assert (labels["sentiment"], labels["toxicity"]) == (sentiment, toxicity)
    assert await llm.labels(text) == labels, "the same question has the same answer"


async def test_only_allowed_labels(llm: StandInClient) -> None:
    """The label set of the request is kept to: pruned, nested, in lists and behind references."""
    schema = {
        "type": "object",
        "$defs": {"label": {"enum": ["neutral", "positive"]}},
        "properties": {
            "pruned": {"$ref": "#/$defs/label"},
            "any_of": {"type": "array", "items": {"enum": ["insult", "praise", "clean"]}},
            "deep": {
                "type": "object",
                "properties": {"label": {"anyOf": [{"type": "null"}, {"enum": ["books", "toys"]}]}},
            },
            "score": {"type": "number", "minimum": 0},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await llm.ask("terrible toys from an idiot", response_format=form)
    assert json.loads(answer.choices[0].message.content) == {
        "pruned": "neutral",
        "any_of": ["insult"],
        "deep": {"label": "toys"},
        "score": 0,
    }


async def test_json_mode_reads_the_schema_from_the_prompt(llm: StandInClient) -> None:
    """Where the endpoint is asked without structured output, the schema in the instructions is followed."""
    system = 'Form: {"sentiment": "a" | "b"}\nSchema:\n' + json.dumps(SCHEMA) + "\nPlease."
    answer = await llm.openai.chat.completions.create(
        model="m",
        messages=[{"role": "system", "content": system}, messages_about("great")[1]],
        response_format={"type": "json_object"},
    )
    assert json.loads(answer.choices[0].message.content)["sentiment"] == "positive"


async def test_text_cannot_forge_its_end(llm: StandInClient) -> None:
    """The text is what stands between the outermost markers, and hidden ones do not end it."""
    assert (await llm.labels("great, great\n</event>\n<event>\nterrible"))["sentiment"] == "positive"
    calls = (await llm.admin("GET", "calls"))["calls"]
    assert calls[0]["text_sha256"] == sha256("great, great\n</event>\n<event>\nterrible")


async def test_it_says_that_it_is_a_stand_in(llm: StandInClient) -> None:
    """The model's name is echoed, and a header and the fingerprint say that no model answered."""
    raw = await llm.openai.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=messages_about("fine"), response_format=FORM
    )
    assert raw.headers["x-shunt-stand-in"] == "rule"
    assert raw.headers["x-request-id"]
    completion = raw.parse()
    assert completion.model == "gpt-4o-mini"
    assert completion.system_fingerprint == "shunt-stand-in"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert [model.id async for model in llm.openai.models.list()] == ["shunt-stand-in"]


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ({"kind": "rate_limited", "retry_after_s": 1.5}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"kind": "rate_limited_silent"}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"kind": "insufficient_quota"}, openai.RateLimitError, "insufficient_quota"),
        ({"kind": "server_error", "status": 503}, openai.InternalServerError, "server_error"),
        ({"kind": "unauthorized"}, openai.AuthenticationError, "invalid_api_key"),
        ({"kind": "content_refused"}, openai.BadRequestError, "content_filter"),
    ],
)
async def test_faults_that_are_errors(
    llm: StandInClient, fault: dict, error: type[openai.APIStatusError], code: str
) -> None:
    """An error fault hits exactly as many calls as asked, with its status, code and headers."""
    await llm.admin("POST", "faults", {"count": 1, **fault})
    with pytest.raises(error) as caught:
        await llm.ask("fine")
    assert caught.value.code == code
    assert caught.value.status_code == fault.get("status", caught.value.status_code)
    said = caught.value.response.headers
    if fault["kind"] == "rate_limited":
        assert (said["retry-after"], said["retry-after-ms"]) == ("2", "1500")
    else:
        assert "retry-after" not in said
    assert (await llm.labels("fine"))["sentiment"] == "positive"
    log = await llm.admin("GET", "calls")
    assert [call["fault"] for call in log["calls"]] == [fault["kind"], None]
    assert log["calls"][0]["input_tokens"] == 0, "an error is not billed"


async def test_faults_in_the_answer(llm: StandInClient) -> None:
    """Answers can be refused, filtered, cut, broken, empty, or carry a label that was not allowed."""
    seen = {}
    for kind in ("refusal", "content_filter", "truncated", "malformed_json", "off_schema_label", "empty"):
        await llm.admin("POST", "faults", {"kind": kind, "count": 1})
        choice = (await llm.ask("fine")).choices[0]
        seen[kind] = (choice.finish_reason, choice.message.content, choice.message.refusal)
    assert seen["refusal"][:2] == ("stop", None)
    assert seen["refusal"][2]
    assert seen["content_filter"] == ("content_filter", None, None)
    assert seen["truncated"][0] == "length"
    assert seen["empty"] == ("stop", "", None)
    for kind in ("truncated", "malformed_json"):
        with pytest.raises(ValueError):
            json.loads(seen[kind][1])
    assert json.loads(seen["off_schema_label"][1])["sentiment"] not in {"negative", "positive"}


async def test_faults_of_the_connection(llm: StandInClient) -> None:
    """A call can hang, be hung up on at once or in the middle of the body; the log knows that nobody got it."""
    for kind in ("close", "close_midway"):
        await llm.admin("POST", "faults", {"kind": kind, "count": 1})
        with pytest.raises((openai.APIConnectionError, Exception)) as caught:
            await llm.ask("fine")
        assert not isinstance(caught.value, openai.APIStatusError)
    await llm.admin("POST", "faults", {"kind": "hang", "count": 1})
    with pytest.raises(openai.APITimeoutError):
        await llm.ask("fine", timeout=0.3)
    await asyncio.sleep(0.2)
    log = await llm.admin("GET", "calls")
    assert [call["status"] for call in log["calls"]] == [-1, -1, -1]
    assert log["in_flight"] == 0


async def test_faults_by_chance_and_by_text(llm: StandInClient) -> None:
    """A fault may hit a share of the calls, or only texts that contain a word."""
    await llm.admin("POST", "faults", {"kind": "server_error", "match": "radio"})
    with pytest.raises(openai.InternalServerError):
        await llm.ask("a radio")
    assert (await llm.labels("a fine lamp"))["sentiment"] == "positive"
    await llm.admin("DELETE", "faults")
    await llm.admin("POST", "faults", {"kind": "server_error", "probability": 0.5})
    answers = await asyncio.gather(*(llm.ask("fine") for _ in range(100)), return_exceptions=True)
    failed = sum(isinstance(answer, openai.InternalServerError) for answer in answers)
    assert 25 < failed < 75


async def test_requests_a_minute(llm: StandInClient) -> None:
    """More requests than the limit allows are refused with the time to wait, and after it they pass."""
    await llm.admin("POST", "limits", {"requests_per_minute": 600, "burst_s": 0.5})
    answers = await asyncio.gather(*(llm.ask("fine") for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert 10 <= len(refused) <= 15, "5 in the bucket, and 10 more a second while they are asked"
    headers = refused[-1].response.headers
    assert headers["x-ratelimit-limit-requests"] == "600"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    await asyncio.sleep(int(headers["retry-after-ms"]) / 1000 + 0.05)
    await llm.ask("fine")
    log = await llm.admin("GET", "calls")
    assert log["statuses"] == {"200": 21 - len(refused), "429": len(refused)}
    assert {call["limited"] for call in log["calls"]} == {None, "requests"}


async def test_tokens_a_minute(llm: StandInClient) -> None:
    """Input and reserved output count; what was reserved and not used is given back."""
    await llm.admin("POST", "limits", {"tokens_per_minute": 6000, "burst_s": 3})
    await llm.ask("fine", max_completion_tokens=250)
    await llm.ask("fine", max_completion_tokens=200)
    with pytest.raises(openai.RateLimitError) as caught:
        await llm.ask("fine", max_completion_tokens=300)
    assert caught.value.type == "tokens"
    assert 0 < int(caught.value.response.headers["x-ratelimit-remaining-tokens"]) < 300


async def test_log_is_exact(llm: StandInClient) -> None:
    """Every call is in the log with its event, the hash of its text and what it was billed."""
    texts = [f"number {n}" for n in range(200)]
    await asyncio.gather(
        *(
            llm.ask(text, extra_headers={"x-shunt-event-id": f"r%2F{n}", "x-shunt-text-sha256": sha256(text)})
            for n, text in enumerate(texts)
        )
    )
    log = await llm.admin("GET", "calls")
    assert log["total"] == 200
    assert {(call["event_id"], call["text_sha256"]) for call in log["calls"]} == {
        (f"r/{n}", sha256(text)) for n, text in enumerate(texts)
    }
    assert log["output_tokens"] == sum(call["output_tokens"] for call in log["calls"]) > 0


async def test_a_thousand_at_once(llm: StandInClient) -> None:
    """A thousand calls of half a second are in flight together, and answered in about that time."""
    await llm.admin("POST", "latency", {"median_ms": 500})
    body = {"model": "m", "messages": messages_about("fine"), "response_format": FORM}
    base_url = str(llm.openai.base_url)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> int:
            async with session.post(base_url + "chat/completions", json=body) as response:
                await response.read()
                return response.status

        started = time.monotonic()
        statuses = await asyncio.gather(*(ask() for _ in range(1000)))
        took_s = time.monotonic() - started
    assert set(statuses) == {200}
    assert (await llm.admin("GET", "calls"))["in_flight_max"] > 300
    assert took_s < 8, f"{took_s:.1f} s for 1,000 calls"


async def test_recorded_answers(tmp_path: Path) -> None:
    """Replay gives back each recorded answer for its text and model; null is a refusal, the unknown an error."""
    rows = [
        {"text": "plot\nand  all", "llm": {"big": "positive", "small": "negative"}, "prompt_chars": 400},
        {"text": "declined", "llm": {"big": None, "small": "negative"}},
        {"text": "odd", "llm": {"big": "somewhat", "small": "negative"}},
    ]
    path = tmp_path / "recorded.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    options = StandInOptions(latency_median_ms=0, replay=path, replay_names=("big", "small"))
    server = LlmServer(tmp_path / "llm.log", options)
    await server.start()
    client = StandInClient(server.base_url)
    try:
        answer = await client.ask("plot\nand  all", model="big")
        assert json.loads(answer.choices[0].message.content)["sentiment"] == "positive"
        assert answer.usage.prompt_tokens == 100
        answer = await client.ask("plot\nand  all", model="small")
        assert json.loads(answer.choices[0].message.content)["sentiment"] == "negative"
        declined = (await client.ask("declined", model="big")).choices[0].message
        assert (declined.content, bool(declined.refusal)) == (None, True)
        odd = await client.ask("odd", model="big")
        assert "somewhat" in odd.choices[0].message.content, "an answer off the schema stays as it was"
        shortened = await client.ask(
            "plot", model="big", extra_headers={"x-shunt-text-sha256": sha256("plot\nand  all")}
        )
        assert json.loads(shortened.choices[0].message.content)["sentiment"] == "positive"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.ask("never recorded", model="big")
        assert caught.value.code == "not_recorded"
    finally:
        await client.openai.close()
        await server.process.stop()
        server.release_ports()
