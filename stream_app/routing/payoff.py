"""Which label is best to answer where a miss and a false alarm cost differently. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stream_app.events import Cost
from stream_app.routing.calibration import Float64Array
from stream_app.routing.models import FloatArray, IndexArray
from stream_app.settings import Task


def costs_of(task: Task) -> dict[str, Cost]:
    """The settings' costs as policies and escalations carry them."""
    return {label: Cost(missed=one.missed, false_alarm=one.false_alarm) for label, one in task.costs.items()}


@dataclass(frozen=True, slots=True)
class Payoff:
    """What wrong answers cost, by label in the models' order.

    To answer y where t is true costs missed[t] + false_alarm[y]. The answer that is expected to cost least is that
    with the largest P(y) * (missed[y] + false_alarm[y]) - false_alarm[y]: Bayes' decision rule, all that does not
    depend on y left out. With equal costs it is the likeliest label.
    """

    missed: tuple[float, ...]
    false_alarm: tuple[float, ...]

    @classmethod
    def of(cls, labels: tuple[str, ...], costs: Mapping[str, Cost]) -> "Payoff | None":
        """None where nothing is said of costs. A label that is not named costs nothing itself."""
        if not costs:
            return None
        free = Cost(missed=0.0, false_alarm=0.0)
        told = [costs.get(label, free) for label in labels]
        return cls(tuple(one.missed for one in told), tuple(one.false_alarm for one in told))

    def worth(self, probabilities: FloatArray | Float64Array) -> Float64Array:
        """What each answer is worth [N, labels], in the costs' unit; only differences within a row mean something."""
        alarm = np.array(self.false_alarm)
        return probabilities * (np.array(self.missed) + alarm) - alarm

    def cost(self, truth: IndexArray, answer: IndexArray) -> Float64Array:
        """What these answers cost [N]."""
        wrong = np.array(self.missed)[truth] + np.array(self.false_alarm)[answer]
        return np.where(truth == answer, 0.0, wrong)


def plain(labels: int) -> Payoff:
    """Every wrong answer costs 1."""
    return Payoff((0.5,) * labels, (0.5,) * labels)
