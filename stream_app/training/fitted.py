"""The first step of a calibration: who may serve for what, and how sure each tier is, fitted on its own rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream_app.errors import SettingsError
from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Tier
from stream_app.routing.domain import Scripts, scripts_of
from stream_app.routing.models import FloatArray, IndexArray, Scores, ServedModel
from stream_app.routing.payoff import Payoff, costs_of
from stream_app.routing.policy import Domain
from stream_app.routing.promises import Promise
from stream_app.routing.votes import Seen
from stream_app.settings import Task
from stream_app.training.cut import Judged
from stream_app.training.known import FOLDS, Known
from stream_app.training.promised import promises_of, refuse_unprovable
from stream_app.training.recorded import RecordedFile, RecordedRow, label_indexes
from stream_app.training.rounding import shortest
from stream_app.training.split import Parts, by_file, folds, refuse_too_few, split
from stream_app.training.tier_fit import fit_tier
from stream_app.training.voting import Recordings

STRANGE_SHARE = 0.01
STRANGER = 1.5
"""A text is foreign with half as many unknown words again as the calibration texts' strangest hundredth has.

At that hundredth itself one text in a hundred of the very traffic that was calibrated would be escalated for
nothing: a fifth of a budget of 5 %. With half as many again it is one in a thousand film reviews and four in a
thousand product reviews; texts in other languages know a third at the most. A few of those in the sample cost
little of the check.
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is promised beside the target: it may fail with probability `delta`, over such samples.

    With `each_file` it holds in every file's population by itself. `made_at` is UTC, ISO 8601. `llms` names the
    LLMs whose recorded answers say what asking them is worth: the first is the one asked, another one the second
    opinion. `prices` are what a token costs, relative to each other; one that is not named costs 1.
    """

    delta: float
    made_at: str
    each_file: bool = False
    llms: tuple[str, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Fitted:
    """A task's rows, each with one use, and its tiers, fitted but without cuts.

    Arrays are over all files' rows, in order. `samples` are the rows that certify, apart where each file is to do so
    by itself; `known_share` is what the first tier knows of them, `inside` are those of the calibrated domain, `used`
    those that the tiers were fitted on. `known` are the rows with recorded answers of every LLM named, None where
    none is.
    """

    task: Task
    labels: tuple[str, ...]
    rows: Sequence[RecordedRow]
    truth: IndexArray
    parts: Parts
    samples: Sequence[IndexArray]
    promises: Sequence[Promise]
    domain: Domain
    known_share: FloatArray
    inside: BoolArray
    used: IndexArray
    tiers: Sequence[Tier]
    judged: Sequence[Judged]
    known: Known | None


@dataclass(frozen=True, slots=True)
class Divided:
    """A task's rows, each with one use, and what is in the domain of those meant for calibration (as in `Fitted`)."""

    labels: tuple[str, ...]
    rows: Sequence[RecordedRow]
    truth: IndexArray
    parts: Parts
    samples: Sequence[IndexArray]
    domain: Domain
    known_share: FloatArray
    inside: BoolArray
    used: IndexArray


