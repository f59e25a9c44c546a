"""A live evaluation against the stand-in LLM: what is asked, in which order, for how much, and what stops it.

Scores are given directly where Triton is not the point; the calls are the real client's, over HTTP.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stream_app.cli.live_asking import LiveAsking, Stopped
from stream_app.cli.live_questions import LiveRow, Questions, Variant, estimated, live_rows
from stream_app.cli.live_shown import verdict
from stream_app.escalate.client import OpenAiClient
from stream_app.escalate.prices import Price, price_of
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.routing.decide import TaskRouter, Tier
from stream_app.routing.models import Scores, ServedModel
from stream_app.settings import Settings
from stream_app.training.compared import Against
from stream_app.training.paired import Paired
from stream_app.training.recorded import RecordedRow
from stream_app.training.scoring import route_scored
from tests.conftest import run_apart
from tests.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_app.cli.live_asking import Measured

THREE = ("negative", "neutral", "positive")
UNSURE = {"negative": 0.45, "neutral": 0.005, "positive": 0.545}
"""The neutral label falls to pruning."""
PRICE = Price(1_000.0, 2_000.0)
"""A tenth of a cent a token: a few calls are dollars."""
FIRST_S = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """The stand-in's process, for these tests."""
    running = LlmServer(tmp_path_factory.mktemp("llm") / "llm.log", StandInOptions(latency_median_ms=5))
    run_apart(running.start())
    yield StandIn(running.base_url)
    run_apart(running.process.stop())


@pytest.fixture
def llm(server: StandIn) -> StandIn:
    """The stand-in as it was at the start."""
    server.admin("reset")
    return server


def settings_of(base_url: str, **llm: Any) -> Settings:
    """A pipeline of one task whose endpoint is at `base_url`, its limits wide."""
    endpoint = {"base_url": base_url, "requests_per_minute": 60_000, "tokens_per_minute": 60_000_000}
    endpoint |= {"usd_per_million_input": PRICE.usd_per_million_input}
    endpoint |= {"usd_per_million_output": PRICE.usd_per_million_output}
    tasks = [{"name": "sentiment", "labels": list(THREE), "tiers": ["small"], "threshold": 0.9}]
    return Settings.model_validate({"tasks": tasks, "llm": {"output_tokens_max": 30, **llm, "endpoints": [endpoint]}})


def router_of(labels: tuple[str, ...] = THREE) -> TaskRouter:
    """One tier that accepts from 0.9 on."""
    tier = Tier((ServedModel("small", "1", labels, "0" * 64, 1024),), (1.0,), 0.9)
    return TaskRouter("sentiment", labels, (), (tier,), True, None, "p@1", 0.0, None)


def rows_of(settings: Settings, texts: Sequence[str], router: TaskRouter, **scored: Any) -> list[LiveRow]:
    """The rows that are escalated, all unsure unless `sure` names them."""
    chances = [UNSURE[label] for label in router.labels]
    table = np.array([chances] * len(texts), np.float32)
    for place in scored.get("sure", ()):
        table[place] = np.eye(len(router.labels), dtype=np.float32)[0]
    table /= table.sum(axis=1, keepdims=True)
    routed = route_scored(router, texts, {"small": Scores(table, np.ones(len(texts), np.float32))})
    labelled = [RecordedRow(id=f"r{place}", text=text, label="positive") for place, text in enumerate(texts)]
    return live_rows(settings, router, "p@1", labelled, routed)


async def ask(
    settings: Settings,
    rows: Sequence[LiveRow],
    router: TaskRouter,
    *,
    usd_max: float = 1e6,
    variants: Sequence[Variant] = tuple(Variant),
    stop: asyncio.Event | None = None,
) -> Measured:
    """One run with the real client."""
    endpoint = settings.llm.endpoints[0]
    client = OpenAiClient(endpoint, connections_max=settings.llm.max_in_flight)
    try:
        asking = LiveAsking(settings, client, price_of(endpoint), Questions(settings, router, variants), usd_max)
        return await asking.run(rows, stop or asyncio.Event(), lambda _count: None)
    finally:
        await client.aclose()


def billed_usd(llm: StandIn) -> float:
    """What the provider would put on the bill."""
    calls = llm.calls()
    tokens = [sum(call[name] for call in calls) for name in ("input_tokens", "output_tokens")]
    return PRICE.cost_nusd(*tokens) / 1e9


TEXTS = [f"Item {place}: I like the handle, but the lid is bad." for place in range(12)]


