"""Parked events: an escalation as it came, and one more header that says what was decided without the LLM."""

from typing import Final

import msgspec

from stream_app.codec.headers import SHUNT_PARKED, RecordHeaders, take_last
from stream_app.errors import UnreadableRecord
from stream_app.events import Headers, Parked

_encode = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Parked).decode


def encode_parked(parked: Parked, headers: RecordHeaders) -> Headers:
    """The headers of the parked record: those of the escalation, then this one. Key and value stay."""
    return (*headers, (SHUNT_PARKED, _encode(parked)))


def decode_parked(headers: RecordHeaders) -> tuple[Parked, Headers]:
    """The inverse: what was decided, and the headers of the escalation. The last header of the name counts.

    Raises UnreadableRecord (`bad_parked`) where there is none, or it says nothing that could be corrected.
    """
    parked, rest = take_last(headers, SHUNT_PARKED, _decode, "bad_parked")
    if parked.revision < 0:
        raise UnreadableRecord("bad_parked", f"the header {SHUNT_PARKED}: no final has revision {parked.revision}")
    return parked, rest
