"""The report as one page: figures and drawings put into `report.html`, which needs nothing from anywhere else."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from stream_app.errors import SettingsError
from stream_app.training.report import drawing
from stream_app.training.report.thin import ROWS_OF_A_LABEL, ROWS_OF_A_SLICE
from stream_app.training.report.words import FILTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_app.training.report.task_report import TaskReport

PACKAGES: Final = ("matplotlib", "jinja2")
NEEDS: Final = 'the report needs the extra `report`: pip install "shunt-stream[report]"'


def can_report() -> bool:
    """Whether the extra `report` is installed."""
    return all(find_spec(package) is not None for package in PACKAGES)


def page(title: str, made_at: str, reports: Sequence[TaskReport]) -> str:
    """The whole page, HTML. Raises SettingsError where the extra `report` is missing."""
    if not can_report():
        raise SettingsError(f"no report: {NEEDS}")
    import jinja2  # noqa: PLC0415 - an extra

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    template = environment.from_string(
        resources.files("stream_app.training.report").joinpath("report.html").read_text("utf-8")
    )
    return template.render(
        title=title,
        made_at=made_at,
        reports=reports,
        drawings=[_drawings(report, f"t{place}") for place, report in enumerate(reports)],
        ranges=[_range_most(report) for report in reports],
        figures=_for_a_script([msgspec.to_builtins(report) for report in reports]),
        rows_of_a_label=ROWS_OF_A_LABEL,
        rows_of_a_slice=ROWS_OF_A_SLICE,
    )


def _drawings(report: TaskReport, name: str) -> dict[str, Any]:
    """Each figure as SVG, by its use; `name` keeps the tasks' apart."""
    any_of = report.any_of
    return {
        "tradeoffs": [
            drawing.accuracy_against_cost(one, f"{name}-cost{place}", wide=_is_wide(place, report), any_of=any_of)
            for place, one in enumerate(report.tradeoffs)
        ],
        "front": None
        if report.front is None
        else drawing.plans_against_cost(report.front, f"{name}-plans", any_of=any_of),
        "promises": [
            drawing.coverage_against_bound(one, f"{name}-bound{place}", any_of=any_of)
            for place, one in enumerate(report.promises)
            if one.steps
        ],
        "reliability": drawing.confidence_against_right(
            report.calibrated, report.at_their_word, f"{name}-reliability", any_of=any_of
        ),
    }


def _range_most(report: TaskReport) -> float:
    """Where the bars of the slices' errors end: twice what is promised, or the largest error there is."""
    highs = [one.accepted_wrong.high for one in report.slices if one.accepted_wrong.rows >= ROWS_OF_A_SLICE]
    return max([2 * (report.made.target_error or 0.05), *highs])


def _is_wide(place: int, report: TaskReport) -> bool:
    """The first LLM has a card to itself; a second one without a neighbour, too."""
    return place == 0 or len(report.tradeoffs) == 2


def _for_a_script(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")
