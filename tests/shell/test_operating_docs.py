"""What docs/operating.md says about metrics is what a worker exposes."""

from __future__ import annotations

import re
from pathlib import Path

from stream_app.telemetry import Metrics

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """The table and the worker name the same metrics with the same labels."""
    told = {
        (name, tuple(labels.split(", ")) if labels else ())
        for name, labels in re.findall(r"`(shunt_\w+)(?:\{([^}]*)\})?`", OPERATING.read_text())
    }
    registry = Metrics().registry
    exposed = {name for name in registry._names_to_collectors if name.startswith("shunt_")}
    assert {name for name, _ in told} <= exposed
    families = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count").removesuffix("_created")
        for name in exposed
    }
    named = {name.removesuffix("_total") for name, _ in told}
    assert {family.removesuffix("_total") for family in families} == named
    for name, labels in told:
        collector = registry._names_to_collectors[name]
        known = tuple(getattr(collector, "_labelnames", ())) or tuple(
            filter(None, [getattr(collector, "_label", None)])
        )
        assert labels in {known, ()}, name
