"""Escalations: the record as it came, and one more header that holds all the slow lane needs."""

from dataclasses import dataclass
from typing import Final

import msgspec

from stream_app.codec.headers import SHUNT_ESCALATION, RecordHeaders, take_last
from stream_app.errors import UnreadableRecord
from stream_app.events import Escalation, Headers

_LABELS_MIN: Final = 2
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Escalation).decode


@dataclass(frozen=True, slots=True)
class EscalatedRecord:
    """What stands on the escalation topic: the escalation, and the original headers byte for byte."""

    escalation: Escalation
    headers: Headers


def encode_escalation(escalation: Escalation, headers: RecordHeaders) -> Headers:
    """The headers of the escalated record: the original ones, then the escalation. Key and value stay."""
    return (*headers, (SHUNT_ESCALATION, _encode(escalation)))


def decode_escalation(headers: RecordHeaders) -> EscalatedRecord:
    """The inverse. The last header of the name counts: an input may carry one from another pipeline.

    Raises UnreadableRecord (`bad_escalation`) where there is none or it is no escalation.
    """
    escalation, rest = take_last(headers, SHUNT_ESCALATION, _decode, "bad_escalation")
    if not escalation.asks or any(len(set(ask.labels)) < _LABELS_MIN for ask in escalation.asks):
        raise UnreadableRecord("bad_escalation", f"the header {SHUNT_ESCALATION} asks nothing that can be answered")
    if any(ask.any_of and ask.votes is not None for ask in escalation.asks):
        raise UnreadableRecord("bad_escalation", f"the header {SHUNT_ESCALATION} weighs votes that are no one label")
    if {*escalation.tasks} != {*escalation.sure, *(ask.task for ask in escalation.asks)}:
        raise UnreadableRecord("bad_escalation", f"the header {SHUNT_ESCALATION}: tasks are not those asked and sure")
    return EscalatedRecord(escalation, rest)
