"""Which broker leads a partition, and which coordinates a group or a transactional id, asked over the wire.

By hand, with nothing of the project and no client library: a client asks the broker it likes, which may be the one
that is dead or paused, and remembers old answers. Here every broker is asked in turn, each time anew.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import BinaryIO

ASK_TIMEOUT_S = 1.0
POLL_S = 0.1
METADATA, FIND_COORDINATOR = 3, 10
GROUP, TRANSACTION = 0, 1
UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, COORDINATOR_LOADING, COORDINATOR_NOT_AVAILABLE = 3, 5, 14, 15
NOT_YET = {UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, COORDINATOR_LOADING, COORDINATOR_NOT_AVAILABLE}
"""A topic that has just been made is not known to every broker at once."""


def leader_of(bootstrap: str, topic: str, partition: int, within_s: float = 15.0) -> int:
    """The node id of the partition's leader. While there is none, waits; raises TimeoutError at the end."""
    return _first_answer(bootstrap, METADATA, 1, struct.pack(">i", 1) + _string(topic), partition, within_s)


def group_coordinator(bootstrap: str, group: str, within_s: float = 15.0) -> int:
    """The node id of the group's coordinator. While there is none, waits; raises TimeoutError at the end."""
    return _first_answer(bootstrap, FIND_COORDINATOR, 1, _string(group) + bytes([GROUP]), None, within_s)


def transaction_coordinator(bootstrap: str, transactional_id: str, within_s: float = 15.0) -> int:
    """The node id of the id's coordinator. While there is none, waits; raises TimeoutError at the end."""
    body = _string(transactional_id) + bytes([TRANSACTION])
    return _first_answer(bootstrap, FIND_COORDINATOR, 1, body, None, within_s)


def _first_answer(
    bootstrap: str, api_key: int, version: int, body: bytes, partition: int | None, within_s: float
) -> int:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        for address in bootstrap.split(","):
            try:
                answer = _Reader(_ask(address, api_key, version, body))
            except OSError:
                continue  # dead or paused: the next one knows too
            node = _coordinator(answer) if partition is None else _leader(answer, partition)
            if node is not None:
                return node
        time.sleep(POLL_S)
    raise TimeoutError(f"no broker of {bootstrap} could tell within {within_s:.0f} s")


def _ask(address: str, api_key: int, version: int, body: bytes) -> bytes:
    host, port = address.rsplit(":", 1)
    request = struct.pack(">hhi", api_key, version, 7) + _string("look") + body
    with socket.create_connection((host, int(port)), timeout=ASK_TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", _exactly(answer, 4))
        return _exactly(answer, size)[4:]  # behind the correlation id


def _exactly(file: BinaryIO, size: int) -> bytes:
    read = file.read(size)
    if len(read) < size:
        raise ConnectionError("the broker closed the connection")
    return read


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data


class _Reader:
    """Reads Kafka's types one after another."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f">{kind}", self.data, self.at)
        self.at += struct.calcsize(f">{kind}")
        return value

    def string(self) -> str | None:
        length = self.number("h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def numbers(self) -> list[int]:
        return [self.number("i") for _ in range(self.number("i"))]


def _coordinator(answer: _Reader) -> int | None:
    """FindCoordinator v1: throttle_time_ms, error_code, error_message, node_id, host, port."""
    answer.number("i")
    error, message = answer.number("h"), answer.string()
    if error in NOT_YET:
        return None
    if error:
        raise LookupError(f"Kafka says error {error}: {message}")
    return answer.number("i")


def _leader(answer: _Reader, wanted: int) -> int | None:
    """Metadata v1: brokers, controller_id, topics (error, name, is_internal, partitions)."""
    for _ in range(answer.number("i")):
        answer.number("i"), answer.string(), answer.number("i"), answer.string()
    answer.number("i")
    for _ in range(answer.number("i")):
        error, name, _internal = answer.number("h"), answer.string(), answer.number("b")
        for _ in range(answer.number("i")):
            trouble, number, leader = answer.number("h"), answer.number("i"), answer.number("i")
            answer.numbers(), answer.numbers()
            if number == wanted:
                return None if trouble in NOT_YET or leader < 0 else leader
        if error not in {0, *NOT_YET}:
            raise LookupError(f"Kafka says error {error} of topic {name}")
    return None
