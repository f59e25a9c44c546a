"""From the bytes of texts to label scores in one compiled loop; shared by training and serving.

This file is copied into every fast model's folder and stands alone: numpy and numba are all it needs.

Tokens, lower-cased: a run of letters with inner apostrophes, a rating such as 7/10 or 7.5/10, a run
of digits, a line-break tag, one ideograph, or one other visible character. Characters that only shape
the text, such as a zero-width space, are passed over in a word, and end a number or a tag. Bytes that are
not UTF-8 count as U+FFFD, one each. Features are word 1-3-grams (and, where asked, the 3-5-grams of a word's
characters), hashed to FEATURE_BITS. A text's score is the sum of its distinct known features'
weights over sqrt(count + 1), as in NB-SVM (Wang and Manning, 2012) with one common norm; the same is
taken over parts of the text and, where asked, over its sentences, of which what matters in sum is kept;
a small linear layer turns the scores into log-odds.
"""

import fcntl
import functools
import hashlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit
from numba.core import caching

ONE_OF, ANY_OF = "one_of", "any_of"


@functools.cache
def _content_of(file: str) -> str:
    """The sha-256 of a file of code, read once for all of its functions."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


if hasattr(caching, "UserProvidedCacheLocator"):  # numba before 0.68 compiles for each model folder

    class ByContent(caching.UserProvidedCacheLocator):
        """Where NUMBA_CACHE_DIR is set, compiled code stands there by this file's content: fast models share it."""

        @classmethod
        def get_suitable_cache_subpath(cls, py_file: str) -> str:
            """The folder in NUMBA_CACHE_DIR."""
            return _content_of(py_file)

    config.CACHE_LOCATOR_CLASSES = f"{__name__}.ByContent,InTreeCacheLocator,UserWideCacheLocator"

SPACE, LETTER, DIGIT, SYMBOL, IGNORED, IDEOGRAPH = range(6)
FEATURE_BITS = 26
PLANES_END = 0x20000  # the character tables cover planes 0 and 1; planes 2 and 3 are ideographs

_FNV_START = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_TO_FEATURE = np.uint64(64 - FEATURE_BITS)
_BREAK = np.uint64(0x0A)  # a line-break tag hashes as a newline would, which is never a token
_APOSTROPHE = np.uint64(0x27)
_CHARS = np.uint64(0x7F)  # starts the hash of character n-grams: they never equal a word's

KEY_BITS = 15
_KEY_MASK = (1 << KEY_BITS) - 1
TABLE_BITS_MIN = 16  # KEY_BITS + 16 - FEATURE_BITS = 5: a feature may be moved by 2**5 - 2 slots
_SIEVE_MASK = (1 << 19) - 1  # 64 KB, an eighth of its bits set by 65,536 features: it stays in the nearest caches

SEGMENTS = ("whole", "first", "second", "third", "fourth", "opening", "ending", "after_but")
"""The parts of a text that are scored: all of it, its quarters, its first and last EDGE_TOKENS
tokens, and what follows the last "but"."""
EDGE_TOKENS = 40

SENTENCES = (
    *("highest", "lowest", "mean", "deviation", "squashed", "squashed_sum", "squashed_more"),
    *("first", "last", "last_but_one"),
)
"""What is kept of the scores of a text's sentences, of which each ends with a run of `.`, `!`, `?` and line breaks.

`squashed` is the mean of the scores, each squashed to less than SQUASH_STEPS either way; `squashed_sum` is their sum
over the root of their number; `squashed_more` the mean at half of SQUASH_STEPS."""
SQUASH_STEPS = np.float32(20)
"""About a standard deviation of a sentence's score, in steps of int8 weights: one sentence is not to outvote ten."""
_SEGMENTS, _SENTENCES = len(SEGMENTS), len(SENTENCES)


@functools.cache
def character_tables() -> tuple[Any, Any]:
    """The kind of each code point below PLANES_END, and the one it is folded to: made once, not to be written to."""
    kinds = np.empty(PLANES_END, np.uint8)
    folds = np.arange(PLANES_END, dtype=np.uint32)
    for code in range(PLANES_END):
        character = chr(code)
        kinds[code] = _kind(code, unicodedata.category(character))
        if unicodedata.category(character)[0] == "L":
            folded = unicodedata.normalize("NFKC", character).lower()
            folds[code] = ord(folded) if len(folded) == 1 else code
    folds[0x2019] = 0x27  # the apostrophe that word processors write
    return kinds, folds


