"""What endpoints are called in metrics and logs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.settings import Endpoint


def endpoint_names(endpoints: Sequence[Endpoint]) -> list[str]:
    """A name for each, all different: its host, else host and model, else the whole address and model."""
    hosts = [urlsplit(endpoint.base_url).netloc for endpoint in endpoints]
    models = [endpoint.model for endpoint in endpoints]
    with_model = [f"{host} {model}" for host, model in zip(hosts, models, strict=True)]
    whole = [f"{endpoint.base_url} {endpoint.model}" for endpoint in endpoints]
    return [
        next((way[place] for way in (hosts, with_model) if way.count(way[place]) == 1), whole[place])
        for place in range(len(endpoints))
    ]
