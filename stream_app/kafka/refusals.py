"""What an error of aiokafka means for a lane: refused for good, Kafka away for a while, or the membership lost.

A refusal says what a person must change: the right to grant and on what, or the setting.
"""

from __future__ import annotations

from typing import Any

from aiokafka.errors import (
    BrokerNotAvailableError,
    ClusterAuthorizationFailedError,
    ConcurrentTransactions,
    GroupAuthorizationFailedError,
    IllegalOperation,
    IllegalStateError,
    InconsistentGroupProtocolError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidSessionTimeoutError,
    InvalidTopicError,
    InvalidTxnState,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    ReplicaNotAvailableError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    TransactionCoordinatorFenced,
)

from stream_app.errors import DeliveryRefused, MembershipInterrupted, MembershipLost, ShuntError
from stream_app.kafka.hanging import CoordinatorLost

REFUSED: dict[type[KafkaError], str] = {
    ClusterAuthorizationFailedError: "grant this worker's user IDEMPOTENT_WRITE on the cluster",
    MessageSizeTooLargeError: "raise the topic's max.message.bytes; a restarted worker reads the limit anew",
    RecordListTooLargeError: "raise the topic's max.message.bytes; a restarted worker reads the limit anew",
    OffsetMetadataTooLargeError: "raise the brokers' offset.metadata.max.bytes to 4096, Kafka's default",
    InvalidTopicError: "correct the topic's name in the settings",
    InvalidSessionTimeoutError: "keep kafka.session_timeout_ms between the broker's group.min.session.timeout.ms "
    "and group.max.session.timeout.ms",
    InconsistentGroupProtocolError: "another kind of client uses this group: give Shunt one of its own (kafka.group)",
}
"""What the broker will refuse again however often it is tried, and what a person must change; so are the missing
rights of `_grant`."""

LOST: tuple[type[Exception], ...] = (
    ProducerFenced,
    InvalidProducerEpoch,
    InvalidTxnState,
    InvalidProducerIdMapping,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    IllegalOperation,
)
"""The producer is no longer the owner of its transactional id, or its transaction timed out."""

PASSING: tuple[type[KafkaError], ...] = (
    BrokerNotAvailableError,
    CoordinatorLost,
    ConcurrentTransactions,
    IllegalStateError,  # the assignment changed while we asked about a partition
    KafkaTimeoutError,
    ReplicaNotAvailableError,
    TransactionCoordinatorFenced,
)
"""Of what aiokafka does not call retriable: what passes when a broker or coordinator is back."""


def translate(error: BaseException, doing: str, source: str | None = None) -> ShuntError:
    """An error of aiokafka as one of ours: DeliveryRefused for good, MembershipInterrupted where Kafka was away.

    Else MembershipLost. aiokafka wraps an answer it did not expect, such as that of a coordinator that is loading,
    into a plain KafkaError. `source` is the topic that a transaction consumes, if any: it writes to the others. None
    where there is no transaction.
    """
    for refusal in (error, error.__cause__):
        advice = _advice(refusal, source)
        if advice is not None:
            told = f"Kafka refuses while {doing} ({type(refusal).__name__}: {refusal})"
            return DeliveryRefused(told, advice=advice)
    told = f"lost while {doing} ({type(error).__name__}: {error})"
    return MembershipInterrupted(told) if _passes(error) else MembershipLost(told)


def _passes(error: BaseException) -> bool:
    """True for what is over when Kafka is back. aiokafka's wrapper is judged by what is in it."""
    if type(error) is KafkaError:
        return error.__cause__ is None or _passes(error.__cause__)
    return isinstance(error, (OSError, TimeoutError, *PASSING)) or (isinstance(error, KafkaError) and error.retriable)


def _advice(error: BaseException | None, source: str | None) -> str | None:
    """What a person must change; None where that would not help."""
    if isinstance(error, TopicAuthorizationFailedError):
        # aiokafka does not name the topic whose offsets are refused, which is the source.
        names = _names(error) or ([source] if source else [])
        return _grant("READ" if source is None or names == [source] else "WRITE", "topic", names)
    if isinstance(error, GroupAuthorizationFailedError):
        return _grant("READ", "group", _names(error))
    if isinstance(error, TransactionalIdAuthorizationFailed):
        each = "each partition has one, which a prefixed ACL covers"
        return f"{_grant('WRITE and DESCRIBE', 'transactional id', _names(error))} ({each})"
    return next((advice for kind, advice in REFUSED.items() if isinstance(error, kind)), None)


def _names(error: KafkaError) -> list[str]:
    """What aiokafka says was refused: a name, a set of names, or nothing."""
    about: Any = error.args[0] if error.args else ()
    return [about] if isinstance(about, str) else sorted(map(str, about))


def _grant(right: str, kind: str, names: list[str]) -> str:
    resource = f"{kind} {', '.join(map(repr, names))}" if names else f"the {kind}"
    return f"grant this worker's user {right} on {resource}"
