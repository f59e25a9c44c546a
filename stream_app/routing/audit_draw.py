"""Which events are audited: drawn by a hash of where the record stood, so uniform, repeatable and blind. Pure.

The draw knows the record's place and the policy, and nothing of the event or its answer. So a record that is read
again (after a kill, or by another worker) is drawn again, and anybody may check later whether it was.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORDS = 1 << 64


@dataclass(frozen=True, slots=True)
class AuditDraw:
    """Draws `share` of all records, by a hash that `policy` salts: another policy draws other records.

    A record that is drawn at some share is drawn at every larger one too.
    """

    policy: str | None
    share: float

    def drawn(self, topic: str, partition: int, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of a partition's `offsets` [N] are audited.

        Offsets are numbers of SplitMix64's sequence (Steele, Lea and Flood 2014), which starts at a hash of policy,
        topic and partition: its outputs are uniform over 64 bits.
        """
        if self.share >= 1:
            return np.ones(len(offsets), np.bool_)
        with np.errstate(over="ignore"):  # arithmetic modulo 2 ** 64 is what is meant
            words = offsets.astype(np.uint64) * _GOLDEN + _start(self.policy, topic, partition)
            words = (words ^ (words >> np.uint64(30))) * _FIRST
            words = (words ^ (words >> np.uint64(27))) * _SECOND
        return (words ^ (words >> np.uint64(31))) < np.uint64(int(self.share * _WORDS))

    def between(self, topic: str, partition: int, first: int, last: int) -> list[int]:
        """The offsets that are drawn of a partition's from `first` to `last`, both included."""
        offsets = np.arange(first, last + 1)
        return offsets[self.drawn(topic, partition, offsets)].tolist()


@lru_cache(4096)
def _start(policy: str | None, topic: str, partition: int) -> np.uint64:
    """Where a partition's sequence starts."""
    named = f"{policy or ''}\0{topic}\0{partition}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "big"))
