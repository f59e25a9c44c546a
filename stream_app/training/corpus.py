"""Texts as hashed n-grams, read by the same compiled code that serves the models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stream_app.training.templates.fast import scoring


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts as rows of distinct features: a matrix of ones, and the hashed feature of each column."""

    matrix: sparse.csr_array
    features: NDArray[np.int32]


class Characters:
    """Texts into hashed features; holds the tables that say what kind of character each is."""

    def __init__(self) -> None:
        self._tables = scoring.character_tables()

    def corpus(self, texts: Sequence[str], *, with_characters: bool) -> Corpus:
        """The texts' n-grams; with_characters adds the 3-5-grams of their characters."""
        found, pointers = scoring.distinct_features(*joined(texts), *self._tables, with_characters)
        features, columns = np.unique(found, return_inverse=True)
        ones = np.ones(found.size, np.float32)
        return Corpus(
            sparse.csr_array((ones, columns.astype(np.int32), pointers), shape=(len(texts), features.size)),
            features.astype(np.int32),
        )

    def distinct_words(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """The distinct word features of each text, one text after the other."""
        return scoring.distinct_words(*joined(texts), *self._tables)[0]


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as UTF-8 in one buffer; a lone surrogate, which JSON can hold, becomes a question mark."""
    return scoring.joined([text.encode(errors="replace") for text in texts])
