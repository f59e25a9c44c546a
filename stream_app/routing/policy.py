"""The policy: the versioned artifact `shunt calibrate` makes and every worker decides by.

A JSON file; its shape is these classes, field by field (`schemas/policy` holds the JSON Schema). Everything a
decision's promise rests on stands in it: which weights, which cut, how sure, from which sample.
"""

from typing import Annotated, Literal

import msgspec

from stream_app.errors import SettingsError
from stream_app.events import Cost, TaskKind, VoteRule
from stream_app.routing.votes import terms

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model of a tier. `weight` is its exponent in the tier's pool: 1 / temperature where it is alone."""

    model: str
    version: str
    weights_sha256: Sha256
    weight: Annotated[float, msgspec.Meta(ge=0)]


class Isotonic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rising line through knots: pooled confidence -> share of right answers, flat outside the knots."""

    confidence: Annotated[tuple[Probability, ...], msgspec.Meta(min_length=2)]
    share_right: Annotated[tuple[Probability, ...], msgspec.Meta(min_length=2)]


class TierPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one tier's confidence is made, and the cut it is held against (None: nothing is accepted here).

    `label_thresholds` holds the cuts of labels that have their own (None: never accepted); `threshold` is that of the
    others. Of an `any_of` task a cut is that of the label's yes or no, and `label_isotonic` has the maps of labels.
    """

    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1)]
    isotonic: Isotonic | None = None
    threshold: Probability | None
    label_thresholds: dict[str, Probability | None] = {}
    label_isotonic: dict[str, Isotonic] = {}


