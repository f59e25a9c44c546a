"""What a worker remembers of verdicts, without Kafka."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.escalate.verdict_queue import BATCH_MAX, VerdictQueue, parse_done
from stream_app.events import Verdict


def verdict(number: int) -> Verdict:
    return Verdict(f"reviews/0/{number}", "sentiment", "negative", 0, number, number + 1, 5)


@given(done=st.integers(0, 30), sizes=st.lists(st.integers(1, 10), max_size=8))
def test_every_verdict_rules_and_only_new_ones_wait(done: int, sizes: list[int]) -> None:
    """However the topic is read in pieces: what was done before is remembered and not done again, the rest is done in
    order; and nothing is known before all that was done has been read."""
    queue = VerdictQueue(done)
    assert queue.begins(max(sum(sizes), done))
    offset = 0
    for size in sizes:
        assert queue.known == (0 < offset >= done)
        queue.arrived([(at, verdict(at)) for at in range(offset, offset + size)], offset + size)
        offset += size
    assert all(queue.rules(f"reviews/0/{number}") for number in range(offset))
    assert not queue.rules(f"reviews/0/{offset}")
    waited: list[int] = []
    while batch := queue.next_batch():
        assert len(batch) <= BATCH_MAX
        waited += [at for at, _ in batch]
        queue.finished(len(batch))
    assert waited == list(range(done, offset))
    assert parse_done(queue.text()) == max(done, offset)


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    """It ends below what had been done: its verdicts are others, and none of them is passed over."""
    queue = VerdictQueue(50)
    assert not queue.begins(2)
    queue.arrived([(0, verdict(0)), (1, verdict(1))], 2)
    assert queue.known
    assert [at for at, _ in queue.next_batch()] == [0, 1]


def test_metadata_without_a_word_on_verdicts_says_none_is_done() -> None:
    """A group of before, or another's text."""
    assert [parse_done(text) for text in ("", "v", "vx", "7", "v-1", "v²")] == [0] * 6
    assert parse_done("v7") == 7
