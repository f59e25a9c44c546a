"""The settings file a user would write, for workers that tests and benchmarks start as a user does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stream_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_app.settings import Settings

NO_LLM = "http://127.0.0.1:9/v1"
"""Nobody listens there."""


def write_settings(
    folder: Path,
    name: str,
    *,
    bootstrap_servers: str,
    triton: str,
    llm_base_url: str = NO_LLM,
    kafka: Mapping[str, Any] | None = None,
    llm: Mapping[str, Any] | None = None,
    endpoint: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    **tables: Mapping[str, Any],
) -> Settings:
    """Writes `shunt.toml`: topics and group `name`, one task by the model `scripted`. Gives what a worker reads.

    `task` has its dial; left out, a threshold.
    """
    topics = {"bootstrap_servers": bootstrap_servers, "group": name, "input_topic": name}
    written = [
        _table("[kafka]", {**topics, **(kafka or {})}),
        _table("[triton]", {"url": triton}),
        _table("[[tasks]]", {"name": "sentiment", "tiers": ["scripted"], **(task or {"threshold": 0.9})}),
        _table("[llm]", llm or {}),
        _table("[[llm.endpoints]]", {"base_url": llm_base_url, **(endpoint or {})}),
        *(_table(f"[{table}]", values) for table, values in tables.items()),
    ]
    file = folder / "shunt.toml"
    file.write_text("\n".join(written))
    return load_settings(file)


def _table(head: str, values: Mapping[str, Any]) -> str:
    """Strings, numbers, booleans and lists of them are written in JSON as in TOML."""
    return "\n".join([head, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]) + "\n"
