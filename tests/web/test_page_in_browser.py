"""The live page in a real browser: it draws what it is told, and hostile ids stay text."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from stream_app.telemetry import Metrics
from stream_app.web.live import LiveView
from stream_app.web.pages import Pages
from tests.web.folding import dead_letter, decision

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
)

HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


def filled_view(now_ms: int) -> LiveView:
    view = LiveView("reviews", 5.0, "gpt-4o-mini")
    view.stand_in = True
    view.lag.update(classify=3, escalate=14)
    for offset in range(100):
        view.decided(decision(now_ms - 3_000 + offset, offset=offset, payload=b'{"product": "Copper kettle"}'))
    view.escalated(now_ms - 3_000)
    view.decided(decision(now_ms - 2_000, offset=100, decided_by="llm", took_ms=800, cost_usd=0.0004))
    view.decided(decision(now_ms - 1_500, offset=101, degraded="deadline", took_ms=60_000))
    view.decided(decision(now_ms - 1_000, offset=102, event_id=HOSTILE, label=HOSTILE))
    view.dead(dead_letter(message=HOSTILE, cause=HOSTILE), now_ms - 1_000)
    return view


@pytest.fixture
async def address():
    now_ms = int(time.time() * 1000)
    view = filled_view(now_ms)
    app = web.Application()
    Pages(Metrics(), ("feeds",), lambda: False, lambda _now_ms: view.snapshot(now_ms)).add_to(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def browse(address: str, profile: Path, *flags: str) -> str:
    """Standard output of a browser that opens the page, runs it for four seconds of its time and leaves."""
    assert CHROMIUM is not None
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        *flags,
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        shown, _ = await asyncio.wait_for(browser.communicate(), 90)
    finally:
        if browser.returncode is None:
            browser.kill()
            await browser.wait()
    return shown.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (`apt-get install chromium`)")
async def test_the_page_draws_its_figures_and_hostile_text_stays_text(address: str, tmp_path: Path) -> None:
    """Figures reach the page, the stand-in is named, and markup in ids, labels or causes is only shown."""
    page = await browse(address, tmp_path / "profile", "--window-size=1200,1000", "--dump-dom")
    assert "<title>Shunt: reviews</title>" in page
    assert 'id="stand-in" hidden' not in page
    assert "103 decided since" in page
    assert "Copper kettle" in page
    assert "small, LLM too late" in page
    assert "&lt;img src=x onerror=" in page
    assert "<img" not in page
    assert page.count("<script>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (`apt-get install chromium`)")
@pytest.mark.parametrize(("width", "layout"), [(1200, "0 0 1000 226"), (500, "0 0 360 470")])
async def test_the_picture_fits_the_window(address: str, tmp_path: Path, width: int, layout: str) -> None:
    """A phone gets the tall picture of the path, a desk the wide one: neither is shrunk until it is unreadable."""
    page = await browse(address, tmp_path / "profile", f"--window-size={width},900", "--dump-dom")
    assert f'viewBox="{layout}"' in page
