"""What the codec costs: CPU microseconds a record of 200 bytes, decoded and written as a final.

    python benchmarks/codec.py [--json]

The least of many runs of process time, so that other work on the machine does not count; each figure covers
the loop around it.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import orjson

from stream_app.codec import Codec, decode_decision
from stream_app.codec.finals import Grade, SmallAnswers
from stream_app.events import Answer, Decision, Event, Kind
from stream_app.settings import Events

RECORDS = 2_000
RUNS = 30
NOW_MS = 1_795_167_000_120
REVIEW = {
    "id": "rev-12345678",
    "product": "kettle",
    "text": "Great kettle: boils fast, looks good on the counter, and I would buy it again without thinking.",
    "stars": 5,
    "user": "u-998877",
    "verified": True,
    "n": 12345,
}


def cpu_us(work: Callable[[], object], records: int = RECORDS) -> float:
    """CPU microseconds a record, the least over the runs."""
    least = float("inf")
    for _ in range(RUNS):
        begun = time.process_time()
        work()
        least = min(least, time.process_time() - begun)
    return round(least / records * 1e6, 2)


def decode_all(codec: Codec, value: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> list[Event]:
    events = [codec.decode("reviews", 1, n, NOW_MS + n // 10, None, value, headers) for n in range(RECORDS)]
    return [event for event in events if isinstance(event, Event)]


def small_answers(task: str, labels: tuple[str, ...]) -> SmallAnswers:
    table = np.random.default_rng(1).dirichlet(np.ones(len(labels)), RECORDS).astype(np.float32)
    grades = (Grade(f"{task}_fast:3", 0.93, "reviews@7", certified=True),)
    return SmallAnswers(task, labels, grades, table.argmax(axis=1), np.zeros(RECORDS, np.int8), table)


def one_decision(event: Event) -> Decision:
    shares = {"negative": 0.987, "positive": 0.013}
    answer = Answer("negative", 0.987, shares, 0.93, "small", "sentiment_fast:3", certified=True, policy="reviews@7")
    answers = {"sentiment": answer}
    return Decision(event, Kind.FINAL, 0, "small", answers, "reviews@7", certified=True, decided_at_ms=NOW_MS)


def measure() -> dict[str, float]:
    """Every figure by its name."""
    codec = Codec(Events(), "shunt")
    compact, spaced = orjson.dumps(REVIEW), json.dumps(REVIEW).encode()
    odd = b" " + spaced
    event_headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"rev-12345678"),
        ("ce_source", b"/shop"),
        ("ce_type", b"shop.review.written"),
        ("content-type", b"application/json"),
    )
    events = decode_all(codec, compact)
    encoder = codec.finals("reviews@7", lambda _: None)
    sentiment = small_answers("sentiment", ("negative", "positive"))
    toxicity = small_answers("toxicity", ("clean", "toxic"))
    decision = one_decision(events[0])
    written, _ = codec.encode_decision(decision)
    return {
        "record_bytes": len(compact),
        "decision_bytes": len(written),
        "decode_us": cpu_us(lambda: decode_all(codec, compact)),
        "decode_python_spacing_us": cpu_us(lambda: decode_all(codec, spaced)),
        "decode_odd_spacing_us": cpu_us(lambda: decode_all(codec, odd)),
        "decode_cloudevent_us": cpu_us(lambda: decode_all(codec, compact, event_headers)),
        "finals_one_task_us": cpu_us(lambda: list(encoder.encode(events, [sentiment], NOW_MS))),
        "finals_two_tasks_us": cpu_us(lambda: list(encoder.encode(events, [sentiment, toxicity], NOW_MS))),
        "encode_decision_us": cpu_us(lambda: [codec.encode_decision(decision) for _ in range(RECORDS)]),
        "decode_decision_us": cpu_us(lambda: [decode_decision(written) for _ in range(RECORDS)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    figures = measure()
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:26} {figure:8}" for name, figure in figures.items()))


if __name__ == "__main__":
    main()
