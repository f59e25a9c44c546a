"""A calibration's rows put to LLMs whose answers are recorded: what its policy, and others, make of them. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.routing.decide import Route, Routed
from stream_app.routing.models import IndexArray
from stream_app.training.asked import Asked
from stream_app.training.calibrate import Calibrated
from stream_app.training.recorded import RecordedRow
from stream_app.training.report.family import decided, family, offsets_of
from stream_app.training.report.front import Front, Seen, front
from stream_app.training.report.tradeoff import BY_HAND, Answered, Tradeoff, tradeoff
from stream_app.training.voting import Recordings


def prices_of(prices: Mapping[str, float], llms: Sequence[str]) -> dict[str, float]:
    """Those of these LLMs."""
    return {llm: price for llm, price in prices.items() if llm in llms}


def all_answered(llms: Sequence[str], rows: Sequence[RecordedRow]) -> BoolArray:
    """Which rows have a recorded answer, a refusal included, of every one of them."""
    return np.array([all(row.has_answer_of(llm) for llm in llms) for row in rows], np.bool_)


def asked_of(
    llms: Sequence[str], rows: Sequence[RecordedRow], made: Calibrated, routed: Routed, prices: Mapping[str, float]
) -> Asked:
    """What their answers come to by the policy's votes, were each row escalated."""
    recorded = Recordings.of(llms, rows, made.task.labels, prices_of(prices, llms))
    return Asked.of(recorded, made.task.votes, rows, routed)


def tradeoff_of(llms: tuple[str, ...], made: Calibrated, prices: Mapping[str, float]) -> Tradeoff:
    """Accuracy against cost on the test rows that they have answered."""
    evidence, test = made.evidence, made.evidence.parts.test
    here, texts = _answered(llms, made, test, prices)
    place = np.searchsorted(test, here)
    judged = evidence.judged()
    of_hand = decided(
        np.full(evidence.labels, BY_HAND, np.float32),
        [tier.rows(here) for tier in evidence.taken_at_their_word()],
        np.ones(len(here), np.bool_),
    )
    steps = family(judged, test[evidence.inside[test]], offsets_of(evidence))
    return tradeoff(
        llms,
        texts,
        (evidence.answers(made.routed.label[place], here), made.routed.accepted[place]),
        of_hand,
        [tier.rows(here) for tier in judged],
        evidence.inside[here],
        steps,
    )


def front_of(llms: tuple[str, ...], made: Calibrated, prices: Mapping[str, float]) -> Front | None:
    """The plans that no other beats; None where one of the two parts has no answer of the LLMs."""
    evidence, judged = made.evidence, made.evidence.judged()

    def seen(rows: IndexArray) -> Seen:
        here, texts = _answered(llms, made, rows, prices)
        return Seen([tier.rows(here) for tier in judged], evidence.inside[here], texts)

    chose, test = seen(evidence.chose), seen(evidence.parts.test)
    if not chose.inside.any() or not test.inside.any():
        return None
    return front(evidence.tiers, chose, test, offsets_of(evidence), made.ms_a_text)


def _answered(
    llms: tuple[str, ...], made: Calibrated, rows: IndexArray, prices: Mapping[str, float]
) -> tuple[IndexArray, Answered]:
    """Those of the rows that they have answered, and what the answers come to beside the last tier's."""
    evidence, tier = made.evidence, made.evidence.tiers[-1]
    here = rows[all_answered(llms, [evidence.rows[int(row)] for row in rows])]
    chosen = [evidence.rows[int(row)] for row in here]
    probabilities, label, confidence = tier.judge([evidence.scores[model.name].rows(here) for model in tier.models])
    route = np.where(evidence.inside[here], Route.UNSURE, Route.OUT_OF_DOMAIN).astype(np.int8)
    routed = Routed(label, confidence, probabilities, np.full(len(here), len(evidence.tiers) - 1, np.int8), route)
    asked = asked_of(llms, chosen, made, routed, prices)
    return here, Answered(
        truth=evidence.truth[here],
        given=evidence.answers(asked.recorded.answers[0], here),
        label=evidence.answers(asked.voted.label, here),
        tokens=np.array([row.prompt_tokens for row in chosen]),
        calls=1 + asked.recorded.price_of(asked.recorded.llms[-1]) * asked.voted.second,
    )