async def test_escalated_rows_are_asked_in_every_variant_before_the_next(llm: StandIn) -> None:
    """Accepted rows cost nothing; the others come in their order, each in all variants; nothing else is asked."""
    settings, router = settings_of(llm.base_url, max_in_flight=3), router_of()
    rows = rows_of(settings, TEXTS, router, sure=(2, 7))
    assert [row.place for row in rows] == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
    rows.reverse()
    found = await ask(settings, rows, router)
    assert (found.stopped, len(found.rows)) == (None, 10)
    events = [call["event_id"] for call in llm.calls()]
    assert events == [row.event.id for row in rows for _ in Variant]
    assert all(set(row.by_variant) == set(Variant) for row in found.rows)


def test_variants_are_rendered_as_the_worker_would(llm: StandIn) -> None:
    """Plain: every label, no hint. Hint: with it. Pruned: what the small model has ruled out is not asked."""
    settings, router = settings_of(llm.base_url, prune=False), router_of()
    (row,) = rows_of(settings, TEXTS[:1], router)
    plain, hint, pruned = Questions(settings, router, tuple(Variant)).of(row).values()
    assert plain.allowed == hint.allowed == {"sentiment": THREE}
    assert pruned.allowed == {"sentiment": ("negative", "positive")}
    assert "probabilities" not in plain.system
    assert '"neutral" 0.0' in hint.system
    assert '"positive" 0.5' in pruned.system
    assert "neutral" not in pruned.system


async def test_the_same_question_is_paid_once(llm: StandIn) -> None:
    """With two labels pruning removes nothing, and a text may stand twice: one call each, and the same figures."""
    router = router_of(("negative", "positive"))
    settings = settings_of(llm.base_url)
    texts = [*TEXTS[:4], *TEXTS[:2]]
    found = await ask(settings, rows_of(settings, texts, router), router)
    assert len(found.rows) == 6
    assert found.calls == len(llm.calls()) == 4 * 2, "plain, and hint and pruned together"
    assert all(row.by_variant["hint"] == row.by_variant["pruned"] for row in found.rows)
    assert found.paid_usd == pytest.approx(billed_usd(llm))
    estimate = estimated(Questions(settings, router, tuple(Variant)), rows_of(settings, texts, router), PRICE, "m")
    assert estimate.requests == 8


@pytest.mark.parametrize("in_flight", [3, 60])
@pytest.mark.parametrize("usd_max", [11.0, 11.7, 12.4, 20.0])
async def test_the_cap_holds_on_the_providers_account(llm: StandIn, in_flight: int, usd_max: float) -> None:
    """The run ends before the cap is passed, with whole rows only, and the cap is used as far as rows fit."""
    settings, router = settings_of(llm.base_url, max_in_flight=in_flight), router_of()
    rows = rows_of(settings, [f"{text} Number {n}." for n in range(20) for text in TEXTS], router)
    found = await ask(settings, rows, router, usd_max=usd_max)
    assert found.stopped is Stopped.CAP
    assert 0 < len(found.rows) < len(rows)
    assert found.calls == len(llm.calls()) == 3 * len(found.rows)
    assert billed_usd(llm) == pytest.approx(found.paid_usd)
    assert usd_max / 4 < found.paid_usd <= usd_max


@pytest.mark.parametrize("calls", [1.0, 1.2])
async def test_a_retry_that_the_cap_does_not_cover_ends_the_run(llm: StandIn, calls: float) -> None:
    """An answer that broke its form is asked for again only while there is money: nobody waits for the next hour."""
    settings, router = settings_of(llm.base_url), router_of()
    rows = rows_of(settings, TEXTS, router)[:1]
    request = Questions(settings, router, (Variant.PLAIN,)).of(rows[0])[Variant.PLAIN]
    usd_max = calls * PRICE.cost_nusd(request.input_tokens_max, request.output_tokens_max) / 1e9
    llm.fault("malformed_json")
    found = await ask(settings, rows, router, usd_max=usd_max, variants=(Variant.PLAIN,))
    assert (found.stopped, len(found.rows)) == (Stopped.CAP, 0)
    assert 0 < billed_usd(llm) <= usd_max


