"""The words the stand-in knows (`lexicon.toml`), and what the names of labels mean."""

from __future__ import annotations

import tomllib
from importlib import resources


def _words() -> dict[str, frozenset[str]]:
    text = resources.files("stream_app.local.llm").joinpath("lexicon.toml").read_text(encoding="utf-8")
    return {name: frozenset(words.split()) for name, words in tomllib.loads(text).items()}


_LEXICON = _words()
POSITIVE = _LEXICON["positive"]
NEGATIVE = _LEXICON["negative"]
TOXIC = _LEXICON["toxic"]
NEGATIONS = _LEXICON["negations"]
TURNS = _LEXICON["turns"]
POSITIVE_SIGNS = _LEXICON["positive_signs"]
NEGATIVE_SIGNS = _LEXICON["negative_signs"]

# What a label means, by its name; labels that stand in none of these are judged by their own words.
LABELS_OF_SENSE: dict[str, frozenset[str]] = {
    "positive": frozenset({"positive", "pos", "good", "favorable", "favourable", "satisfied", "praise"}),
    "negative": frozenset({"negative", "neg", "bad", "unfavorable", "unfavourable", "dissatisfied", "complaint"}),
    "neutral": frozenset({"neutral", "mixed", "other", "unsure", "unknown"}),
    "toxic": frozenset(
        {"toxic", "hate", "hateful", "abusive", "abuse", "offensive", "insult", "harassment", "unsafe"}
    ),
    "clean": frozenset({"clean", "nontoxic", "nottoxic", "nohate", "nothate", "ok", "safe", "none", "civil", "fine"}),
}
