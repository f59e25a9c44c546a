"""Texts as hashed n-grams, read by the same compiled code that serves the models."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stream_app.training.templates.fast import scoring


class Part(Enum):
    """What of a text one row of a table is learned from: spans of its quarters, each of which makes a row.

    An opening or an ending is EDGE_TOKENS long at least.
    """

    WHOLE = ((0, 4),)
    OPENING = ((0, 1),)
    ENDING = ((3, 4),)
    HALVES = ((0, 2), (2, 4))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, and each as a row of distinct features: a matrix of ones, and the hashed feature of each column."""

    texts: Sequence[str]
    matrix: sparse.csr_array
    features: NDArray[np.int32]

    def rows(self, places: NDArray[np.int64]) -> "Corpus":
        """Some of the texts, with all the columns."""
        numbers: list[int] = places.tolist()
        return Corpus([self.texts[number] for number in numbers], self.matrix[places], self.features)

    def columns(self, places: NDArray[np.int64]) -> "Corpus":
        """All the texts, with some of the columns, which are in rising order."""
        return Corpus(self.texts, self.matrix[:, places], self.features[places])

    def of(self, part: Part) -> sparse.csr_array:
        """A part of each text as a matrix of ones; of a part of several spans first all rows of one span."""
        if part is Part.WHOLE:
            return self.matrix
        characters = Characters()
        return sparse.csr_array(
            sparse.vstack([characters.span(self.texts, self.features, *span) for span in part.value])
        )


class Characters:
    """Texts into hashed features; holds the tables that say what kind of character each is."""

    def __init__(self) -> None:
        self._tables = scoring.character_tables()

    def corpus(self, texts: Sequence[str], *, with_characters: bool) -> Corpus:
        """The texts' n-grams; with_characters adds the 3-5-grams of their characters."""
        found, pointers = scoring.distinct_features(*joined(texts), *self._tables, with_characters, 0, 4)
        features, columns = np.unique(found, return_inverse=True)
        ones = np.ones(found.size, np.float32)
        return Corpus(
            texts,
            sparse.csr_array((ones, columns.astype(np.int32), pointers), shape=(len(texts), features.size)),
            features.astype(np.int32),
        )

    def span(
        self, texts: Sequence[str], features: NDArray[np.int32], first_quarter: int, last_quarter: int
    ) -> sparse.csr_array:
        """Which of these features, given in rising order, end in these quarters of each text: a matrix of ones."""
        found, pointers = scoring.distinct_features(*joined(texts), *self._tables, False, first_quarter, last_quarter)
        columns = np.searchsorted(features, found).clip(max=max(0, features.size - 1))
        known = features[columns] == found if features.size else np.zeros(found.size, np.bool_)
        before = np.concatenate([[0], np.cumsum(known)])
        ones = np.ones(int(before[-1]), np.float32)
        shape = (len(texts), features.size)
        return sparse.csr_array((ones, columns[known].astype(np.int32), before[pointers]), shape=shape)

    def distinct_words(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """The distinct word features of each text, one text after the other."""
        return scoring.distinct_words(*joined(texts), *self._tables)[0]


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as UTF-8 in one buffer; a lone surrogate, which JSON can hold, becomes a question mark."""
    return scoring.joined([text.encode(errors="replace") for text in texts])
