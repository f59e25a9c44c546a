"""An agent and a page of your own beside Shunt's live page: `faust -A own_agent worker`.

It is an ordinary Faust app in the role `feeds`: your agents read the decisions (committed ones only), your pages
are served by the worker's web server. It is a process of its own, so nothing it does can hold up a lane.
"""  # noqa: INP001 - an example is a script, not a package

from collections import Counter

import orjson
from faust.types import StreamT
from faust.web import Request, Response, Web

from stream_app.app import Role, create_app
from stream_app.settings import load_settings

settings = load_settings()
app = create_app(settings, Role.FEEDS)
decisions = app.topic(
    settings.kafka.names.decisions, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
)
labels: Counter[str] = Counter()


@app.agent(decisions)
async def count_labels(values: StreamT[bytes | None]) -> None:
    """Counts the labels of final decisions. A null value is a tombstone: the event was deleted."""
    async for value in values:
        decision = orjson.loads(value) if value is not None else {"kind": None}
        if decision["kind"] == "final":
            labels.update(answer["label"] for answer in decision["answers"].values())


@app.page("/labels/")
async def show_labels(web: Web, _request: Request) -> Response:
    """The counts as JSON."""
    return web.json(labels)
