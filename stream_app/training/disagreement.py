"""How often an LLM's recorded answers differ from what is accepted: what audits are held against. Pure."""

from collections.abc import Sequence

from stream_app.routing.certification import error_bound
from stream_app.routing.decide import Routed
from stream_app.routing.policy import LlmDisagreement
from stream_app.training.recorded import RecordedRow
from stream_app.training.rounding import to_six_digits


def llm_disagreement(
    rows: Sequence[RecordedRow], routed: Routed, labels: tuple[str, ...], llm: str, delta: float
) -> LlmDisagreement | None:
    """The share among accepted `rows`; None where none has an answer recorded.

    The rows must not be those that the tiers were fitted on. Those that certified the cut may be among them: people's
    labels chose it, and no LLM's answers.
    """
    said = [
        row.code_of(row.answer_of(llm), labels) == int(label)
        for row, label, accepted in zip(rows, routed.label, routed.accepted, strict=True)
        if accepted and row.has_answer_of(llm)
    ]
    if not said:
        return None
    disagreed = said.count(False)
    bound = to_six_digits(error_bound(disagreed, len(said), delta))
    return LlmDisagreement(llm=llm, accepted=len(said), disagreed=disagreed, bound=bound)