def _kind(code: int, category: str) -> int:
    if 0x30 <= code <= 0x39:
        return DIGIT
    if (0x2E80 <= code < 0xA4D0 and category in {"Lo", "Nl", "So"}) or 0xF900 <= code < 0xFB00:
        return IDEOGRAPH
    if category[0] in "LM" or category in {"Nd", "Nl"}:
        return IGNORED if 0xFE00 <= code <= 0xFE0F else LETTER
    if category in {"Cf", "Cs"}:
        return IGNORED
    return SPACE if category[0] in "ZC" else SYMBOL


@njit(cache=True)
def _mixed(value: Any) -> Any:
    value = (value ^ (value >> _SHIFT)) * _MIX
    return value ^ (value >> _SHIFT)


@njit(cache=True)
def _code_point(text: Any, at: int, stop: int) -> tuple[int, int]:
    """The code point at `at` and its width in bytes; U+FFFD and 1 where it is not UTF-8."""
    lead = np.int64(text[at])
    if lead < 0xC2 or lead > 0xF4:
        return 0xFFFD, 1
    width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if at + width > stop:
        return 0xFFFD, 1
    code = lead & (0x7F >> width)
    for step in range(1, width):
        byte = np.int64(text[at + step])
        if byte & 0xC0 != 0x80:
            return 0xFFFD, 1
        code = (code << 6) | (byte & 0x3F)
    if (width == 3 and (code < 0x800 or 0xD800 <= code < 0xE000)) or (
        width == 4 and (code < 0x10000 or code > 0x10FFFF)
    ):
        return 0xFFFD, 1
    return code, width


@njit(cache=True)
def _digits_end(text: Any, at: int, stop: int) -> int:
    while at < stop and 48 <= text[at] <= 57:
        at += 1
    return at


@njit(cache=True)
def _number_end(text: Any, at: int, stop: int) -> int:
    """The end of `digits[.digits]/digits` at `at`, else of the digits alone."""
    whole = _digits_end(text, at, stop)
    rated = whole
    if rated < stop and text[rated] == 46:
        fraction = _digits_end(text, rated + 1, stop)
        if fraction > rated + 1:
            rated = fraction
    if rated < stop and text[rated] == 47:
        out_of = _digits_end(text, rated + 1, stop)
        if out_of > rated + 1:
            return out_of
    return whole


@njit(cache=True)
def _break_end(text: Any, at: int, stop: int) -> int:
    """The end of a line-break tag that starts at `at`, or `at` when none does."""
    if at + 3 >= stop or text[at + 1] | 32 != 98 or text[at + 2] | 32 != 114:
        return at
    end = at + 3
    if text[end] == 32:
        end += 1
    if end < stop and text[end] == 47:
        end += 1
    return end + 1 if end < stop and text[end] == 62 else at


@njit(cache=True)
def _is_ascii_letter(byte: int) -> bool:
    return 97 <= byte | 32 <= 122


@njit(cache=True)
def tokens_of(  # noqa: C901 - one pass over the bytes, one branch per kind of character
    text: Any, start: int, stop: int, kinds: Any, folds: Any, tokens: Any, is_word: Any
) -> int:
    """Write the hash of each token of text[start:stop], and whether it is a word; their count."""
    count = 0
    word = _FNV_START
    in_word = False
    at = start
    while at < stop:
        byte = text[at]
        code, width = (np.int64(byte), 1) if byte < 128 else _code_point(text, at, stop)
        if code < PLANES_END:
            kind, folded = kinds[code], np.uint64(folds[code])
        else:
            kind, folded = (IDEOGRAPH if code < 0x40000 else IGNORED), np.uint64(code)
        if kind == LETTER:
            word = (word ^ folded) * _FNV_PRIME
            in_word = True
            at += width
            continue
        if kind == IGNORED:
            at += width
            continue
        if in_word:
            if folded == _APOSTROPHE and at + width < stop and _is_ascii_letter(text[at + width]):
                word = (word ^ _APOSTROPHE) * _FNV_PRIME
                at += width
                continue
            tokens[count], is_word[count] = _mixed(word), True
            count += 1
            word = _FNV_START
            in_word = False
        if kind == DIGIT:
            end = _number_end(text, at, stop)
            number = _FNV_START
            for digit in range(at, end):
                number = (number ^ np.uint64(text[digit])) * _FNV_PRIME
            tokens[count], is_word[count] = _mixed(number), False
            count += 1
            at = end
        elif kind != SPACE:
            end = _break_end(text, at, stop) if code == 60 else at
            symbol = folded if end == at else _BREAK
            tokens[count] = _mixed((_FNV_START ^ symbol) * _FNV_PRIME)
            is_word[count] = kind == IDEOGRAPH
            count += 1
            at = end if end > at else at + width
        else:
            at += width
    if in_word:
        tokens[count], is_word[count] = _mixed(word), True
        count += 1
    return count


