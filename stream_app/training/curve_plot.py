"""The learning curve as a picture that reads well beside the model card."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from stream_app.training.curve import Curve

INK, LINE, BAND = "#1f2933", "#1f5fa8", "#1f5fa833"


def write_plot(curve: Curve, model: str, path: Path) -> None:
    """Write the curve as SVG: points, the 95 % band, and one more doubling at the same pace as a dotted line.

    The same curve gives the same bytes.
    """
    with mpl.rc_context({"svg.hashsalt": "shunt", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        rows = [point.rows for point in curve.points]
        scores = [point.score for point in curve.points]
        axes.fill_between(
            rows, [point.low for point in curve.points], [point.high for point in curve.points],
            color=BAND, linewidth=0, label="95 % band",
        )  # fmt: skip
        axes.plot(rows, scores, "o-", color=LINE, label=f"{curve.measure} on held-out rows")
        ticks = list(rows)
        if curve.next_gain is not None:
            ticks.append(2 * rows[-1])
            reached = [scores[-1], scores[-1] + curve.next_gain]
            axes.plot(ticks[-2:], reached, ":", color=LINE, label="one more doubling at this pace, at most")
        for point in curve.points:
            place = (point.rows, point.high)
            axes.annotate(f"{point.score:.3f}", place, (0, 5), textcoords="offset points", ha="center", color=INK)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.08, y=0.2)
        axes.set_xlabel("training rows (each step doubles them)")
        axes.set_ylabel(curve.measure)
        axes.set_title(f"{model}: {curve.headline[0].lower()}{curve.headline[1:]}", loc="left", color=INK)
        axes.grid(axis="y", color="#d5dbe1", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, format="svg", metadata={"Date": None})
