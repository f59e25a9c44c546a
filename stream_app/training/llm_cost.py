"""What a cascade's LLM calls cost against asking about everything: longer prompts and audits counted. Pure."""

from collections.abc import Sequence

import numpy as np

from stream_app.routing.calibration import BoolArray
from stream_app.training.recorded import RecordedRow


def cost_share(
    rows: Sequence[RecordedRow], accepted: BoolArray, extra_tokens: Sequence[float], audit_share: float
) -> float:
    """Input tokens, as a share of what plain prompts about all rows would take.

    `extra_tokens` is by how much each escalated row's prompt is longer than a plain one (shorter: below 0), in order.
    Of the accepted rows `audit_share` is asked too, uniformly, by a plain prompt: their expectation counts.
    """
    tokens = np.array([row.prompt_tokens for row in rows])
    asked = tokens[~accepted].sum() + float(np.sum(extra_tokens))
    return float((asked + audit_share * tokens[accepted].sum()) / tokens.sum())
