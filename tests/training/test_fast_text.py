"""The compiled loop of the fast models agrees with a plain reading of its rules, and never falls over."""

import re
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.training.corpus import Characters, Part
from stream_app.training.templates.fast import scoring

MASK = (1 << 64) - 1
TABLES = scoring.character_tables()


def folded(text: str) -> list[tuple[str, int, bool]]:
    """Each character that counts, in its plain form; its kind; and whether an ASCII letter follows it as written."""
    return [
        (
            chr(TABLES[1][ord(each)]) if ord(each) < scoring.PLANES_END else each,
            kind(each),
            re.match("[a-zA-Z]", text[at + 1 :]) is not None,
        )
        for at, each in enumerate(text)
        if kind(each) != scoring.IGNORED
    ]


def kind(character: str) -> int:
    code = ord(character)
    if code >= scoring.PLANES_END:
        return scoring.IDEOGRAPH if code < 0x40000 else scoring.IGNORED
    return int(TABLES[0][code])


def ignored_before(text: str) -> list[int]:
    """Before which of the characters that count something stands that does not: it ends a number, and a tag."""
    gaps, count, gap = [], 0, False
    for each in text:
        if kind(each) == scoring.IGNORED:
            gap = True
            continue
        if gap:
            gaps.append(count)
        count, gap = count + 1, False
    return gaps


def plain_tokens(text: str) -> list[tuple[str, bool]]:
    """Tokens and whether each is a word, by regular expressions over marked characters."""
    written, read = text, folded(text)
    text = "".join(character for character, _, _ in read)
    marks = "".join("_lds?i"[its] for _, its, _ in read)
    gaps = ignored_before(written)
    found: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        as_written = text[at : next((gap for gap in gaps if gap > at), None)]
        word = re.match(r"l+", marks[at:])
        if word:
            end = at + word.end()
            while text[end : end + 1] == "'" and read[end][2]:
                end += 1
                end += re.match(r"l*", marks[end:]).end()
            found.append((text[at:end], True))
        elif marks[at] == "d":
            end = at + re.match(r"[0-9]+(\.[0-9]+)?/[0-9]+|[0-9]+", as_written, re.ASCII).end()
            found.append((text[at:end], False))
        elif marks[at] == "_":
            end = at + 1
        elif tag := re.match(r"<[bB][rR] ?/?>", as_written):
            end = at + tag.end()
            found.append(("\n", False))
        else:
            end = at + 1
            found.append((text[at:end], marks[at] == "i"))
        at = end
    return found


def plain_hash(token: str) -> int:
    value = 0xCBF29CE484222325
    for character in token:
        value = (value ^ ord(character)) * 0x100000001B3 & MASK
    return mixed(value)


def mixed(value: int) -> int:
    value = (value ^ (value >> 32)) * 0x9E3779B97F4A7C15 & MASK
    return value ^ (value >> 32)


def compiled_tokens(data: bytes) -> list[tuple[int, bool]]:
    tokens, is_word = np.empty(len(data) + 1, np.uint64), np.empty(len(data) + 1, np.bool_)
    count = scoring.tokens_of(scoring.joined([data])[0], 0, len(data), *TABLES, tokens, is_word)
    return [(int(token), bool(word)) for token, word in zip(tokens[:count], is_word[:count], strict=True)]


CHARACTERS = st.one_of(st.characters(codec="utf-8"), st.sampled_from("aB'’9./< \n>brBR/7é中👍\u200b"))
TEXTS = st.text(CHARACTERS, max_size=60)


