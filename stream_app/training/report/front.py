"""Which tiers, at which cut: the plans that no other beats in cost, accuracy and work at once. Pure.

The search is that of model cascades (FrugalGPT, Chen et al. 2023, arXiv 2305.05176; model cascading for code, Chen
and others 2024, arXiv 2405.15842): every sub-sequence of the task's tiers, at every cut of the family, on the rows
that had a say in the policy. What is found there is measured on the test rows, which had none. A tier's work is its
models' measured time, or, where that is not known, the share of the texts that reach it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stream_app.routing.calibration import BoolArray, Float64Array
from stream_app.routing.decide import Tier
from stream_app.routing.models import FloatArray
from stream_app.routing.promises import NOT_ACCEPTED
from stream_app.training.cut import Judged, accepted_as
from stream_app.training.report.family import decided, family
from stream_app.training.report.tradeoff import Answered, Point

SHOWN = 5
"""Points of a plan that a person reads; the rest lie between them."""
TIERS_MAX = 5
"""Plans double with every tier: 31 of five."""


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """One plan at one cut. `plan` is its place in `Front.plans`, `point` what came of it on the test rows.

    `reach` is the share of texts that each of its tiers was asked about; `cpu_ms` a text's work by the models' times
    as measured, None where those are not known. `leads` where no plan beats it in cost and accuracy, work aside.
    """

    plan: int
    cuts: tuple[float, ...]
    point: Point
    reach: tuple[float, ...]
    cpu_ms: float | None
    leads: bool


@dataclass(frozen=True, slots=True)
class Front:
    """The plans (their tiers' names), each one's curve on the test rows, and the points that no plan dominates."""

    plans: tuple[tuple[str, ...], ...]
    curves: tuple[tuple[tuple[float, float], ...], ...]
    points: tuple[PlanPoint, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Some rows: what every tier says of them, which are of the domain, and the LLM's answers."""

    tiers: Sequence[Judged]
    inside: BoolArray
    texts: Answered

    def by(self, plan: Sequence[int]) -> list[Judged]:
        """The answers of these tiers alone."""
        return [self.tiers[tier] for tier in plan]


def front(
    tiers: Sequence[Tier], chose: Seen, test: Seen, offsets: Float64Array, ms_a_text: Mapping[str, float]
) -> Front:
    """Search on the rows that `chose`, and measure on the `test` rows."""
    plans = _plans(len(tiers))
    grids = [family(chose.by(plan), np.flatnonzero(chose.inside), offsets) for plan in plans]
    tried = [(place, step) for place, grid in enumerate(grids) for step in range(len(grid))]
    found = [
        _tried([tiers[tier] for tier in plans[place]], chose, plans[place], grids[place][step], ms_a_text)
        for place, step in tried
    ]
    kept = _undominated(np.array(found))
    leads = set(_undominated(np.array(found)[:, :2]))
    shown = [one for place in range(len(plans)) for one in _spread([at for at in kept if tried[at][0] == place])]
    return Front(
        plans=tuple(tuple(" + ".join(model.name for model in tiers[tier].models) for tier in plan) for plan in plans),
        curves=tuple(
            tuple(_pair(test.texts.point(*decided(cuts, test.by(plan), test.inside))) for cuts in grid)
            for plan, grid in zip(plans, grids, strict=True)
        ),
        points=tuple(
            _point(
                tiers,
                plans[tried[at][0]],
                tried[at][0],
                grids[tried[at][0]][tried[at][1]],
                test,
                ms_a_text,
                at in leads,
            )
            for at in shown
        ),
    )


def _spread(places: list[int]) -> list[int]:
    """At most SHOWN of them, evenly."""
    if len(places) <= SHOWN:
        return places
    return [places[at] for at in np.linspace(0, len(places) - 1, SHOWN).round().astype(np.intp)]


def _plans(tiers: int) -> list[tuple[int, ...]]:
    """Every sub-sequence, short ones first."""
    known = range(min(tiers, TIERS_MAX))
    return [plan for length in range(1, len(known) + 1) for plan in combinations(known, length)]


def _undominated(found: Float64Array) -> list[int]:
    """Places of the rows (cost, wrong, work: less is better) that no other row beats in one and equals in the rest.

    Of equal rows the first stands: the plan with fewer and earlier tiers.
    """
    kept = list[int]()
    for place, row in enumerate(found):
        no_worse, better = (found <= row).all(axis=1), (found < row).any(axis=1)
        equal_before = (found[:place] == row).all(axis=1).any()
        if not (no_worse & better).any() and not equal_before:
            kept.append(place)
    return kept


def _tried(
    plan_tiers: Sequence[Tier], seen: Seen, plan: tuple[int, ...], cuts: FloatArray, ms_a_text: Mapping[str, float]
) -> tuple[float, float, float]:
    """Cost, share wrong and work on the rows that chose."""
    point = seen.texts.point(*decided(cuts, seen.by(plan), seen.inside))
    reach = _reach(seen, plan, cuts)
    cpu_ms = _cpu_ms(plan_tiers, reach, ms_a_text)
    return point.cost_share, 1 - (point.accuracy.share or 0.0), sum(reach) if cpu_ms is None else cpu_ms


def _reach(seen: Seen, plan: tuple[int, ...], cuts: FloatArray) -> tuple[float, ...]:
    return tuple(_reaches(seen.by(plan)[:before], cuts, seen.inside) for before in range(len(plan)))


def _pair(point: Point) -> tuple[float, float]:
    return point.cost_share, point.accuracy.share or 0.0


def _point(
    tiers: Sequence[Tier],
    plan: tuple[int, ...],
    place: int,
    cuts: FloatArray,
    test: Seen,
    ms_a_text: Mapping[str, float],
    leads: bool,
) -> PlanPoint:
    reach = _reach(test, plan, cuts)
    return PlanPoint(
        plan=place,
        cuts=tuple(float(cut) for cut in cuts),
        point=test.texts.point(*decided(cuts, test.by(plan), test.inside)),
        reach=reach,
        cpu_ms=_cpu_ms([tiers[tier] for tier in plan], reach, ms_a_text),
        leads=leads,
    )


def _reaches(before: Sequence[Judged], cuts: FloatArray, inside: BoolArray) -> float:
    """The share of texts that the tiers `before` leave; what is out of domain leaves at the first."""
    if not before:
        return 1.0
    return float((inside & (accepted_as(cuts, before, inside) == NOT_ACCEPTED)).mean())


def _cpu_ms(plan: Sequence[Tier], reach: Sequence[float], ms_a_text: Mapping[str, float]) -> float | None:
    """Each model is asked once a text, by the first tier that has it."""
    total, asked = 0.0, set[str]()
    for tier, share in zip(plan, reach, strict=True):
        for model in tier.models:
            if model.name not in ms_a_text:
                return None
            if model.name not in asked:
                asked.add(model.name)
                total += share * ms_a_text[model.name]
    return total
