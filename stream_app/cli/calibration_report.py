"""The report of `shunt calibrate`: one HTML page beside the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stream_app.errors import SettingsError
from stream_app.training.report.page import NEEDS, can_report, page
from stream_app.training.report.task_report import panels, task_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_app.routing.policy import Policy
    from stream_app.training.calibrate import Calibrated
    from stream_app.training.fitted import Terms


def report_path(asked: Path | None, policy: Path) -> Path | None:
    """Where the report goes: as asked for, else beside the policy; None where the extra for it is not installed.

    Raises SettingsError where it was asked for and cannot be made.
    """
    if can_report():
        return asked or policy.with_suffix(".report.html")
    if asked is not None:
        raise SettingsError(f"no report: {NEEDS}")
    return None


def write_report(path: Path | None, policy: Policy, made: Mapping[str, Calibrated], terms: Terms) -> None:
    """Write the page and say where it is; without the extra, say in one line what it needs."""
    if path is None:
        click.echo(f"No report was written: {NEEDS}")
        return
    reports = [
        task_report(name, policy.ref, calibrated, panels(calibrated, terms.llms), terms.prices)
        for name, calibrated in made.items()
    ]
    path.write_text(page(f"calibration of {policy.ref}", policy.made_at, reports), "utf-8")
    click.echo(f"Its report is {path}")
