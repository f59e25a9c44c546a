"""Audits: the record as it came, and one more header that holds what was accepted and what may be answered."""

from typing import Final

import msgspec

from stream_app.codec.headers import SHUNT_AUDIT, RecordHeaders, take_last
from stream_app.errors import UnreadableRecord
from stream_app.events import Audit, Headers

_LABELS_MIN: Final = 2
_encode = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Audit).decode


def encode_audit(audit: Audit, headers: RecordHeaders) -> Headers:
    """The headers of the audited record: the original ones, then the audit. Key and value stay."""
    return (*headers, (SHUNT_AUDIT, _encode(audit)))


def decode_audit(headers: RecordHeaders) -> tuple[Audit, Headers]:
    """The inverse: what is audited, and the original headers. The last header of the name counts.

    Raises UnreadableRecord (`bad_audit`) where there is none or it asks nothing that could be answered.
    """
    audit, rest = take_last(headers, SHUNT_AUDIT, _decode, "bad_audit")
    if not audit.answers or audit.answers.keys() != audit.labels.keys():
        raise UnreadableRecord("bad_audit", f"the header {SHUNT_AUDIT}: its labels are not those of its answers")
    if any(len(set(labels)) < _LABELS_MIN for labels in audit.labels.values()):
        raise UnreadableRecord("bad_audit", f"the header {SHUNT_AUDIT} asks nothing that can be answered")
    return audit, rest
