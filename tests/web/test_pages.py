"""What the web server answers, over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from stream_app.telemetry import Metrics
from stream_app.web.live import LiveView
from stream_app.web.pages import Pages, page
from tests.web.folding import NOW_MS, dead_letter, decision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Served:
    """Pages on a free port, with the metrics and the view behind them."""

    def __init__(self, *, live: bool = True) -> None:
        self.metrics = Metrics()
        self.stopping = False
        self.view = LiveView("reviews", 5.0, "gpt-4o-mini")
        self.url = ""
        self._pages = Pages(
            self.metrics,
            ("feeds",) if live else ("classify",),
            lambda: self.stopping,
            (lambda _now_ms: self.view.snapshot(NOW_MS)) if live else None,
        )

    async def start(self) -> web.AppRunner:
        app = web.Application()
        self._pages.add_to(app)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def get(self, path: str) -> tuple[int, str, aiohttp.typedefs.LooseHeaders]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text(), answer.headers


@pytest.fixture
async def feeds() -> AsyncIterator[Served]:
    served = Served()
    runner = await served.start()
    yield served
    await runner.cleanup()


@pytest.fixture
async def lane() -> AsyncIterator[Served]:
    served = Served(live=False)
    runner = await served.start()
    yield served
    await runner.cleanup()


async def test_health_and_readiness_follow_the_lane(lane: Served) -> None:
    """Alive at once, ready after the join, unready while draining; the reason is in the answer."""
    assert (await lane.get("/health"))[0] == 200
    status, text, _ = await lane.get("/ready")
    assert status == 503
    assert "has not joined" in text
    lane.metrics.partitions_owned("classify", 2)
    lane.metrics.committed("classify", 0, 5)
    assert (await lane.get("/ready"))[0] == 200
    lane.stopping = True
    assert (await lane.get("/ready"))[0] == 503
    assert (await lane.get("/health"))[0] == 200


async def test_metrics_are_prometheus_text(lane: Served) -> None:
    """Prometheus decides by the content type how to read them."""
    lane.metrics.records("classify", 3)
    status, text, headers = await lane.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert 'shunt_records_total{lane="classify"} 3.0' in text


async def test_a_lane_has_no_live_page(lane: Served) -> None:
    """The page is the feeds worker's; a lane names what it has instead."""
    status, text, _ = await lane.get("/")
    assert status == 200
    assert "/metrics" in text
    assert (await lane.get("/api/live"))[0] == 404


async def test_the_page_takes_nothing_from_elsewhere(feeds: Served) -> None:
    """It works without the internet: no address but this worker's, in the page or allowed by its policy."""
    status, html, headers = await feeds.get("/")
    assert status == 200
    outside = [url for url in re.findall(r"https?://[^\s\"'<>)]+", html) if not url.startswith("http://www.w3.org/")]
    assert outside == []
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


async def test_the_figures_are_json_and_never_cached(feeds: Served) -> None:
    """The page polls; a proxy must not answer for the worker."""
    feeds.view.decided(decision(NOW_MS - 1_000, event_id="<script>alert(1)</script>"))
    feeds.view.dead(dead_letter(message="</script><script>alert(2)</script>"), NOW_MS)
    status, text, headers = await feeds.get("/api/live")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert '"decisions":[{"id":"<script>alert(1)</script>"' in text


def test_the_page_writes_no_markup_from_data() -> None:
    """What comes from events is set as text: none of the ways to parse markup stands in the page's script."""
    html, _ = page()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", 'setAttribute("on'):
        assert way not in html