class Promised(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One line of a certificate: a share of at most `share_max`, and the bound of what was seen at the cut.

    `wrong` is the share of wrong among what is accepted, with `label` or with any; carried to `prevalence` where
    that is stated. `missed` is the share, of all that truly is of `label`, that is accepted as something else.
    """

    what: Literal["wrong", "missed"]
    label: str | None = None
    share_max: Probability
    bound: Probability
    prevalence: Probability | None = None


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was shown on the certification sample: with probability 1 - delta over such samples, the share of
    wrong answers among accepted ones is at most `error_max` (the target, None if there is none) and all of `labels`
    holds. `error_bound` is the Clopper-Pearson bound of the wrong seen at the cut. With `each_file` all hold in every
    file of the sample by itself (the bounds are the worst file's), and so for any mixture of such texts.
    """

    error_max: Probability | None
    delta: Probability
    rows: Count
    accepted: Count
    wrong: Count
    error_bound: Probability
    each_file: bool = False
    labels: tuple[Promised, ...] = ()


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the calibration texts were like. A text below `known_share_min`, or mostly in letters of scripts not
    named, is outside the calibrated domain; `known_share_quantile` of the texts were below. Lengths are characters at
    quantiles 0.01, 0.5 and 0.99.
    """

    known_share_min: Probability
    known_share_quantile: Probability
    scripts: tuple[str, ...]
    text_chars: tuple[float, float, float]


class SampleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file the policy was made from: its name without a folder, and its bytes' sha-256."""

    name: str
    sha256: Sha256
    rows: Count


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rows used, how many for each purpose (never a row for two), and how often each label was true."""

    files: tuple[SampleFile, ...]
    calibration: Count
    certification: Count
    test: Count
    label_prevalence: dict[str, Probability]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the finished policy did on its test rows, which chose nothing."""

    coverage: Probability
    accepted_error: Probability | None
    small_accuracy: Probability
    tier_coverage: tuple[Probability, ...]
    expected_calibration_error: Probability
    brier: Annotated[float, msgspec.Meta(ge=0)]
    negative_log_likelihood: Annotated[float, msgspec.Meta(ge=0)]
    area_under_risk_coverage: Probability


class ShareHeld(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The share of events that may be escalated, and the order of the calibration sample's confidences.

    The rank of a confidence is the share of the sample that was less sure: knots of both, rising from rank 0. The
    tiers' threshold is the cut of that share on the sample, and what the certificate speaks of.
    """

    escalate_max: Probability
    confidence: Annotated[tuple[Probability, ...], msgspec.Meta(min_length=2)]
    rank: Annotated[tuple[Probability, ...], msgspec.Meta(min_length=2)]


class LlmDisagreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often recorded answers of `llm` were not the accepted ones, on rows that fitted nothing; none is not one.

    `bound` is the Clopper-Pearson bound of that share: what audits may find while all is as it was.
    """

    llm: str
    accepted: Count
    disagreed: Count
    bound: Probability


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the small models made of `rows` of the sample that fitted nothing: what the stream is held against.

    `labels` counts their answers, right or wrong; `confidence` those up to each of `confidence_edges`, and beyond.
    `escalated` is None where a share is held.
    """

    rows: Annotated[int, msgspec.Meta(ge=1)]
    labels: dict[str, Count]
    confidence_edges: tuple[Probability, ...]
    confidence: tuple[Count, ...]
    escalated: Count | None
    out_of_domain: Count


class TaskPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task: its labels in the models' order, its tiers, and what they promise.

    Of an `any_of` task an answer is wrong where any of its labels is.
    `gain_llm` names the LLM whose recorded answers set the labels' cuts apart, if one did. `votes` says what LLMs'
    votes count beside the small model's; without it an LLM is obeyed. With `costs` and no certificate nothing is
    promised: the cuts lie where the LLM is worth asking.
    """

    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    tiers: Annotated[tuple[TierPolicy, ...], msgspec.Meta(min_length=1)]
    target_error: Probability | None
    precision_min: dict[str, Probability] = {}
    miss_max: dict[str, Probability] = {}
    prevalence: dict[str, Probability] = {}
    costs: dict[str, Cost] = {}
    asking_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    reference: Literal["human", "llm"]
    certificate: Certificate | None
    domain: Domain
    sample: Sample
    measured: Measured
    made_at: str
    gain_llm: str | None = None
    votes: VoteRule | None = None
    share: ShareHeld | None = None
    llm_disagreement: LlmDisagreement | None = None
    traffic: Traffic | None = None
    kind: TaskKind = "one_of"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The artifact. `made_at` is UTC, ISO 8601; a task keeps the time of its own calibration."""

    format: Literal["shunt-policy-1"] = "shunt-policy-1"
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$")]
    version: Annotated[int, msgspec.Meta(ge=1)]
    made_at: str
    tasks: dict[str, TaskPolicy]

    @property
    def ref(self) -> str:
        """`name@version`, as decisions name a policy."""
        return f"{self.name}@{self.version}"


def load_policy(raw: bytes, source: str = "the policy") -> Policy:
    """The policy in these bytes. Raises SettingsError, one line naming `source` and what is wrong in it."""
    try:
        policy = msgspec.json.decode(raw, type=Policy)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{source} is not a policy: {error}", advice="make one with `shunt calibrate`") from error
    check_policy(policy, source)
    return policy


def check_policy(policy: Policy, source: str) -> None:
    """Raise SettingsError, one line naming `source`, for what types cannot say."""
    for name, task in policy.tasks.items():
        _check_task(task, f"{source}, task {name}")


def dump_policy(policy: Policy) -> bytes:
    """The policy as JSON, indented for people; `load_policy` gives the same value back."""
    return msgspec.json.format(msgspec.json.encode(policy, order="deterministic"), indent=1) + b"\n"


def _check_task(task: TaskPolicy, where: str) -> None:
    """What types cannot say: knots rise and pair up, a certificate has cuts, and the names are distinct."""
    for tier in task.tiers:
        if not all(_rises(knots) for knots in (tier.isotonic, *tier.label_isotonic.values()) if knots is not None):
            raise SettingsError(f"{where}: the isotonic knots do not rise")
        if not any(member.weight > 0 for member in tier.members):
            raise SettingsError(f"{where}: no member of a tier has a weight above 0")
    _check_label_thresholds(task, where)
    _check_kind(task, where)
    if task.share is not None:
        _check_share(task.share, task.tiers[0], where)
    if len(set(task.labels)) != len(task.labels):
        raise SettingsError(f"{where}: a label stands twice")
    if task.traffic is not None:
        _check_traffic(task.traffic, task, where)
    if task.votes is not None:
        _check_votes(task.votes, len(task.labels), where)
    if task.certificate is None and not task.costs and any(tier.threshold is not None for tier in task.tiers):
        raise SettingsError(f"{where}: a threshold without a certificate")


def _rises(knots: Isotonic) -> bool:
    """Whether its knots pair up, and rise."""
    return (
        len(knots.confidence) == len(knots.share_right)
        and list(knots.confidence) == sorted(set(knots.confidence))
        and list(knots.share_right) == sorted(knots.share_right)
    )


def _check_kind(task: TaskPolicy, where: str) -> None:
    """What has no meaning where any label may be right, and what has it only there."""
    any_of = task.kind == "any_of"
    if any_of and (task.votes is not None or task.share is not None or task.costs or task.precision_min):
        raise SettingsError(f"{where}: of kind any_of, it weighs no votes, holds no share and knows no costs")
    if any_of and (task.miss_max or any(tier.isotonic is not None for tier in task.tiers)):
        raise SettingsError(f"{where}: of kind any_of, each label has its own map, and none its own promise")
    if any(not {*tier.label_isotonic} <= {*task.labels} for tier in task.tiers):
        raise SettingsError(f"{where}: a label's map is of no label of the task")
    if not any_of and any(tier.label_isotonic for tier in task.tiers):
        raise SettingsError(f"{where}: labels have maps of their own only in tasks of kind any_of")


def _check_label_thresholds(task: TaskPolicy, where: str) -> None:
    """Of labels that there are, and of tiers that accept."""
    if any(label not in task.labels for tier in task.tiers for label in tier.label_thresholds):
        raise SettingsError(f"{where}: a label threshold names no label of the task")
    if any(tier.threshold is None and tier.label_thresholds for tier in task.tiers):
        raise SettingsError(f"{where}: a tier that accepts nothing has label thresholds")


def _check_traffic(traffic: Traffic, task: TaskPolicy, where: str) -> None:
    """Each row is counted once for its confidence, and once for its label, or once at most for each."""
    edges, counts = traffic.confidence_edges, traffic.confidence
    if list(edges) != sorted(set(edges)) or len(counts) != len(edges) + 1 or set(traffic.labels) != set(task.labels):
        raise SettingsError(f"{where}: its traffic counts other labels or confidences than it names")
    of_labels = traffic.labels.values()
    labelled = max(of_labels) <= traffic.rows if task.kind == "any_of" else sum(of_labels) == traffic.rows
    if sum(counts) != traffic.rows or not labelled:
        raise SettingsError(f"{where}: its traffic does not count every row")


def _check_votes(rule: VoteRule, labels: int, where: str) -> None:
    """As many weights as the voters and labels take."""
    told = [(one.voters, one.weights, False) for one in rule.weighing]
    told += [(one.voters, one.weights, True) for one in rule.expecting]
    for voters, weights, silence in told:
        if len(weights) != terms(labels, len(voters), silence=silence):
            raise SettingsError(f"{where}: votes of {' and '.join(voters)}: {len(weights)} weights do not fit")


def _check_share(order: ShareHeld, first: TierPolicy, where: str) -> None:
    """Its knots rise from rank 0, and one cut serves all labels."""
    rises = list(order.confidence) == sorted(set(order.confidence)) and list(order.rank) == sorted(set(order.rank))
    if len(order.confidence) != len(order.rank) or not rises or order.rank[0] != 0:
        raise SettingsError(f"{where}: the knots of its share do not rise from rank 0")
    if first.threshold is None or first.label_thresholds:
        raise SettingsError(f"{where}: a share is held by one cut for all labels")
