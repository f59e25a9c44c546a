"""Numbers in the policy file as people read them."""

from typing import Any

import numpy as np


def to_six_digits(number: float | np.floating[Any]) -> float:
    """Six digits: more would be read as more than a sample can tell."""
    return round(float(number), 6)


def shortest(number: np.float32) -> float:
    """The float with the fewest digits that is this float32: what people read in the policy file."""
    return float(str(number))