@settings(deadline=None, max_examples=400)
@given(TEXTS)
def test_tokens_agree_with_a_plain_reading(text: str) -> None:
    """The compiled tokeniser and the rules written as regular expressions give the same tokens."""
    expected = [(plain_hash(token), word) for token, word in plain_tokens(text)]
    assert compiled_tokens(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't", ["don't"]),
        ("don’t stop", ["don't", "stop"]),
        ("the dogs' bowl", ["the", "dogs", "'", "bowl"]),
        ("7.5/10, really", ["7.5/10", ",", "really"]),
        ("v2.0", ["v", "2", ".", "0"]),
        ("one<br />two<BR>three", ["one", "\n", "two", "\n", "three"]),
        ("ＧＲＥＡＴ", ["great"]),
        ("很好", ["很", "好"]),
        ("zero\u200bwidth", ["zerowidth"]),
        ("👍🏽", ["👍", "🏽"]),
        ("\x00 \x00", []),
    ],
)
def test_tokens_of_real_writing(text: str, tokens: list[str]) -> None:
    """What people type comes apart into the tokens one would expect."""
    assert compiled_tokens(text.encode()) == [(plain_hash(token), word) for token, word in plain_tokens(text)]
    assert [token for token, _ in plain_tokens(text)] == tokens


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80))
def test_bytes_that_are_not_text_are_tokens_of_the_replacement_character(data: bytes) -> None:
    """Invalid UTF-8 reads as U+FFFD byte by byte, and valid stretches beside it as they are."""
    readable = data.decode("utf-8", errors="surrogateescape")
    readable = "".join("\ufffd" if "\udc80" <= each <= "\udcff" else each for each in readable)
    assert compiled_tokens(data) == compiled_tokens(readable.encode())


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, (1 << scoring.FEATURE_BITS) - 1), unique=True, max_size=300), st.data())
def test_table_finds_exactly_what_was_entered(features: list[int], data: st.DataObject) -> None:
    """Every entered feature is found with its value and no other feature is, whatever their bits."""
    entered = np.array(sorted(features), np.int32)
    values = np.arange(1, len(features) + 1, dtype=np.int64)
    sieve, keys, by_slot = scoring.table(entered, values)
    shift = scoring.FEATURE_BITS - (keys.size - 1).bit_length()
    for feature, value in zip(entered.tolist(), values.tolist(), strict=True):
        assert by_slot[scoring.slot_of(keys, feature, shift)] == value
        low = feature & (8 * sieve.size - 1)
        assert sieve[low >> 3] >> (low & 7) & 1
    other = data.draw(st.integers(0, (1 << scoring.FEATURE_BITS) - 1).filter(lambda each: each not in set(features)))
    assert keys[scoring.slot_of(keys, other, shift)] == 0


def test_crowded_table_grows_until_a_search_is_exact() -> None:
    """Features that all want one place do not fit a small table; it grows instead of answering wrongly."""
    features = np.arange(600, dtype=np.int32)
    _, keys, by_slot = scoring.table(features, np.arange(600, dtype=np.int64))
    shift = scoring.FEATURE_BITS - (keys.size - 1).bit_length()
    assert [by_slot[scoring.slot_of(keys, int(feature), shift)] for feature in features] == list(range(600))
    assert keys[scoring.slot_of(keys, 5_000_000, shift)] == 0