@njit(cache=True)
def _word_grams(tokens: Any, count: int, features: Any) -> int:
    """Write the 1-3-grams that end at each token in turn; their number. See `_first_gram`."""
    made = 0
    pair_before = np.uint64(0)
    for at in range(count):
        features[made] = np.int32(tokens[at] >> _TO_FEATURE)
        made += 1
        if at >= 1:
            pair = _mixed((tokens[at - 1] * _FNV_PRIME) ^ tokens[at])
            features[made] = np.int32(pair >> _TO_FEATURE)
            made += 1
            if at >= 2:
                triple = _mixed((pair_before * _FNV_PRIME) ^ tokens[at])
                features[made] = np.int32(triple >> _TO_FEATURE)
                made += 1
            pair_before = pair
    return made


@njit(cache=True)
def _first_gram(token: int) -> int:
    """Where the n-grams that end at this token start: one ends at the first, two at the second, then three."""
    return token if token < 2 else 3 * token - 3


@njit(cache=True)
def _character_grams(text: Any, start: int, stop: int, kinds: Any, folds: Any, features: Any, made: int) -> int:
    """Append the 3-5-grams over the text's folded characters, every gap being one space."""
    window = np.zeros(5, np.uint64)
    window[4] = np.uint64(32)
    filled = 1
    at = start
    while at <= stop:
        kind, folded, width = SPACE, np.uint64(32), 1
        if at < stop:
            code, width = (np.int64(text[at]), 1) if text[at] < 128 else _code_point(text, at, stop)
            if code < PLANES_END:
                kind, folded = kinds[code], np.uint64(folds[code])
            else:
                kind, folded = IDEOGRAPH, np.uint64(code)
        at += width
        if kind == SPACE:
            folded = np.uint64(32)
        if kind == IGNORED or (kind == SPACE and window[4] == np.uint64(32)):
            continue
        for place in range(4):
            window[place] = window[place + 1]
        window[4] = folded
        filled = min(filled + 1, 5)
        for length in range(3, filled + 1):
            gram = _FNV_START ^ _CHARS
            for place in range(5 - length, 5):
                gram = (gram ^ window[place]) * _FNV_PRIME
            features[made] = np.int32(_mixed(gram) >> _TO_FEATURE)
            made += 1
    return made


@njit(cache=True)
def _span(count: int, first_quarter: int, last_quarter: int) -> tuple[int, int]:
    """Where these quarters of a text's tokens start and stop; a single one at an end has EDGE_TOKENS at least."""
    start, stop = (first_quarter * count + 3) // 4, (last_quarter * count + 3) // 4
    if last_quarter - first_quarter == 1:
        if first_quarter == 0:
            stop = max(stop, min(count, EDGE_TOKENS))
        if last_quarter == 4:
            start = min(start, max(0, count - EDGE_TOKENS))
    return start, stop


