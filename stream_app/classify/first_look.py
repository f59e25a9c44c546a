"""A wrong field name must not eat a topic: the first records are judged before anything is committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from stream_app.errors import UnreadableRecord, UnreadableTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from stream_app.classify.feed import Feed
    from stream_app.kafka.owned import OwnedPartition

R = TypeVar("R")

RECORDS_MAX = 1_000
WAIT_S = 2.0
RECORDS_MIN = 10
"""With fewer, a single broken record on a quiet topic would stop a worker again at every start."""
LOOK_AGAIN_S = 0.05

ADVICE = {
    "missing_text": "name the fields that hold the text in [events] text_fields",
    "wrong_type": "name the fields that hold id and text in [events] id_field and text_fields",
    "schema_registry_frame": "the topic holds Schema Registry frames (Avro, Protobuf): convert it to JSON first",
    "not_json": "the topic holds something other than JSON: is it the right topic?",
    "not_an_object": "the topic holds JSON that is no object: is it the right topic?",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How the first records read: `seen` of them, `unreadable` by cause, with an example of each cause."""

    seen: int
    unreadable: Counter[str]
    examples: dict[str, str]

    def passes(self) -> bool:
        """At most half is unreadable."""
        return 2 * self.unreadable.total() <= self.seen

    def failure(self, topic: str) -> UnreadableTopic:
        """The error that names the likely cause."""
        cause, count = self.unreadable.most_common(1)[0]
        return UnreadableTopic(
            f"{self.unreadable.total()} of the first {self.seen} records of {topic} are no events, {count} of them "
            f"for {cause} ({self.examples[cause]}); nothing was committed",
            advice=ADVICE.get(cause, "see docs/messages.md for the cause"),
        )


def look(records: Sequence[R], decode: Callable[[R], object]) -> Look:
    """Reads `records` with `decode`, which raises UnreadableRecord for one that is no event."""
    unreadable: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in records:
        try:
            decode(record)
        except UnreadableRecord as error:
            unreadable[error.cause] += 1
            examples.setdefault(error.cause, error.message)
    return Look(len(records), unreadable, examples)


def due(waiting: int, since_first_s: float) -> bool:
    """Whether it is time for the final judgement: enough records, or enough waiting."""
    return waiting >= RECORDS_MAX or since_first_s >= WAIT_S


async def judged(
    feeds: Mapping[OwnedPartition, Feed],
    decode: Callable[[ConsumerRecord[bytes | None, bytes | None]], object],
    topic: str,
) -> bool:
    """Whether work on what waits may begin; False where nothing waits any more.

    Raises UnreadableTopic where most of the first records are no events.
    """
    now_s = asyncio.get_running_loop().time
    started_s = now_s()
    while True:
        first = [record for feed in feeds.values() for record in feed.peek(RECORDS_MAX)][:RECORDS_MAX]
        if not first:
            return False
        final = due(len(first), now_s() - started_s)
        if len(first) >= RECORDS_MIN or final:
            found = look(first, decode)
            if found.passes() or len(first) < RECORDS_MIN:
                return True
            if final:
                raise found.failure(topic)
        await asyncio.sleep(LOOK_AGAIN_S)