def divide(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> Divided:
    """The first of all steps. Raises SettingsError for a task that is not calibrated, and for a label of no model."""
    _refuse_unsuited(task, terms)
    rows = [row for file in files for row in file.rows]
    labels = served[task.models[0]].labels
    truth = np.array(label_indexes(rows, labels), np.intp)
    parts = split(rows)
    samples = by_file(files, parts.certification) if terms.each_file else [parts.certification]
    known_share = _known_share(task, scores)
    domain = _domain(rows, known_share, parts.calibration)
    inside = _inside(domain, rows, known_share)
    used = parts.calibration[inside[parts.calibration]]
    return Divided(labels, rows, truth, parts, samples, domain, known_share, inside, used)


def fit(
    task: Task,
    files: Sequence[RecordedFile],
    served: Mapping[str, ServedModel],
    scores: Mapping[str, Scores],
    terms: Terms,
) -> Fitted:
    """Split the rows and fit the tiers. Raises SettingsError where the rows cannot show what is to be shown."""
    divided = divide(task, files, served, scores, terms)
    labels, rows, truth, used = divided.labels, divided.rows, divided.truth, divided.used
    samples, inside = divided.samples, divided.inside
    promises = promises_of(task, labels, truth)
    if task.target_error is not None:
        refuse_too_few(task.target_error, terms.delta, len(rows), min(map(len, samples)))
    refuse_unprovable(task, promises, truth, samples, len(labels), terms.delta)
    payoff = Payoff.of(labels, costs_of(task))
    tiers = [
        replace(fit_tier(tuple(served[name] for name in names_of(tier)), scores, used, truth), payoff=payoff)
        for tier in task.tiers
    ]
    judged = [_judged(tier, scores) for tier in tiers]
    if len(set(judged[-1].label[used].tolist())) < 2:  # an answer to everything answers nothing
        raise SettingsError(
            f"task {task.name}: {' and '.join(task.models)} answer every text with the same label",
            advice="train a model that tells the labels apart; its answers are right only as often as the label is",
        )
    known = _known(task, terms, rows, inside, tiers, scores, truth) if terms.llms else None
    return Fitted(
        task,
        labels,
        rows,
        truth,
        divided.parts,
        samples,
        promises,
        divided.domain,
        divided.known_share,
        inside,
        used,
        tiers,
        judged,
        known,
    )


def _refuse_unsuited(task: Task, terms: Terms) -> None:
    if task.by_hand:
        raise SettingsError(
            f"task {task.name} has a threshold by hand", advice="calibration certifies a target_error"
        )
    if task.by_gain and not terms.llms:
        raise SettingsError(
            f"task {task.name} escalates where an LLM gains", advice="name one whose answers are recorded (--llm)"
        )


def _known(
    task: Task,
    terms: Terms,
    rows: Sequence[RecordedRow],
    inside: BoolArray,
    tiers: Sequence[Tier],
    scores: Mapping[str, Scores],
    truth: IndexArray,
) -> Known:
    """The rows inside the domain that have a recorded answer of every LLM named."""
    answered = np.array([all(row.has_answer_of(llm) for llm in terms.llms) for row in rows])
    if not answered.any():
        raise SettingsError(
            f"no row has a recorded answer of {' and '.join(terms.llms)}", advice="rows hold them in the field `llm`"
        )
    places = np.flatnonzero(answered & inside)
    chosen = [rows[int(place)] for place in places]
    probabilities, _, _ = tiers[-1].judge([scores[model.name] for model in tiers[-1].models])
    return Known(
        places,
        [_judged(tier, scores).rows(places) for tier in tiers],
        Seen(probabilities[places], np.array([len(row.text) for row in chosen], np.intp)),
        Recordings.of(terms.llms, chosen, tiers[0].models[0].labels, terms.prices),
        truth[places],
        folds(chosen, FOLDS),
        tiers[0].models[0].labels,
        costs_of(task),
    )


def _judged(tier: Tier, scores: Mapping[str, Scores]) -> Judged:
    _, label, confidence = tier.judge([scores[model.name] for model in tier.models])
    return Judged(label, confidence)


def names_of(tier: str | tuple[str, ...]) -> tuple[str, ...]:
    """The models of a tier as the settings write it."""
    return (tier,) if isinstance(tier, str) else tier


def _known_share(task: Task, scores: Mapping[str, Scores]) -> FloatArray:
    """What the first tier knows of each text: the least of its models' shares."""
    return np.minimum.reduce([scores[name].known_share for name in names_of(task.tiers[0])])


def _domain(rows: Sequence[RecordedRow], known_share: FloatArray, used: IndexArray) -> Domain:
    """What the calibration part's texts are like; their labels have no say in it."""
    texts = [rows[row].text for row in used]
    known = known_share[used]
    unknown = 1 - float(np.quantile(known, STRANGE_SHARE, method="lower"))
    least = np.float32(max(0.0, 1 - STRANGER * unknown))
    lengths: list[float] = np.quantile([len(text) for text in texts], [0.01, 0.5, 0.99]).tolist()
    return Domain(
        known_share_min=shortest(least),
        known_share_quantile=round(float((known < least).mean()), 6),
        scripts=scripts_of(texts),
        text_chars=(round(lengths[0], 1), round(lengths[1], 1), round(lengths[2], 1)),
    )


def _inside(domain: Domain, rows: Sequence[RecordedRow], known_share: FloatArray) -> BoolArray:
    admits = Scripts(domain.scripts).admits
    written = np.fromiter((admits(row.text) for row in rows), np.bool_, len(rows))
    return written & (known_share >= np.float32(domain.known_share_min))