async def test_refusals_and_no_answers_are_outcomes(llm: StandIn) -> None:
    """A refusal is asked once and counts as one; an answer that is off its form twice is no answer."""
    settings, router = settings_of(llm.base_url, max_in_flight=1), router_of()
    llm.fault("refusal", count=1)
    llm.fault("malformed_json", count=2)
    found = await ask(settings, rows_of(settings, TEXTS[:3], router), router, variants=(Variant.PLAIN,))
    assert sorted(row.by_variant["plain"].outcome for row in found.rows) == ["answered", "no_answer", "refused"]
    assert len(llm.calls()) == 4
    paid = [row.by_variant["plain"].usd for row in found.rows]
    assert sum(paid) == pytest.approx(billed_usd(llm)), "what was paid in vain is part of the price"


async def test_an_endpoint_that_turns_the_key_away_is_not_asked_on(llm: StandIn) -> None:
    """The run ends at once, and says what the endpoint said."""
    settings, router = settings_of(llm.base_url, max_in_flight=3), router_of()
    llm.fault("unauthorized")
    async with asyncio.timeout(FIRST_S):
        found = await ask(settings, rows_of(settings, TEXTS, router), router)
    assert (found.stopped, found.answers, found.rows) == (Stopped.OUTAGE, 0, [])
    assert found.problem is not None
    assert "invalid_api_key" in found.problem
    assert len(llm.calls()) <= 3


async def test_a_stop_keeps_what_was_measured(llm: StandIn) -> None:
    """Calls under way are left; only rows asked in every variant count; the price of a left call is its worst."""
    settings, router, stop = settings_of(llm.base_url, max_in_flight=3), router_of(), asyncio.Event()
    llm.latency(100, 0)
    rows = rows_of(settings, TEXTS, router)
    running = asyncio.create_task(ask(settings, rows, router, stop=stop))
    async with asyncio.timeout(FIRST_S):
        while len(await asyncio.to_thread(llm.calls)) < 5:
            await asyncio.sleep(0.01)
        stop.set()
        found = await running
    assert found.stopped is Stopped.INTERRUPTED
    assert 1 <= len(found.rows) < len(rows)
    assert all(set(row.by_variant) == set(Variant) for row in found.rows)
    assert found.paid_usd >= billed_usd(llm)


async def test_the_cap_holds_through_faults(llm: StandIn) -> None:
    """Answers off their form, cut ones and server errors are paid for or not: the bill is never over the cap."""
    settings, router = settings_of(llm.base_url, max_in_flight=24), router_of()
    for kind in ("malformed_json", "truncated", "server_error", "off_schema_label"):
        llm.fault(kind, count=4)
    rows = rows_of(settings, [f"{text} Number {n}." for n in range(20) for text in TEXTS], router)
    found = await ask(settings, rows, router, usd_max=20.0)
    assert found.stopped is Stopped.CAP
    assert 0 < billed_usd(llm) <= found.paid_usd <= 20.0


def worth(variant: str, baseline: str, right: Paired, **other: Any) -> str:
    """The line about a comparison that saves a cent of four."""
    saved: dict[str, Any] = {
        "usd_saved": 0.01,
        "usd_saved_share": 0.25,
        "tokens_saved": 120.0,
        "same_questions": False,
    }
    return verdict(Against(variant, baseline, right, **{**saved, **other}))


def test_verdicts_are_one_line_each() -> None:
    """What is told, what is not and how many rows it lacks, what costs more, what was the same question."""
    told = worth("hint", "plain", Paired(1_000, 0.008, 0.001, 0.015, None))
    assert told == "the hint is worth +0.8 points (+0.1 to +1.5); saves 120 tokens a call, $0.0100 (25.0%) less"
    lost = worth(
        "pruned",
        "plain",
        Paired(1_000, -0.02, -0.03, -0.01, None),
        usd_saved=-0.01,
        usd_saved_share=-0.25,
        tokens_saved=-9,
    )
    assert lost == (
        "hint and pruning together are worth -2.0 points (-3.0 to -1.0); takes 9 tokens a call, $0.0100 (25.0%) more"
    )
    few = worth("pruned", "hint", Paired(100, 0.04, -0.05, 0.13, 377), usd_saved_share=None)
    assert few == (
        "pruning: +4.0 points (-5.0 to +13.0), too few rows to tell: about 377 more would be needed at this "
        "difference; saves 120 tokens a call"
    )
    assert worth("hint", "plain", Paired(9, 0.0, 0.0, 0.0, None)).startswith("the hint: none of 9 rows came out diff")
    assert "(-1.0 to +1.0)" in worth("hint", "plain", Paired(9, 0.0, -0.01, 0.01, None))
    same = worth("pruned", "hint", Paired(9, 0.0, 0.0, 0.0, None), same_questions=True)
    assert same == "pruning: pruned and hint asked the same questions, nothing to compare"
