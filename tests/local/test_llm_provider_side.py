"""The stand-in as a provider, over HTTP, by the real `openai` client: limits, headers, keys, money, exact logs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from stream_app.local.llm import admin
from stream_app.local.llm import calls as call_log
from stream_app.local.llm.calls import Call, CallLog, shown
from stream_app.local.llm.faults import FaultKind
from stream_app.local.llm.headers import HeaderStyle, go_duration
from stream_app.local.llm.limits import LimitKind
from stream_app.local.llm.options import StandInOptions, from_argv
from stream_app.local.llm.provider import TokenAdmission
from tests.local.llm_client import FORM, StandInClient, messages_about

ROOT = Path(__file__).parents[2]


async def flood(llm: StandInClient, number: int, **more: Any) -> list[Any]:
    """So many calls at once; what became of each."""
    return await asyncio.gather(*(llm.ask("fine", f"r-{n}", **more) for n in range(number)), return_exceptions=True)


async def refused(llm: StandInClient, **more: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await llm.ask("fine", **more)
    return caught.value


@pytest.mark.parametrize("kind", ["fixed_window", "sliding_log"])
async def test_no_window_in_the_log_holds_more_than_the_limit(llm: StandInClient, kind: str) -> None:
    """Strict over HTTP too: what the log says was let in within one window is the limit, and the rest is refused."""
    await llm.tell("limits", kind=kind, requests_per_minute=40)
    answers = await flood(llm, 100)
    calls = await llm.calls()
    windows = Counter(call["admitted_s"] // 60 for call in calls if call["admitted_s"])
    assert max(windows.values()) == 40
    assert {call["limited"] for call in calls if call["status"] == 429} == {"requests"}
    waits = [int(one.response.headers["retry-after-ms"]) for one in answers if isinstance(one, openai.RateLimitError)]
    last = calls[-1]
    if kind == "fixed_window":
        assert waits[-1] / 1000 == pytest.approx(60 - last["at_s"] % 60, abs=0.5)
    else:
        assert waits[-1] / 1000 == pytest.approx(calls[0]["admitted_s"] + 60 - last["at_s"], abs=0.5)


async def test_a_limit_is_cut_while_calls_come(llm: StandInClient) -> None:
    """A third of the limit from one call to the next, and what was taken stays taken."""
    await llm.tell("limits", kind="sliding_log", requests_per_minute=60, tokens_per_minute=100_000)
    await flood(llm, 30)
    await llm.tell("limits", requests_per_minute=20)
    said = (await refused(llm)).response.headers
    assert said["x-ratelimit-limit-requests"] == "20"
    assert said["x-ratelimit-remaining-requests"] == "0"
    assert said["x-ratelimit-limit-tokens"] == "100000", "what is not named stays"
    assert int(said["retry-after"]) > 50


async def test_token_admission_over_http(llm: StandInClient) -> None:
    """Reserved and kept, reserved and given back, or by use: the log has what was charged."""
    for admission in TokenAdmission:
        await llm.tell("reset")
        await llm.tell("limits", kind="sliding_log", tokens_per_minute=10_000, token_admission=admission)
        usage = (await llm.ask("fine", max_completion_tokens=5_000)).usage
        await llm.ask("fine", max_completion_tokens=1)
        first, second = await llm.calls()
        most = usage.prompt_tokens + 5_000
        assert first["reserved_tokens"] == (0 if admission == "use" else most)
        assert first["charged_tokens"] == (most if admission == "max_tokens" else usage.total_tokens)
        assert second["charged_requests"] == 1
        left = {"settled": 10_000 - first["charged_tokens"], "max_tokens": 10_000 - most}.get(admission, 10_000)
        if admission != "use":
            error = await refused(llm, max_completion_tokens=left)
            assert error.type == "tokens"


async def test_a_call_larger_than_the_limit_never_passes(llm: StandInClient) -> None:
    """It is told so, and not how long to wait."""
    await llm.tell("limits", kind="sliding_log", tokens_per_minute=1_000)
    error = await refused(llm, max_completion_tokens=2_000)
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "tokens")
    assert "too large" in error.message
    assert "retry-after" not in error.response.headers


async def test_headers_as_openai_sends_them(llm: StandInClient) -> None:
    """Limit, remaining and reset of both limits, on every answer, the reset as a Go duration."""
    await llm.tell("limits", kind="sliding_log", requests_per_minute=60, tokens_per_minute=9_000)
    raw = await llm.openai.chat.completions.with_raw_response.create(
        model="m", messages=messages_about("fine"), response_format=FORM
    )
    said = {name: value for name, value in raw.headers.items() if name.startswith("x-ratelimit")}
    assert said["x-ratelimit-limit-requests"] == "60"
    assert said["x-ratelimit-remaining-requests"] == "59"
    assert re.fullmatch(r"59(\.\d+)?s|1m0s", said["x-ratelimit-reset-requests"])
    assert said["x-ratelimit-limit-tokens"] == "9000"
    assert len(said) == 6


def test_go_durations() -> None:
    """As Go prints them, to the millisecond."""
    seconds = [0, 0.012, 0.9996, 1.5, 59.9996, 90, 360, 3600, 3661.25]
    assert [go_duration(one) for one in seconds] == [
        "0ms", "12ms", "1s", "1.5s", "1m0s", "1m30s", "6m0s", "1h0m0s", "1h1m1.25s"
    ]  # fmt: skip


AZURE = {
    "azure": {"limit": "60", "remaining": "0", "reset": "60"},
    "azure_remaining": {"remaining": "0"},
    "azure_minus_one": {"limit": "-1", "remaining": "-1", "reset": "0"},
    "azure_zero": {"limit": "0", "remaining": "0", "reset": "0"},
    "none": {},
}


@pytest.mark.parametrize("style", [style.value for style in HeaderStyle if style != "openai"])
@pytest.mark.parametrize("retry_after", [True, False])
async def test_headers_as_azure_sends_them_and_none(llm: StandInClient, style: str, retry_after: bool) -> None:
    """Whole seconds, odd values or nothing; `retry-after` only where it is set."""
    await llm.tell("limits", kind="sliding_log", requests_per_minute=60)
    await llm.tell("headers", style=style, retry_after=retry_after)
    await flood(llm, 60)
    error = await refused(llm)
    headers = error.response.headers
    prefix = "x-ratelimit-"
    said = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
    assert said.keys() == {f"{part}-requests" for part in AZURE[style]}
    assert {part: said[f"{part}-requests"] for part in ("limit", "remaining") if part in AZURE[style]} == {
        part: value for part, value in AZURE[style].items() if part != "reset"
    }
    if "reset" in AZURE[style]:
        assert int(AZURE[style]["reset"]) - int(said["reset-requests"]) in range(10)
    assert ("retry-after" in headers) == ("retry-after-ms" in headers) == retry_after
    assert ("again in" in error.message or "retry after" in error.message) == retry_after
    assert ("x-rate-limit-reset-requests" in headers) == (style == "azure_remaining")
    assert ("apim-request-id" in headers) == style.startswith("azure")
    assert error.code == ("429" if style.startswith("azure") else "rate_limit_exceeded")


async def test_keys_have_quotas_and_limits_of_their_own(llm: StandInClient) -> None:
    """One key's dollars are spent, another's requests; a third goes on. Azure's header names a key too."""
    await llm.tell("prices", usd_per_million_input=1_000, usd_per_million_output=2_000)
    await llm.tell("quotas", key="poor", usd=0.01)
    await llm.tell("limits", key="slow", kind="sliding_log", requests_per_minute=1)
    keys = {name: llm.openai.with_options(api_key=name) for name in ("poor", "slow", "rich")}

    async def ask(name: str) -> Any:
        return await keys[name].chat.completions.create(model="m", messages=messages_about("ok"), max_tokens=5)

    usage = (await ask("poor")).usage
    for name in ("slow", "rich", "rich"):
        await ask(name)
    with pytest.raises(openai.RateLimitError) as caught:
        await ask("poor")
    assert caught.value.code == "insufficient_quota"
    assert "retry-after" not in caught.value.response.headers
    with pytest.raises(openai.RateLimitError) as caught:
        await ask("slow")
    assert caught.value.code == "rate_limit_exceeded"
    account = await llm.account()
    cost = (usage.prompt_tokens * 1_000 + usage.completion_tokens * 2_000) / 1e6
    assert account["keys"]["poor"]["spent_usd"] == pytest.approx(cost, abs=1e-12)
    assert account["spent_usd"] == pytest.approx(4 * cost, abs=1e-12)
    assert [call["limited"] for call in await llm.calls()][4:] == ["quota", "requests"]
    await llm.tell("quotas", key="poor", usd=None)
    await ask("poor")