@njit(cache=True)
def distinct_features(
    text: Any, offsets: Any, kinds: Any, folds: Any, with_characters: bool, first_quarter: int, last_quarter: int
) -> tuple[Any, Any]:
    """For training: the distinct features of these quarters of each text (0, 4: all), sorted, as (indices, row
    pointers). An n-gram is in the quarter where it ends; characters are those of the whole text.
    """
    rows = offsets.size - 1
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    tokens = np.empty(longest + 1, np.uint64)
    is_word = np.empty(longest + 1, np.bool_)
    scratch = np.empty(6 * longest + 16, np.int32)
    found = np.empty(max(1024, int(offsets[-1])), np.int32)
    pointers = np.zeros(rows + 1, np.int64)
    used = 0
    for row in range(rows):
        count = tokens_of(text, offsets[row], offsets[row + 1], kinds, folds, tokens, is_word)
        made = _word_grams(tokens, count, scratch)
        if with_characters:
            made = _character_grams(text, offsets[row], offsets[row + 1], kinds, folds, scratch, made)
        if last_quarter - first_quarter < 4:
            start, stop = _span(count, first_quarter, last_quarter)
            first, made = _first_gram(start), _first_gram(stop) - _first_gram(start)
            scratch[:made] = scratch[first : first + made].copy()
        if used + made > found.size:
            grown = np.empty(2 * found.size + made, np.int32)
            grown[:used] = found[:used]
            found = grown
        ordered = np.sort(scratch[:made])
        for at in range(made):
            if at == 0 or ordered[at] != ordered[at - 1]:
                found[used] = ordered[at]
                used += 1
        pointers[row + 1] = used
    return found[:used], pointers


@njit(cache=True)
def distinct_words(text: Any, offsets: Any, kinds: Any, folds: Any) -> tuple[Any, Any]:
    """For training: the distinct word features of each text, as (indices, row pointers)."""
    rows = offsets.size - 1
    tokens = np.empty(offsets[-1] + 1, np.uint64)
    is_word = np.empty(offsets[-1] + 1, np.bool_)
    found = np.empty(offsets[-1] + 1, np.int32)
    pointers = np.zeros(rows + 1, np.int64)
    used = 0
    for row in range(rows):
        count = tokens_of(text, offsets[row], offsets[row + 1], kinds, folds, tokens, is_word)
        words = np.empty(count, np.int32)
        size = 0
        for at in range(count):
            if is_word[at]:
                words[size] = np.int32(tokens[at] >> _TO_FEATURE)
                size += 1
        ordered = np.sort(words[:size])
        for at in range(size):
            if at == 0 or ordered[at] != ordered[at - 1]:
                found[used] = ordered[at]
                used += 1
        pointers[row + 1] = used
    return found[:used], pointers


@njit(cache=True)
def slot_of(keys: Any, feature: int, shift: int) -> int:
    """The slot of a feature in an open-addressed table, or the empty slot (key 0) where it would go.

    A key is the feature's low bits. They overlap the bits that chose the slot, so that features with one key
    have homes far apart; `fill` sees to it that none is moved that far, and a search is exact.
    """
    key = np.uint16((feature & _KEY_MASK) + 1)
    slot = feature >> shift
    while keys[slot] != key and keys[slot] != 0:
        slot = (slot + 1) & (keys.size - 1)
    return slot


@njit(cache=True)
def fill(keys: Any, features: Any, shift: int, slots: Any) -> bool:
    """Enter the features into an empty table and write their slots; False where one was moved too far."""
    moved_max = (1 << (KEY_BITS - shift)) - 1
    for place in range(features.size):
        feature = np.int64(features[place])
        slot = slot_of(keys, feature, shift)
        if keys[slot] != 0 or ((slot - (feature >> shift)) & (keys.size - 1)) >= moved_max:
            return False
        keys[slot] = np.uint16((feature & _KEY_MASK) + 1)
        slots[place] = slot
    return True


@njit(cache=True)
def _known_share(tokens: Any, is_word: Any, count: int, keys: Any, classes: Any, shift: int) -> float:
    """Known among known and unknown words; shared words decide only where nothing else does."""
    tally = np.zeros(3, np.int64)
    for at in range(count):
        if is_word[at]:
            tally[classes[slot_of(keys, np.int64(tokens[at] >> _TO_FEATURE), shift)]] += 1
    if tally[0] + tally[1] > 0:
        return tally[1] / (tally[0] + tally[1])
    return 1.0 if tally[2] > 0 else 0.0


