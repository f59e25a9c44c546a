"""What becomes of a dead letter that is to be replayed: sent, refused, or passed over since it was sent before. Pure.

Where it came from is the topic that its own headers name, and nothing but this pipeline's input or escalation topic:

* The input topic: the record becomes a new input record, with a source and an outcome of its own. That is so too for
  events that died in the slow lane: their letter names the input record, and is its one outcome.
* The escalation topic: an escalation that the slow lane could not read. Its input record has no outcome by its own
  source yet, and the escalation, sent there again, gives it the one it lacks. Sent to the input topic, it would leave
  that record without one for ever. What is no escalation any more could only die there again, so it is refused.

A letter of the parked topic is of a record that no lane put there, since what a lane parks has its final and never
dies. It is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from stream_app.codec import decode_escalation, record_batch_bytes
from stream_app.codec.replays import Receipt, ReplayMark, encode_receipt, marked
from stream_app.errors import UnreadableRecord
from stream_app.events import Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.cli.dlq_selection import Letter
    from stream_app.kafka.connection import TopicFacts
    from stream_app.settings import TopicNames

ATTEMPTS_MAX = 3
"""A record that died four times of the same pipeline will not do better a fifth time by itself."""


class Why(StrEnum):
    """Why a letter is not sent back."""

    TRUNCATED = "truncated"
    OTHER_TOPIC = "other_topic"
    NO_TOPIC = "no_topic"
    NO_ESCALATION = "no_escalation"
    NOT_PARKED = "not_parked"
    ATTEMPTS = "attempts"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Send:
    """It goes back: the record as it came, with its mark."""

    letter: Letter
    outgoing: Outgoing
    attempt: int

    def receipt(self, topic: str, now_ms: int) -> Outgoing:
        """The record that says so; it commits with what is sent."""
        to = f"{self.outgoing.topic}/{self.outgoing.partition}"
        receipt = Receipt(self.letter.timestamp_ms, to, self.attempt, now_ms)
        key, value = encode_receipt(*self.letter.place, receipt)
        return Outgoing(topic, 0, key, value, ())


@dataclass(frozen=True, slots=True)
class Before:
    """It was sent back already."""

    letter: Letter
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not sent. `told` says why in words, and `advice` what to do."""

    letter: Letter
    why: Why
    told: str
    advice: str


Fate = Send | Before | Refused


def receipt_for(letter: Letter, receipt: Receipt | None) -> Receipt | None:
    """`receipt` if it is this letter's: a topic that was made anew has others at the same places."""
    return receipt if receipt is not None and receipt.letter_ms == letter.timestamp_ms else None


class Judge:
    """Decides what becomes of each letter. `there` are the facts of those topics of the pipeline that exist."""

    def __init__(
        self, names: TopicNames, there: Mapping[str, TopicFacts], *, attempts_max: int = ATTEMPTS_MAX, force: bool
    ) -> None:
        self._names, self._there = names, there
        self._attempts_max, self._force = attempts_max, force

    def fate(self, letter: Letter, receipt: Receipt | None) -> Fate:
        """What becomes of the letter, whose place has that receipt, if any."""
        before = receipt_for(letter, receipt)
        if before is not None:
            return Before(letter, before)
        why = self._hindrance(letter)
        if why is not None:
            return Refused(letter, why, *self._words(letter, why))
        send = self._send(letter)
        if record_batch_bytes(*send.outgoing[2:5]) > self._there[send.outgoing.topic].message_bytes_max:
            return Refused(letter, Why.TOO_LARGE, *self._words(letter, Why.TOO_LARGE))
        return send

    def _hindrance(self, letter: Letter) -> Why | None:
        target = letter.told.topic
        if letter.told.truncated:
            return Why.TRUNCATED
        if target not in {self._names.input, self._names.escalations}:
            return Why.NOT_PARKED if target == self._names.parked else Why.OTHER_TOPIC
        if target not in self._there:
            return Why.NO_TOPIC
        if target == self._names.escalations and not _is_escalation(letter):
            return Why.NO_ESCALATION
        if letter.attempts >= self._attempts_max and not self._force:
            return Why.ATTEMPTS
        return None

    def _send(self, letter: Letter) -> Send:
        """To the partition that it came from, so that records with one key stay together."""
        attempt = letter.attempts + 1
        target = self._there[letter.told.topic]
        headers = marked(letter.own, ReplayMark(letter.ref, attempt))
        partition = letter.told.partition % target.partitions
        return Send(letter, Outgoing(target.name, partition, letter.key, letter.value, headers), attempt)

    def _words(self, letter: Letter, why: Why) -> tuple[str, str]:
        """Why not, and what to do."""
        told = letter.told
        source = f"{told.topic}/{told.partition}/{told.offset}"
        match why:
            case Why.TRUNCATED:
                words = (
                    "only a part of it fitted the dead-letter topic",
                    f"the whole record stands at {source} while that topic keeps it: send it from there",
                )
            case Why.OTHER_TOPIC:
                words = (
                    f"it came from {told.topic!r}, which is neither input nor escalation topic of these settings",
                    "replay it with the settings of its own pipeline (--config)",
                )
            case Why.NO_TOPIC:
                words = f"topic {told.topic!r} does not exist", "make the topics with `shunt topics create`"
            case Why.NO_ESCALATION:
                words = (
                    "it stood on the escalation topic and is no escalation, so it would die there again",
                    f"see `shunt dlq show {letter.partition}/{letter.offset}`, and send its text to the input topic",
                )
            case Why.NOT_PARKED:
                words = (
                    "it stood on the parked topic and is no parked event",
                    "nothing is missing: no lane put it there, and what lanes park has its final",
                )
            case Why.ATTEMPTS:
                words = (
                    f"it died again after {letter.attempts} replays",
                    "remove the cause first; then --force sends it all the same",
                )
            case Why.TOO_LARGE:
                words = (
                    f"with its mark it is larger than topic {told.topic!r} takes",
                    "raise the topic's max.message.bytes",
                )
            case _:
                assert_never(why)
        return words


def _is_escalation(letter: Letter) -> bool:
    try:
        decode_escalation(letter.own)
    except UnreadableRecord:
        return False
    return letter.value is not None