async def test_the_azure_client_works(llm: StandInClient) -> None:
    """At Azure's addresses, with its header for the key and its form of a refusal for content."""
    client = openai.AsyncAzureOpenAI(
        azure_endpoint=llm.base_url.removesuffix("/v1"), api_key="azure-key", api_version="2024-10-21", max_retries=0
    )
    async with client:
        answer = await client.chat.completions.create(model="my-deployment", messages=messages_about("great"))
        assert answer.choices[0].message.content == "positive"
        await llm.tell("faults", kind="content_refused_azure", count=1)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="my-deployment", messages=messages_about("great"))
    assert caught.value.code == "content_filter"
    assert caught.value.param == "prompt"
    inner = caught.value.body["innererror"]
    assert inner["code"] == "ResponsibleAIPolicyViolation"
    assert inner["content_filter_result"]["violence"] == {"filtered": True, "severity": "medium"}
    assert [call["key"] for call in await llm.calls()] == ["azure-key", "azure-key"]


async def test_an_errors_code_can_be_another(llm: StandInClient) -> None:
    """Providers name the same refusal differently: `invalid_prompt`, `content_policy_violation`."""
    await llm.tell("faults", kind="content_refused", count=1, code="invalid_prompt")
    assert (await refused(llm)).code == "invalid_prompt"


