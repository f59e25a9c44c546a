"""A task: one question about every event, its labels, its models and its dial."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stream_app.settings.section import Section, Share


class LabelCost(Section):
    """What it costs to miss a label, and to answer it falsely: any unit, the same for all labels of a task."""

    missed: Annotated[float, Field(ge=0)] = 1.0
    false_alarm: Annotated[float, Field(ge=0)] = 1.0


class Task(Section):
    """One question about every event, with a fixed label set and one dial.

    The dial is `target_error`, or `escalate_max`, or `threshold` by hand. Where labels matter differently,
    `precision_min` (of what is accepted with a label, so much is truly of it) and `miss_max` (of what truly is of a
    label, at most so much is accepted as something else) stand beside a target or in its place. Precision is that in
    traffic of the stated `prevalence`. With `costs` the answer is the one expected to cost least; `costs` alone are a
    dial too: nothing is promised then, and an event is escalated where that is expected to save more than
    `asking_cost`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["one_of", "any_of"] = "one_of"
    """`any_of`: any number of the labels may be right of a text, and each is answered by itself. It must be what the
    models are."""
    labels: tuple[str, ...] | dict[str, str] | None = None
    """The labels, or a table label -> description for the prompt. Left out: what the first model serves."""
    tiers: Annotated[tuple[str | tuple[str, ...], ...], Field(min_length=1)]
    target_error: Share | None = None
    escalate_max: Share | None = None
    """The share of events that goes to the LLM, held whatever the traffic is like."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    precision_min: dict[str, Share] = Field(default_factory=dict)
    miss_max: dict[str, Share] = Field(default_factory=dict)
    prevalence: dict[str, Share] = Field(default_factory=dict)
    """label -> its share of the traffic. Left out: as in the calibration sample."""
    costs: dict[str, LabelCost] = Field(default_factory=dict)
    """label -> what it costs to miss it, and to answer it falsely. A label that is not named costs nothing itself."""
    asking_cost: Annotated[float, Field(ge=0)] = 0.0
    """What asking the LLM about one event costs, in the unit of `costs`."""

    @model_validator(mode="after")
    def _one_dial(self) -> Self:
        by_label = bool(self.precision_min or self.miss_max)
        dials = {"target_error": self.target_error, "escalate_max": self.escalate_max, "threshold": self.threshold}
        given = [name for name, value in dials.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if self.escalate_max is not None and by_label:
            raise ValueError("a share that is held promises nothing: leave precision_min and miss_max out")
        if self.threshold is not None and by_label:
            raise ValueError("a threshold by hand promises nothing: leave precision_min and miss_max out")
        if not given and not by_label and not self.costs:
            raise ValueError(
                "give target_error, or escalate_max, or threshold, or precision_min and miss_max for the labels that "
                "matter, or costs"
            )
        if self.asking_cost and not self.costs:
            raise ValueError("asking_cost is told in the unit of `costs`: give those too")
        if sum(self.prevalence.values()) > 1:
            raise ValueError("prevalence: the labels' shares add up to more than 1")
        return self

    @model_validator(mode="after")
    def _any_of_promises_of_all_labels(self) -> Self:
        if self.kind == "any_of":
            for name in ("escalate_max", "precision_min", "miss_max", "prevalence", "costs"):
                if getattr(self, name):
                    raise ValueError(f"a task of kind any_of takes target_error or threshold: leave {name} out")
        return self

    @property
    def by_hand(self) -> bool:
        """Whether it decides by a cut that nobody certified."""
        return self.threshold is not None

    @property
    def by_gain(self) -> bool:
        """Whether nothing is promised, and costs alone decide what is escalated."""
        promised = self.target_error or self.precision_min or self.miss_max
        return bool(self.costs) and not (self.by_hand or self.escalate_max or promised)

    @field_validator("labels")
    @classmethod
    def _at_least_two(cls, value: tuple[str, ...] | dict[str, str] | None) -> Any:
        if value is not None and len(set(value)) < 2:
            raise ValueError("a task needs at least two different labels")
        return value

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names in order; empty where the model says them."""
        return tuple(self.labels or ())

    @property
    def descriptions(self) -> dict[str, str]:
        """Label -> description, for the labels that have one."""
        return dict(self.labels) if isinstance(self.labels, dict) else {}

    @property
    def models(self) -> tuple[str, ...]:
        """Every model any tier names, once, in order of first use."""
        flat = [name for tier in self.tiers for name in ((tier,) if isinstance(tier, str) else tier)]
        return tuple(dict.fromkeys(flat))
