"""The input under which faults happen: good records at a pace, with what a real topic also brings."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from tests.faults.pipeline import QUIET, TEXT_BYTES_MAX

if TYPE_CHECKING:
    import random

    from tests.faults.pipeline import Pipeline

KEYS = 997
CHUNK_S = 0.1
LONG_PAYLOAD_BYTES = 1_300_000
"""Passes the input topic's limit and not the decisions topic's."""


class Feed:
    """Produces until it is told to stop, in a thread; ahead of the pipeline by `backlog_max` records at most."""

    def __init__(
        self, pipeline: Pipeline, rng: random.Random, *, rate: float, records_max: int, unsure_share: float
    ) -> None:
        self._pipeline, self._rng = pipeline, rng
        self.rate, self.records_max, self._unsure_share = rate, records_max, unsure_share
        self.sent = self.failed = 0
        self.hold = threading.Event()
        """The pipeline is far behind: no new records until it is cleared."""
        self._over = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": pipeline.bootstrap_servers,
                **QUIET,
                "linger.ms": 20,
                "message.max.bytes": 20_000_000,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "queue.buffering.max.messages": 500_000,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything that was produced has been acknowledged."""
        self._over.set()
        self._thread.join()
        assert self._producer.flush(120) == 0, "input records were not acknowledged"

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._over.is_set():
            if not self.hold.is_set():
                # What was asked for is reached before the last fault is over: a trickle, so that faults meet work.
                rate = self.rate if self.sent < self.records_max else self.rate / 10
                for _ in range(int(rate * CHUNK_S)):
                    self.put(self.ordinary(self.sent))
            due_s = max(due_s + CHUNK_S, time.monotonic() - 1.0)
            self._over.wait(max(0.0, due_s - time.monotonic()))

    def ordinary(self, number: int) -> bytes:
        """A record with an answer in its text, `unsure_share` of them for the LLM."""
        drawn = self._rng.random()
        word = "unsure" if drawn < self._unsure_share else "good" if drawn < 0.6 else "bad"
        return record(f"r-{number}", f"{word} {number}", number)

    def put(self, value: bytes | None, key: bytes | None = None) -> None:
        number, self.sent = self.sent, self.sent + 1
        key = key or f"k{number % KEYS}".encode()
        partition = (number % KEYS) % self._pipeline.partitions
        while True:
            try:
                self._producer.produce(
                    self._pipeline.topic("input"), value, key, partition=partition, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        self.failed += error is not None

    def put_bad_ones(self) -> list[str]:
        """One of each kind of record that no model can decide, or that no topic can take. Returns their names."""
        number = self.sent
        bad = {
            "no JSON": b"no JSON %d" % number,
            "no text": json.dumps({"id": f"x-{number}"}).encode(),
            "a text too long": record(f"x-{number}", "good " * (TEXT_BYTES_MAX // 4), number),
            "refused by the model": record(f"p-{number}", f"poison {number}", number),
            "a decision too large": record(f"l-{number}", f"good {number}", number, pad=LONG_PAYLOAD_BYTES),
            "an escalation too large": record(f"e-{number}", f"unsure {number}", number, pad=LONG_PAYLOAD_BYTES),
            "a Schema Registry frame": b"\x00\x00\x00\x00\x07" + record("s", "good", number),
            "a tombstone": None,
        }
        for value in bad.values():
            self.put(value)
        return list(bad)

    def put_stumbling(self, count: int) -> None:
        """Records that fail the first batch they are in, and no other."""
        for _ in range(count):
            number = self.sent
            self.put(record(f"s-{number}", f"good stumble-{self._pipeline.name}-{number}", number))

    def abort_some(self, records: int, transactional_id: str) -> None:
        """Records that their own producer aborts: no reader of committed records sees them."""
        while not self._aborted(records, transactional_id):
            # Under a broker's fault. Kafka may end that transaction without its markers (KAFKA-20734), which holds
            # back every reader for ever: the producer begins again, and its next abort ends the last one too.
            if self._over.wait(1.0):
                return

    def _aborted(self, records: int, transactional_id: str) -> bool:
        """True if nothing went wrong."""
        producer = Producer(
            {
                "bootstrap.servers": self._pipeline.bootstrap_servers,
                **QUIET,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 10_000,
            }
        )
        try:
            producer.init_transactions(30)
            producer.begin_transaction()
            for number in range(max(records, self._pipeline.partitions)):
                value = record(f"aborted-{number}", f"unsure aborted {number}", number)
                partition = number % self._pipeline.partitions
                producer.produce(self._pipeline.topic("input"), value, b"k%d" % (number % KEYS), partition=partition)
            producer.flush(10)
            time.sleep(self._rng.uniform(0.1, 1.0))
            producer.abort_transaction(30)
        except KafkaException:
            producer.purge()
            return False
        return True


def record(ident: str, text: str, number: int, pad: int = 0) -> bytes:
    """One event. What stands behind `meta` must come out byte for byte: a number beyond 64 bits, a float's zero."""
    meta = f'{{"n": {number}, "big": 18446744073709551616, "price": 1.10, "pad": "{"x" * pad}"}}'
    return f'{{"id": {json.dumps(ident)}, "text": {json.dumps(text)}, "meta":{meta}}}'.encode()