@njit(cache=True)
def _segment_ends(tokens: Any, count: int, made: int, but: Any, ends: Any) -> None:
    """Write where each segment after the first starts and stops, counted in n-grams."""
    for quarter in range(4):
        ends[1 + quarter, 0] = _first_gram((quarter * count + 3) // 4)
        ends[1 + quarter, 1] = _first_gram(((quarter + 1) * count + 3) // 4)
    ends[5, 0], ends[5, 1] = 0, _first_gram(min(count, EDGE_TOKENS))
    ends[6, 0], ends[6, 1] = _first_gram(max(0, count - EDGE_TOKENS)), made
    after_but = count
    for at in range(count):
        if tokens[at] == but:
            after_but = at + 1
    ends[7, 0], ends[7, 1] = _first_gram(after_but), made
    for segment in range(1, 8):
        for side in range(2):
            ends[segment, side] = min(ends[segment, side], made)


@njit(cache=True)
def _hits_before(grams: Any, hits: int, end: int) -> int:
    """How many of the hits, in rising order of their n-gram, come before n-gram `end`."""
    low, high = 0, hits
    while low < high:
        middle = (low + high) // 2
        if grams[middle] < end:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _sentence_ends(tokens: Any, count: int, made: int, stops: Any, ends: Any) -> int:
    """Write where each sentence ends, counted in n-grams; their number."""
    found = 0
    stopped = False
    for at in range(count):
        token = tokens[at]
        if token == stops[0] or token == stops[1] or token == stops[2] or token == stops[3]:
            stopped = True
        elif stopped:
            ends[found] = _first_gram(at)
            found += 1
            stopped = False
    if count > 0:
        ends[found] = made
        found += 1
    return found


@njit(cache=True)
def _of_sentences(grams: Any, hits: int, sums: Any, ends: Any, sentences: int, kept: Any) -> None:
    """Write the SENTENCES of each column into `kept`, shape [len(SENTENCES), columns]; `ends` then counts hits."""
    last = 0
    for sentence in range(sentences):
        while last < hits and grams[last] < ends[sentence]:
            last += 1
        ends[sentence] = last
    for column in range(sums.shape[1]):
        highest, lowest = np.float32(-np.inf), np.float32(np.inf)
        total, squares, squashed, squashed_more = 0.0, 0.0, np.float32(0), np.float32(0)
        score, before, start = np.float32(0), np.float32(0), 0
        for sentence in range(sentences):
            before, end = score, ends[sentence]
            score = np.float32(sums[end, column] - sums[start, column]) / np.sqrt(np.float32(end - start + 1))
            if sentence == 0:
                kept[7, column] = score
            start = end
            highest, lowest = max(highest, score), min(lowest, score)
            total += score
            squares += np.float64(score) * score
            size = abs(score)
            squashed += score * SQUASH_STEPS / (SQUASH_STEPS + size)
            squashed_more += score * SQUASH_STEPS / (SQUASH_STEPS + 2 * size)
        mean = total / sentences
        kept[0, column], kept[1, column], kept[2, column] = highest, lowest, mean
        kept[3, column] = np.sqrt(max(0.0, squares / sentences - mean * mean))
        kept[4, column], kept[5, column] = squashed / sentences, squashed / np.sqrt(np.float32(sentences))
        kept[6, column] = squashed_more / sentences
        kept[8, column], kept[9, column] = score, before


@njit(cache=True)
def scores(  # noqa: C901, PLR0915 - the compiled loop: its parts that could be named are functions
    text: Any,
    offsets: Any,
    characters: Any,
    learned: Any,
    words: Any,
    marks: Any,
    with_characters: bool,
    with_sentences: bool,
) -> Any:
    """Each text's scores, shape [texts, segments, columns of weights], and its known share.

    `characters` are the character tables; `learned` is a table's filter, keys and weights by slot (int8; what a
    step is worth is in the linear layer); `words` likewise with a class by slot: 0 unknown, 1 known, 2 shared with
    other languages; `marks` are the tokens that cut a text: the one after which the last segment starts, then those
    that end a sentence. `with_sentences` adds the SENTENCES after the SEGMENTS.
    """
    kinds, folds = characters
    sieve, keys, weights = learned
    _, word_keys, word_classes = words
    shift, word_shift = FEATURE_BITS - _bits(keys.size), FEATURE_BITS - _bits(word_keys.size)
    rows, columns = offsets.size - 1, weights.shape[1]
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    tokens = np.empty(longest + 1, np.uint64)
    is_word = np.empty(longest + 1, np.bool_)
    grams_max = (6 if with_characters else 3) * longest + 16
    features = np.empty(grams_max, np.int32)
    grams = np.empty(grams_max, np.int32)
    sums = np.empty((grams_max, columns), np.int32)
    sums[0] = 0
    whole = np.empty(columns, np.int32)
    stamps = np.zeros(keys.size, np.uint8)
    ends = np.zeros((8, 2), np.int64)
    sentence_ends = np.empty(longest + 2, np.int64)
    result = np.zeros((rows, _SEGMENTS + _SENTENCES * with_sentences, columns), np.float32)
    known = np.zeros(rows, np.float32)
    for row in range(rows):
        start, stop = offsets[row], offsets[row + 1]
        count = tokens_of(text, start, stop, kinds, folds, tokens, is_word)
        known[row] = _known_share(tokens, is_word, count, word_keys, word_classes, word_shift)
        made = _word_grams(tokens, count, features)
        _segment_ends(tokens, count, made, marks[0], ends)
        sentences = _sentence_ends(tokens, count, made, marks[1:], sentence_ends) if with_sentences else 0
        if with_characters:
            made = _character_grams(text, start, stop, kinds, folds, features, made)
        candidates = 0  # written always and kept by adding 0 or 1: a branch here would be mispredicted
        for at in range(made):
            grams[candidates] = at
            place = features[at] & _SIEVE_MASK
            candidates += (sieve[place >> 3] >> (place & 7)) & 1
        stamp = np.uint8(1 + row % 255)
        if stamp == 1:
            stamps[:] = 0
        hits, distinct = 0, 0
        whole[:] = 0
        for candidate in range(candidates):
            slot = slot_of(keys, np.int64(features[grams[candidate]]), shift)
            if keys[slot] == 0:
                continue
            grams[hits] = grams[candidate]
            fresh = np.int32(stamps[slot] != stamp)
            stamps[slot] = stamp
            distinct += fresh
            for column in range(columns):
                weight = np.int32(weights[slot, column])
                sums[hits + 1, column] = sums[hits, column] + weight
                whole[column] += weight * fresh
            hits += 1
        result[row, 0] = whole / np.sqrt(np.float32(distinct + 1))
        for segment in range(1, 8):
            first = _hits_before(grams, hits, ends[segment, 0])
            last = _hits_before(grams, hits, ends[segment, 1])
            norm = 1 / np.sqrt(np.float32(last - first + 1))
            if last > first:
                for column in range(columns):
                    result[row, segment, column] = (sums[last, column] - sums[first, column]) * norm
        if sentences > 0:
            _of_sentences(grams, hits, sums, sentence_ends, sentences, result[row, _SEGMENTS:])
    return result, known


@njit(cache=True)
def _bits(size: int) -> int:
    bits = 0
    while (1 << bits) < size:
        bits += 1
    return bits


def table(features: Any, values: Any) -> tuple[Any, Any, Any]:
    """Features and what each is worth as (sieve, keys by slot, values by slot), at most half full.

    The sieve has a bit per value of a feature's low bits: most features that are not in the table end there.
    """
    bits = max(TABLE_BITS_MIN, (2 * features.size - 1).bit_length())
    while True:
        keys = np.zeros(1 << bits, np.uint16)
        slots = np.empty(features.size, np.int64)
        if fill(keys, features, FEATURE_BITS - bits, slots):
            break
        bits += 1
    by_slot = np.zeros((keys.size, *values.shape[1:]), values.dtype)
    by_slot[slots] = values
    sieve = np.zeros((_SIEVE_MASK + 1) // 8, np.uint8)
    places = features & _SIEVE_MASK
    np.bitwise_or.at(sieve, places >> 3, np.uint8(1) << (places & 7).astype(np.uint8))
    return sieve, keys, by_slot


def joined(texts: list[bytes]) -> tuple[Any, Any]:
    """The texts as one byte buffer and the offsets of each in it, for the compiled functions."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return np.frombuffer(b"".join(texts) or b" ", np.uint8), offsets


class WeightsMismatchError(RuntimeError):
    """The weights beside the code are not the ones the model's config names."""


class FastText:
    """The compiled loop with its tables: texts in, scores of their parts and known shares out."""

    def __init__(self, learned: Any, words: Any, *, with_characters: bool, with_sentences: bool) -> None:
        """`learned` and `words` come from `table`."""
        self._characters = character_tables()
        self._tables = self._characters, learned, words
        self._marks = np.array([self._token(mark) for mark in (b"but", b".", b"!", b"?", b"<br>")])
        self._asked = with_characters, with_sentences

    def scores(self, texts: list[bytes]) -> tuple[Any, Any]:
        """The scores of each text's parts, [texts, segments, columns], and known shares [texts]."""
        return scores(*joined(texts), *self._tables, self._marks, *self._asked)

    def _token(self, word: bytes) -> Any:
        tokens, is_word = np.empty(len(word) + 1, np.uint64), np.empty(len(word) + 1, np.bool_)
        tokens_of(joined([word])[0], 0, len(word), *self._characters, tokens, is_word)
        return tokens[0]


class Scorer:
    """A trained fast model: texts in, label probabilities and known shares out."""

    FILES = ("weights.npz",)

    def __init__(self, folder: Path, sha256: str, settings: dict[str, str] | None = None) -> None:
        """Load the weights in `folder`, raising WeightsMismatchError unless their sha-256 is `sha256`.

        `settings` may give `kind`: one_of (the default), or any_of for independent probabilities. The first load
        compiles (kept in NUMBA_CACHE_DIR where that is set, else beside this file or in the user's cache folder).
        """
        self._kind = (settings or {}).get("kind", ONE_OF)
        found = weights_sha256(folder)
        if found != sha256:
            raise WeightsMismatchError(f"{folder} has sha-256 {found}, the config names {sha256}")
        with _compiled_once():
            self._load(folder)

    def _load(self, folder: Path) -> None:
        with np.load(folder / self.FILES[0]) as weights:
            self._layer = tuple(weights[name] for name in ("experts", "expert_bias", "gate", "gate_bias"))
            labels = weights["weights"].shape[1] - self._layer[2].shape[0]
            self._text = FastText(
                table(weights["features"], weights["weights"]),
                table(weights["words"], weights["word_classes"]),
                with_characters=bool(weights["with_characters"]),
                with_sentences=self._layer[0].shape[1] > len(SEGMENTS) * labels,
            )
        self.answer([b"ready", b"\xff"])

    def answer(self, texts: list[bytes]) -> tuple[Any, Any]:
        """Probabilities [texts, labels] and known shares [texts], float32; any bytes will do."""
        parts, known = self._text.scores(texts)
        gates = self._layer[2].shape[0]
        labels = parts.shape[2] - gates
        flat, gate_scores = parts[:, :, :labels].reshape(len(texts), -1), parts[:, 0, labels:]
        return probabilities(flat, gate_scores, *self._layer, self._kind).astype(np.float32), known


@contextmanager
def _compiled_once() -> Iterator[None]:
    """Of the models that are first loaded side by side one compiles; the others wait, and find it done."""
    place = Path(config.CACHE_DIR or ".") / _content_of(__file__)
    if not config.CACHE_DIR or (place / "done").exists():
        yield
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / "lock").open("w")
    except OSError:  # numba looks for another place too
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        (place / "done").touch()


def weights_sha256(folder: Path) -> str:
    """The sha-256 of the model's weights."""
    return hashlib.sha256((folder / Scorer.FILES[0]).read_bytes()).hexdigest()


def probabilities(
    scores: Any, gate_scores: Any, experts: Any, expert_bias: Any, gate: Any, gate_bias: Any, kind: str = ONE_OF
) -> Any:
    """The experts' log-odds, weighed by how likely the text is of each one's domain, as probabilities."""
    shares = softmax(gate_scores @ gate + gate_bias)
    log_odds = np.zeros((scores.shape[0], experts.shape[2]), scores.dtype)
    for domain in range(experts.shape[0]):
        log_odds += shares[:, domain, None] * (scores @ experts[domain] + expert_bias[domain])
    return sigmoid(log_odds) if kind == ANY_OF else softmax(log_odds)


def softmax(log_odds: Any) -> Any:
    """Rows of probabilities that sum to 1."""
    odds = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def sigmoid(log_odds: Any) -> Any:
    """A probability for each label by itself."""
    return (1 + np.tanh(log_odds / 2)) / 2
