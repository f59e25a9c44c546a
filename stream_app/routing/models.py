"""What a served small model is and what it answers, as values: no Triton here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model as Triton serves it; `labels` in the order of its output."""

    name: str
    version: str
    labels: tuple[str, ...]
    weights_sha256: str
    batch_records_max: int
    kind: str = "one_of"
    """`any_of` where each label has a probability by itself."""

    @property
    def ref(self) -> str:
        """`name:version`, as decisions name a model."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's answer to N texts: probabilities [N, labels], and known_share [N], 0 to 1.

    A row of probabilities sums to 1, but not where any label may be right.

    `known_share` is the share of a text's words that the model knows; a model that cannot say gives 1.
    """

    probabilities: FloatArray
    known_share: FloatArray

    def rows(self, rows: IndexArray) -> "Scores":
        """The scores of some of the texts, in the order of `rows`."""
        return Scores(self.probabilities[rows], self.known_share[rows])
