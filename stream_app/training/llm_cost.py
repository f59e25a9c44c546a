"""What a stream's LLM calls cost beyond plain prompts about what is escalated: longer prompts, and audits. Pure."""

from collections.abc import Sequence

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.training.asked import Asked
from stream_app.training.recorded import RecordedRow


def extra_cost_share(
    rows: Sequence[RecordedRow], accepted: BoolArray, asked: Asked, extra_tokens: Sequence[float], audit_share: float
) -> float:
    """Input tokens, as a share of what plain prompts of the first LLM about all rows would take.

    `extra_tokens` is by how much each escalated row's prompt is longer than a plain one (shorter: below 0), in order;
    a second opinion's is longer by as much, at its price. Of the accepted rows `audit_share` is asked too, uniformly,
    by a plain prompt: their expectation counts.
    """
    tokens = np.array([row.prompt_tokens for row in rows])
    price = asked.recorded.price_of(asked.recorded.llms[-1])
    calls = 1 + price * asked.voted.second[~accepted]
    longer = float((np.array(extra_tokens, np.float64) * calls).sum())
    return float((longer + audit_share * tokens[accepted].sum()) / tokens.sum())
