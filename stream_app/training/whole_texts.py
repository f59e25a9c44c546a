"""Sets of labels, judged as answers to whole texts: right where every label is. Pure.

All that counts of such an answer is whether it is right. So two codes stand for however many sets there are, and what
counts by label's index (cuts, promises, costs) counts them.
"""

import numpy as np

from stream_app.routing.models import IndexArray
from stream_app.routing.votes import NO_ANSWER

RIGHT, WRONG = 0, 1
"""The truth of every text is RIGHT."""
CODES = 2


def graded(answers: IndexArray, truth: IndexArray) -> IndexArray:
    """RIGHT or WRONG for each set [N], NO_ANSWER where there is none."""
    return np.where(answers == NO_ANSWER, NO_ANSWER, np.where(answers == truth, RIGHT, WRONG))