def plain_grams(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """The features of the 1-3-grams, each with the token it ends at; and the tokens."""
    tokens = [plain_hash(token) for token, _ in plain_tokens(text)]
    grams: list[tuple[int, int]] = []
    for at, token in enumerate(tokens):
        grams.append((token >> 38, at))
        if at >= 1:
            pair = mixed((tokens[at - 1] * 0x100000001B3 & MASK) ^ token)
            grams.append((pair >> 38, at))
        if at >= 2:
            before = mixed((tokens[at - 2] * 0x100000001B3 & MASK) ^ tokens[at - 1])
            grams.append((mixed((before * 0x100000001B3 & MASK) ^ token) >> 38, at))
    return grams, tokens


def plain_sentences(text: str, weights: dict[int, int]) -> list[float]:
    """What is kept of the sentences' scores, by the definition; the text is not empty."""
    grams, tokens = plain_grams(text)
    stops = {plain_hash(stop) for stop in (".", "!", "?", "\n")}
    numbers = [0]
    for before, token in pairwise(tokens):
        numbers.append(numbers[-1] + (before in stops and token not in stops))
    found: list[list[int]] = [[] for _ in range(numbers[-1] + 1)]
    for gram, at in grams:
        if gram in weights:
            found[numbers[at]].append(weights[gram])
    scores = np.array([sum(sentence) / (len(sentence) + 1) ** 0.5 for sentence in found])
    squashed = scores / (1 + abs(scores) / 20)
    return [
        *(scores.max(), scores.min(), scores.mean(), scores.std()),
        *(squashed.mean(), squashed.sum() / len(scores) ** 0.5, (scores / (1 + abs(scores) / 10)).mean()),
        *(scores[0], scores[-1], scores[-2] if len(scores) > 1 else 0.0),
    ]


def plain_scores(text: str, weights: dict[int, int], but: int) -> list[float]:
    """The scores by the definition: sums over n-grams by the token they end at, each over its own norm."""
    grams, tokens = plain_grams(text)
    count = len(tokens)
    last_but = max((at for at, token in enumerate(tokens) if token == but), default=count)
    inside = [lambda at, quarter=quarter: at * 4 // count == quarter for quarter in range(4)] + [
        lambda at: at < scoring.EDGE_TOKENS,
        lambda at: at >= count - scoring.EDGE_TOKENS,
        lambda at: at > last_but,
    ]
    found = [(weights[gram], at) for gram, at in grams if gram in weights]
    distinct = {gram for gram, _ in grams} & weights.keys()
    whole = sum(weights[gram] for gram in distinct) / (len(distinct) + 1) ** 0.5
    parts = [[weight for weight, at in found if within(at)] for within in inside]
    return [whole, *(sum(part) / (len(part) + 1) ** 0.5 for part in parts)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.sampled_from(["good", "bad", "but", "not", "very", "film", ",", "7/10", ".", "!?", "<br />"]), max_size=120
    )
)
def test_scores_agree_with_their_definition(words: list[str]) -> None:
    """Sieve, table, stamps and running sums give what the definition of each part's and sentence's score gives."""
    text = " ".join(words)
    sample = "good but bad not very good . film 7/10 bad film ! but not bad . good <br />"
    grams, _ = scoring.distinct_features(*scoring.joined([sample.encode()]), *TABLES, False, 0, 4)
    weights = {int(gram): place % 255 - 127 for place, gram in enumerate(sorted(grams.tolist()))}
    learned = scoring.table(
        np.array(sorted(weights), np.int32), np.array([[weights[gram]] for gram in sorted(weights)], np.int8)
    )
    none = scoring.table(np.zeros(0, np.int32), np.zeros(0, np.uint8))
    served = scoring.FastText(learned, none, with_characters=False, with_sentences=True)
    parts, _ = served.scores([b"a", text.encode(), b""])
    expected = plain_scores(text, weights, plain_hash("but"))
    assert parts[1, : len(scoring.SEGMENTS), 0] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    if words:
        of_sentences = plain_sentences(text, weights)
        assert parts[1, len(scoring.SEGMENTS) :, 0] == pytest.approx(of_sentences, rel=1e-4, abs=1e-3)
    assert not parts[2].any()
    plain = scoring.FastText(learned, none, with_characters=False, with_sentences=False)
    assert np.array_equal(plain.scores([text.encode()])[0][0], parts[1, : len(scoring.SEGMENTS)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["good", "bad", "not", "film", "."]), max_size=200), st.sampled_from(list(Part)))
def test_parts_of_a_text_are_its_quarters(words: list[str], part: Part) -> None:
    """A table is learned from the n-grams that end in a part; an opening or an ending is 40 tokens at least."""
    text = " ".join(words)
    corpus = Characters().corpus(["good film . bad film . not good film", text], with_characters=False)
    grams, tokens = plain_grams(text)
    count = len(tokens)
    for span, (first, last) in enumerate(part.value):
        start, stop = (-(-quarter * count // 4) for quarter in (first, last))
        start = min(start, max(0, count - 40)) if part is Part.ENDING else start
        stop = max(stop, min(count, 40)) if part is Part.OPENING else stop
        expected = {gram for gram, at in grams if start <= at < stop}
        row = corpus.of(part)[[2 * span + 1]]
        assert set(corpus.features[row.indices].tolist()) == expected
        assert (row.data == 1).all()


def test_every_letter_case_form_and_script_has_a_kind() -> None:
    """Kinds follow Unicode: letters, marks and foreign digits build words, symbols stand alone, Han does too."""
    kinds = {character: kind(character) for character in "aÉжن한9٣中の!👍\u0301\u200d\ufe0f\u3000"}
    letters = {character for character, found in kinds.items() if found == scoring.LETTER}
    assert letters == set("aÉжن한٣\u0301")
    assert {each for each, found in kinds.items() if found == scoring.IDEOGRAPH} == set("中の")
    assert {each for each, found in kinds.items() if found == scoring.IGNORED} == set("\u200d\ufe0f")
    assert unicodedata.category("٣") == "Nd"
