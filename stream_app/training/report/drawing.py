"""The drawings of a report. Draws, and computes nothing: the figures come from the pure modules beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_app.training.report.sheet import ROLES, Sheet

if TYPE_CHECKING:
    from stream_app.training.report.bounds import PromiseSteps
    from stream_app.training.report.front import Front
    from stream_app.training.report.reliability import Reliability
    from stream_app.training.report.tradeoff import Point, Tradeoff

PLAN_ROLES = ("small", "other", "ours", "llm", "wrong")
RIGHT = {False: "right answers", True: "texts with every label right"}
"""How often it is right, where one label is and where any may be."""
WIDE, NARROW = (7.4, 4.3), (5.4, 3.7)
"""In inches: the page scales them, the type with them."""


def accuracy_against_cost(found: Tradeoff, name: str, *, wide: bool, any_of: bool = False) -> str:
    """The policy between the small model and the LLM, with the cuts beside it and other ways to choose."""
    with Sheet(WIDE if wide else NARROW, name) as sheet:
        axes = sheet.axes
        filled = found.llm_filled or found.llm_alone
        axes.plot(
            [0, 1],
            [_right(found.small), _right(filled)],
            ls=(0, (1, 2)),
            color=ROLES["soft"],
            lw=1.4,
            label="at random",
        )
        axes.step(
            *zip(*found.oracle, (1.0, found.oracle[-1][1]), strict=True),
            where="post", color=ROLES["other"], lw=1.4, ls=(0, (5, 2)), label="perfect choice",
        )  # fmt: skip
        curve = sorted(found.curve, key=lambda point: point.cost_share)
        costs = [point.cost_share for point in curve]
        axes.fill_between(
            costs,
            [one.accuracy.low for one in curve],
            [one.accuracy.high for one in curve],
            color=ROLES["ours"],
            alpha=0.1,
            lw=0,
        )
        axes.plot(costs, [_right(point) for point in curve], color=ROLES["ours"], label="other cuts")
        if found.llm_filled is not None:
            _mark(axes, found.llm_filled, "llm", "D", hollow=True)
        for point, role, marker in (
            (found.small, "small", "s"),
            (found.llm_alone, "llm", "D"),
            (found.by_hand, "soft", "^"),
        ):
            _mark(axes, point, role, marker, size=9.5 if marker == "^" else 8)
        _mark(axes, found.policy, "ours", "o", size=10, bar=True)
        _say(axes, found.policy, "this policy", (9, 10))
        _say(axes, found.small, "small model alone", (9, -13))
        _say(axes, found.llm_alone, "LLM alone", (-9, -15), right=True)
        axes.set_xlim(-0.02, 1.03)
        lows = [_right(point) for point in (found.small, found.llm_alone, found.policy, found.by_hand)]
        top = max(found.oracle[-1][1], *(point.accuracy.high for point in curve))
        floor = min(*lows, found.policy.accuracy.low)
        axes.set_ylim(floor - 0.12 * (top - floor), top + 0.06 * (top - floor))
        return sheet.svg("cost, of asking the LLM about every text", RIGHT[any_of])


def plans_against_cost(found: Front, name: str, *, any_of: bool = False) -> str:
    """Each plan of tiers along its cuts, on the test rows; marked where no plan leads it in cost and accuracy."""
    with Sheet(WIDE, name) as sheet:
        axes = sheet.axes
        for place, (plan, curve) in enumerate(zip(found.plans, found.curves, strict=True)):
            role = PLAN_ROLES[place % len(PLAN_ROLES)]
            dashes = "-" if place < len(PLAN_ROLES) else "--"
            costs, rights = zip(*sorted(curve), strict=True)
            axes.plot(costs, rights, color=ROLES[role], ls=dashes, lw=1.8, label=" ▸ ".join(plan))
            led = [one.point for one in found.points if one.plan == place and one.leads]
            axes.plot(
                [one.cost_share for one in led], [_right(one) for one in led],
                ls="none", marker="o", ms=6, mfc=ROLES[role], mec=ROLES["card"], mew=1.2,
            )  # fmt: skip
        axes.set_xlim(-0.02, 1.03)
        if len(found.plans) > 1:
            axes.legend(loc="lower right")
        return sheet.svg("cost, of asking the LLM about every text", RIGHT[any_of])


def coverage_against_bound(found: PromiseSteps, name: str, *, any_of: bool = False) -> str:
    """One promise along the sequence: what the test rows measured, what could be shown, and what was promised."""
    with Sheet(NARROW, name) as sheet:
        axes = sheet.axes
        steps = sorted(found.steps, key=lambda step: step.coverage)
        known = [step for step in steps if step.measured.share is not None]
        over = [step.coverage for step in known]
        axes.fill_between(
            over, [step.measured.low for step in known], [step.measured.high for step in known],
            color=ROLES["small"], alpha=0.13, lw=0,
        )  # fmt: skip
        axes.plot(over, [step.measured.share for step in known], color=ROLES["small"], label="measured (test rows)")
        axes.plot(
            [step.coverage for step in steps],
            [step.bound for step in steps],
            color=ROLES["ours"],
            lw=1.8,
            label="bound",
        )
        axes.axhline(found.share_max, color=ROLES["wrong"], lw=1.4, ls=(0, (4, 3)), label="promised at most")
        if found.chosen is not None:
            step = found.steps[found.chosen]
            axes.axvline(step.coverage, color=ROLES["line"], lw=1.2)
            axes.plot(
                [step.coverage], [step.bound], ls="none", marker="o", ms=9, mfc=ROLES["ours"],
                mec=ROLES["card"], mew=1.5, label="this policy",
            )  # fmt: skip
        if found.naive is not None:
            step = found.steps[found.naive]
            axes.plot(
                [step.coverage], [step.measured.share or 0.0], ls="none", marker="X", ms=9, mfc=ROLES["wrong"],
                mec=ROLES["card"], mew=1.2, label="naive rule, as measured",
            )  # fmt: skip
        highest = max([found.share_max, *(step.measured.share or 0.0 for step in known)])
        # Around what is promised: where everything is accepted is far above, and of no interest.
        axes.set_ylim(0, min(1.0, 1.9 * highest, 4.5 * found.share_max))
        axes.set_xlim(
            max(0.0, min(step.coverage for step in steps) - 0.03),
            min(1.02, max(step.coverage for step in steps) + 0.03),
        )
        axes.legend(loc="upper left", handlelength=1.6)
        wrong = "any label wrong among accepted" if any_of else "wrong among accepted"
        return sheet.svg("accepted, of all texts", "missed" if found.what == "missed" else wrong)


def confidence_against_right(
    calibrated: Reliability, at_their_word: Reliability, name: str, *, any_of: bool = False
) -> str:
    """The reliability diagram: on the diagonal a confidence means what it says.

    With `any_of` the confidence is of the least sure label and the whole text is right: no error of a calibration.
    """
    with Sheet(NARROW, name) as sheet:
        axes = sheet.axes
        lowest = min(
            one
            for bins in (calibrated.bins, at_their_word.bins)
            for each in bins
            for one in (each.confidence, each.right.share or 0.0)
        )
        floor = max(0.0, lowest - 0.06)
        axes.plot([floor, 1], [floor, 1], color=ROLES["line"], lw=1.2, ls=(0, (4, 3)))
        for found, role, marker, label in (
            (at_their_word, "soft", "^", "before calibration"),
            (calibrated, "small", "o", "calibrated"),
        ):
            bins = [one for one in found.bins if one.right.share is not None]
            rights = [one.right.share or 0.0 for one in bins]
            solid = role == "small"
            if solid:
                axes.vlines(
                    [one.confidence for one in bins],
                    [one.right.low for one in bins], [one.right.high for one in bins],
                    color=ROLES[role], lw=1.2, alpha=0.55,
                )  # fmt: skip
            axes.plot(
                [one.confidence for one in bins], rights, color=ROLES[role], lw=1.8 if solid else 1.2, marker=marker,
                ms=6 if solid else 5, mec=ROLES["card"], mfc=ROLES[role] if solid else ROLES["card"],
                label=label if any_of else f"{label} (error {found.expected_calibration_error:.3f})",
                ls="-" if solid else ":",
            )  # fmt: skip
            if not solid:
                axes.lines[-1].set_markeredgecolor(ROLES[role])
        axes.set_xlim(floor, 1.01)
        axes.set_ylim(floor, 1.02)
        axes.legend(loc="upper left", handlelength=1.6)
        return sheet.svg("confidence of the least sure label" if any_of else "confidence", RIGHT[any_of])


def _right(point: Point) -> float:
    return point.accuracy.share or 0.0


def _mark(
    axes: Any, point: Point, role: str, marker: str, *, size: float = 8, hollow: bool = False, bar: bool = False
) -> None:
    if bar:
        axes.vlines([point.cost_share], [point.accuracy.low], [point.accuracy.high], color=ROLES[role], lw=1.6)
    axes.plot(
        [point.cost_share], [_right(point)], ls="none", marker=marker, ms=size, mew=1.5, clip_on=False, zorder=5,
        mfc=ROLES["card"] if hollow else ROLES[role], mec=ROLES[role] if hollow else ROLES["card"],
    )  # fmt: skip


def _say(axes: Any, point: Point, words: str, offset: tuple[float, float], *, right: bool = False) -> None:
    axes.annotate(
        words,
        (point.cost_share, _right(point)),
        xytext=offset,
        textcoords="offset points",
        ha="right" if right else "left",
        color=ROLES["ink"],
        fontsize=9.5,
        fontweight="bold" if words == "this policy" else "normal",
    )
