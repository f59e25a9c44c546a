"""The words a model knows, behind its KNOWN_SHARE output.

A word is known when enough training texts hold it and it is not a function word of another language;
a function word that is ordinary in the training texts too decides nothing. So a text in another
language, in Latin letters or not, short or not, has a low share of known words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.training.corpus import Characters
from stream_app.training.languages import function_words

TEXTS_PER_OCCURRENCE = 14_000
"""A word must stand in one text of this many, in one text at least: 5 of 69,000."""
ORDINARY_SHARE = 0.005
"""A function word in this share of the training texts belongs to their language as well."""
OWN_LANGUAGE_SHARE = 0.5
"""A language most of whose function words are ordinary in the training texts is one of theirs."""

UNKNOWN, KNOWN, SHARED = range(3)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words as hashed features, and the class of each: known, or shared with other languages."""

    words: NDArray[np.int32]
    classes: NDArray[np.uint8]


def learn_vocabulary(texts: Sequence[str]) -> Vocabulary:
    """The vocabulary of these texts, which should be in the languages the model is meant for."""
    characters = Characters()
    found, counts = np.unique(characters.distinct_words(texts), return_counts=True)
    enough = max(1, round(len(texts) / TEXTS_PER_OCCURRENCE))
    ordinary = set(found[counts >= ORDINARY_SHARE * len(texts)].tolist())
    classes = dict.fromkeys(found[counts >= enough].tolist(), KNOWN)
    for words in function_words().values():
        features = set(characters.distinct_words(sorted(words)).tolist())
        if len(features & ordinary) < OWN_LANGUAGE_SHARE * len(features):
            classes.update(dict.fromkeys(features - ordinary, UNKNOWN))
            classes.update(dict.fromkeys(features & ordinary, SHARED))
    kept = np.array(sorted(word for word, kind in classes.items() if kind != UNKNOWN), np.int32)
    return Vocabulary(kept, np.array([classes[word] for word in kept.tolist()], np.uint8))
