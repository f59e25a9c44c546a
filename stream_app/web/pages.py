"""What the worker's web server answers: `/health`, `/ready`, `/metrics`, and where a live view is kept, `/`."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from stream_app.web.health import Health, LaneReading, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_app.telemetry import Lane, Metrics

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Pages:
    """The worker's answers. `live(now_ms)` gives the live page's figures as a JSON-able value."""

    def __init__(
        self,
        metrics: Metrics,
        lanes: Sequence[Lane],
        stopping: Callable[[], bool],
        live: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._lanes = tuple(lanes)
        self._stopping = stopping
        self._live = live

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        router = app.router
        router.add_get("/health", self._health)
        router.add_get("/ready", self._ready)
        router.add_get("/metrics", self._prometheus)
        if self._live is None:
            router.add_get("/", self._index)
        else:
            router.add_get("/", self._page)
            router.add_get("/api/live", self._figures)

    def judgement(self) -> Health:
        """Health and readiness now."""
        readings = {
            lane: LaneReading(
                joined=self._metrics.has_joined(lane),
                partitions=self._metrics.progress(lane),
                waiting=self._metrics.waiting_for(lane),
            )
            for lane in self._lanes
        }
        return judge(readings, time.monotonic(), stopping=self._stopping())

    async def _health(self, request: web.Request) -> web.Response:
        del request
        health = self.judgement()
        return self._told(health, ok=health.alive)

    async def _ready(self, request: web.Request) -> web.Response:
        del request
        health = self.judgement()
        return self._told(health, ok=health.ready)

    def _told(self, health: Health, *, ok: bool) -> web.Response:
        lanes = {
            lane: {
                "waiting_for": self._metrics.waiting_for(lane),
                "partitions": {
                    number: {"committed": partition.committed, "lag": partition.lag}
                    for number, partition in sorted(self._metrics.progress(lane).items())
                },
            }
            for lane in self._lanes
        }
        told = {"alive": health.alive, "ready": health.ready, "problems": health.problems, "lanes": lanes}
        return _json(told, status=200 if ok else 503)

    async def _prometheus(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _index(self, request: web.Request) -> web.Response:
        del request
        return _json({"lanes": self._lanes, "pages": ["/health", "/ready", "/metrics"]})

    async def _page(self, request: web.Request) -> web.Response:
        del request
        html, policy = page()
        headers = {**NO_STORE, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def _figures(self, request: web.Request) -> web.Response:
        del request
        if self._live is None:
            raise web.HTTPNotFound
        return _json(self._live(time.time_ns() // 1_000_000))


def _json(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json", headers=NO_STORE)


def page() -> tuple[str, str]:
    """The live page and its Content-Security-Policy.

    The policy allows the page's own script and style by their hashes and nothing else, so that a script in an
    event's text would not run even if it got into the page.
    """
    html = resources.files("stream_app.web").joinpath("live.html").read_text("utf-8")
    script, style = (_hash_of(html, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash_of(html: str, tag: str) -> str:
    """The hash source of the page's one inline element of that kind."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    if found is None:
        raise ValueError(f"the live page has no <{tag}>")
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