async def test_faults_mixed_by_share(llm: StandInClient) -> None:
    """A fifth of the events fails, each in one way and once: asked again, every one is answered."""
    mix = {"rate_limited": 0.08, "refusal": 0.06, "off_schema_label": 0.06}
    for kind, share in mix.items():
        await llm.tell("faults", kind=kind, share=share)
    await flood(llm, 400)
    await flood(llm, 400)
    calls = await llm.calls()
    hit = Counter(call["fault"] for call in calls)
    for kind, share in mix.items():
        assert hit[kind] / 400 == pytest.approx(share, abs=0.05)
    faulty = [call["event_id"] for call in calls if call["fault"]]
    assert len(faulty) == len(set(faulty))
    assert not any(call["fault"] for call in calls[400:])


async def test_latency_belongs_to_the_event(llm: StandInClient) -> None:
    """A slow event is slow in every run with the same seed; asked again, it is drawn anew."""
    slow = []
    for _ in range(2):
        await llm.tell("reset")
        await llm.tell("latency", median_ms=1, sigma=0, slow_share=0.1, slow_ms=400)
        await flood(llm, 60)
        slow.append({call["event_id"] for call in await llm.calls() if call["duration_s"] > 0.39})
        await flood(llm, 60)
    assert slow[0] == slow[1]
    assert 0 < len(slow[0]) < 20
    again = {call["event_id"] for call in (await llm.calls())[60:] if call["duration_s"] > 0.39}
    assert again != slow[0]


