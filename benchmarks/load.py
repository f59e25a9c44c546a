"""Fills a topic from a process of its own: at a fixed rate, or always a fixed number of records ahead of a group.

    python -m benchmarks.load --bootstrap HOST:PORT --topic NAME --partitions N
        (--rate RECORDS_PER_S | --ahead RECORDS --group NAME) [--escalated SHARE] [--bytes MIN MAX]

Values are JSON events for the model `scripted` of the tests, whose answer stands in the text; `--escalated` of
them are unsure, and no two of those alike: the LLM lane asks a text only once. Their sizes are spread evenly
between MIN and MAX. Runs until SIGTERM; then every record is on the broker. Uses confluent-kafka, which shares no
code with the project.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from typing import Self

from confluent_kafka import Consumer, Producer, TopicPartition

POOL = 40_000
"""Different events; after them the same come again, but for the number in each unsure one's text."""
NUMBER = b"%012d" % 0
"""Stands in an unsure event's text until the record's own number does."""
WORDS_SEED = 7
LOOK_EVERY_S = 0.25
SLICE_S = 0.02


def pool(escalated: float, bytes_min: int, bytes_max: int) -> list[bytes]:
    """Events whose words are drawn from 3,000, so that they compress about as text does."""
    rng = random.Random(WORDS_SEED)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3_000)]
    values = []
    for number in range(POOL):
        unsure = int((number + 1) * escalated) > int(number * escalated)
        size = rng.randint(bytes_min, bytes_max)
        answer = "unsure" if unsure else ("good", "bad")[number % 2]
        told = NUMBER.decode() if unsure else number
        head = json.dumps({"id": f"r-{number:06d}", "stars": number % 5 + 1})[:-1] + f', "text": "{answer} {told} '
        body = " ".join(rng.choices(words, k=max(1, size // 5)))
        values.append((head + body[: max(0, size - len(head) - 2)] + '"}').encode())
    return values


class Load:
    """The producer, and what it knows of the group it stays ahead of."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.values = pool(given.escalated, *given.bytes)
        self.sent = 0
        self.stopping = False
        self.producer = Producer(
            {
                "bootstrap.servers": given.bootstrap,
                "linger.ms": given.linger_ms,
                "log_level": 0,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 200_000,
                "batch.size": 256 * 1024,
            }
        )

    def send(self, count: int) -> None:
        """`count` records, spread over the partitions in turn."""
        topic, partitions, values = self.given.topic, self.given.partitions, self.values
        produce = self.producer.produce
        for number in range(self.sent, self.sent + count):
            value = values[number % POOL]
            if NUMBER in value:
                value = value.replace(NUMBER, b"%012d" % number)
            while True:
                try:
                    produce(topic, value=value, key=b"%d" % (number % 9_973), partition=number % partitions)
                    break
                except BufferError:
                    self.producer.poll(0.05)
        self.sent += count
        self.producer.poll(0)

    def paced(self) -> None:
        """As many as the clock says, in slices."""
        began_s = time.monotonic()
        while not self.stopping:
            due = int((time.monotonic() - began_s) * self.given.rate) - self.sent
            if due > 0:
                self.send(due)
            time.sleep(SLICE_S)

    def ahead(self) -> None:
        """Never fewer than wanted between the group's committed offsets and the end, never twice as many."""
        wanted = self.given.ahead
        partitions = [TopicPartition(self.given.topic, number) for number in range(self.given.partitions)]
        consumer = Consumer({"bootstrap.servers": self.given.bootstrap, "group.id": self.given.group})
        self.send(2 * wanted)
        while not self.stopping:
            committed = sum(max(0, each.offset) for each in consumer.committed(partitions, timeout=10))
            missing = 2 * wanted - (self.sent - committed)
            if missing > wanted // 10:
                self.send(missing)
            time.sleep(LOOK_EVERY_S)
        consumer.close()

    def stop(self, *_: object) -> None:
        self.stopping = True


class LoadProcess:
    """The same as a child of this process. Ends by `stop`, or with the block."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self.sent = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.load", *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def stop(self) -> int:
        """How many records it wrote in all."""
        if not self.sent:
            self._process.terminate()
            output, _ = self._process.communicate(timeout=60)
            self.sent = json.loads(output.strip().splitlines()[-1])["sent"]
        return self.sent

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--ahead", type=int)
    parser.add_argument("--group")
    parser.add_argument("--escalated", type=float, default=0.05)
    parser.add_argument("--bytes", type=int, nargs=2, default=(200, 1_500))
    parser.add_argument("--linger-ms", type=float, default=20)
    load = Load(parser.parse_args())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, load.stop)
    if load.given.rate:
        load.paced()
    else:
        load.ahead()
    left = load.producer.flush(60)
    print(json.dumps({"sent": load.sent - left}), flush=True)


if __name__ == "__main__":
    main()