async def test_the_log_has_every_request_and_what_it_was_charged(llm: StandInClient) -> None:
    """Times by both clocks, key, event, status, tokens, charges and dollars; of refused and bad requests too."""
    await llm.tell("prices", usd_per_million_input=100, usd_per_million_output=200)
    await llm.tell("limits", kind="sliding_log", requests_per_minute=2)
    await llm.tell("latency", median_ms=50)
    usage = (await llm.ask("fine", "reviews/1")).usage
    with pytest.raises(openai.BadRequestError):
        await llm.openai.chat.completions.create(model="m", messages=[])
    await llm.ask("fine", "reviews/2")
    await refused(llm, event="reviews/3")
    log = await llm.admin("GET", "calls")
    good, bad, _, limited = log["calls"]
    assert [call["status"] for call in log["calls"]] == [200, 400, 200, 429]
    assert log["statuses"] == {"200": 2, "400": 1, "429": 1}
    assert (good["key"], good["event_id"], good["model"]) == ("none", "reviews/1", "some-model")
    assert (good["input_tokens"], good["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert good["output_tokens_max"] == 50
    assert good["reserved_tokens"] == usage.prompt_tokens + 50
    assert (good["charged_requests"], good["charged_tokens"]) == (1, usage.total_tokens)
    assert good["usd"] == pytest.approx((usage.prompt_tokens * 100 + usage.completion_tokens * 200) / 1e6)
    for clock in ("_s", "_monotonic_s"):
        assert good[f"at{clock}"] == good[f"admitted{clock}"] <= good[f"ended{clock}"] - 0.049
        assert limited[f"admitted{clock}"] is None
    assert good["ended_s"] - good["at_s"] == pytest.approx(good["duration_s"])
    for call in (bad, limited):
        assert (call["charged_requests"], call["charged_tokens"], call["usd"]) == (0, 0, 0)
    newer = await llm.admin("GET", f"calls?since={limited['number']}")
    assert newer["calls"] == [limited]
    assert newer["next"] == limited["number"] + 1


def test_the_reference_names_everything() -> None:
    """docs/stand-in.md has every flag, route, fault, header style and field of a call."""
    text = (ROOT / "docs" / "stand-in.md").read_text()
    flags = {part.split("=")[0] for part in StandInOptions().to_argv()}
    routes = re.findall(r"^(?:GET|POST|DELETE)\s+/admin/\w+", admin.__doc__ or "", re.MULTILINE)
    assert len(routes) == 10
    fields = Call(1, 1.0, "k").as_json(0.0)
    names = [*fields, *FaultKind, *HeaderStyle, *LimitKind, *TokenAdmission, *flags, "--replay", "--replay-name"]
    assert [name for name in names if f"`{name}`" not in text and f"`{name} " not in text] == []
    assert [route for route in routes if " ".join(route.split()) not in text] == []


async def test_what_is_in_flight_is_reserved(llm: StandInClient) -> None:
    """A call in the air stands in the account with the most it can cost; one that its client left is paid for."""
    await llm.tell("prices", usd_per_million_input=0, usd_per_million_output=1_000)
    await llm.tell("faults", kind="hang", count=1)
    call = asyncio.create_task(llm.ask("fine", max_completion_tokens=2_000))
    while not (account := await llm.account())["in_flight"]:
        await asyncio.sleep(0.02)
    assert (account["spent_usd"], account["reserved_usd"]) == (0, 2)
    call.cancel()
    while (account := await llm.account())["in_flight"]:
        await asyncio.sleep(0.02)
    assert account["reserved_usd"] == 0
    assert 0 < account["spent_usd"] < 0.1
    assert account["spent_and_reserved_max_usd"] == 2
    (left,) = await llm.calls()
    assert (left["status"], left["usd"]) == (-1, account["spent_usd"])


async def test_a_reset_leaves_calls_in_the_air_behind(llm: StandInClient) -> None:
    """What began before a reset ends in the books of before."""
    await llm.tell("latency", median_ms=300)
    call = asyncio.create_task(llm.ask("fine"))
    while not (await llm.account())["in_flight"]:
        await asyncio.sleep(0.02)
    await llm.tell("reset")
    await call
    log = await llm.admin("GET", "calls")
    assert (log["total"], log["in_flight"], log["statuses"], log["calls"]) == (0, 0, {}, [])
    assert (await llm.account())["admitted"] == 0
    await llm.ask("fine")
    assert [one["number"] for one in await llm.calls()] == [log["next"]], "numbers go on"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("limits", {"kind": "leaky"}),
        ("limits", {"requests": 3}),
        ("limits", {"requests_per_minute": -3}),
        ("limits", {"requests_per_minute": 0.5}),
        ("limits", {"requests_per_minute": "60"}),
        ("headers", {"style": "anthropic"}),
        ("latency", {"median_ms": -1}),
        ("latency", {"sigma": 1}),
        ("faults", {"kind": "refusal", "share": 1.5}),
        ("quotas", {"usd": 3}),
        ("limits", [1]),
    ],
)
async def test_what_cannot_be_is_refused(llm: StandInClient, path: str, body: Any) -> None:
    """The admin side answers 400 and the reason, and changes nothing."""
    async with aiohttp.ClientSession() as session:
        address = llm.base_url.removesuffix("/v1") + f"/admin/{path}"
        async with session.post(address, json=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]
    await llm.ask("fine")


def test_the_list_is_bounded_and_the_sums_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest calls are kept; a reader that comes too late sees from `first` that it has missed some."""
    monkeypatch.setattr(call_log, "KEPT_MAX", 10)
    log = CallLog(last=5)
    for number in range(6, 31):
        log.open(call := Call(number, float(number), "k"))
        log.close(call, 200, number + 1.0)
    told = log.as_json(8, 0.0)
    assert (told["total"], told["statuses"], told["first"], told["next"]) == (25, {"200": 25}, 21, 31)
    assert [call["number"] for call in told["calls"]] == list(range(21, 31))
    assert [call["number"] for call in log.as_json(28, 0.0)["calls"]] == [28, 29, 30]
    assert log.as_json(10**12, 0.0)["calls"] == []


def test_a_long_key_is_not_shown() -> None:
    """A key that may be real does not stand in the list."""
    assert shown("test-key") == "test-key"
    assert shown("sk-" + "x" * 40 + "wxyz") == "sk-…wxyz"


def test_flags_and_value_are_the_same(tmp_path: Path) -> None:
    """Every option survives the command line."""
    options = StandInOptions(
        latency_median_ms=5.5,
        latency_slow_share=0.01,
        latency_slow_ms=9_000,
        limit_kind=LimitKind.SLIDING_LOG,
        burst_s=1.0,
        requests_per_minute=60,
        tokens_per_minute=7_000,
        token_admission=TokenAdmission.USE,
        key_requests_per_minute=3,
        key_tokens_per_minute=4,
        key_quota_usd=0.25,
        usd_per_million_input=0.15,
        usd_per_million_output=0.6,
        headers=HeaderStyle.AZURE_MINUS_ONE,
        retry_after=False,
        replay=tmp_path / "r.jsonl",
        replay_names=("a", "b"),
        seed=3,
    )
    assert from_argv([*options.to_argv(), "--port=1234"]) == (1234, options)
    assert from_argv(StandInOptions().to_argv())[1] == StandInOptions()
