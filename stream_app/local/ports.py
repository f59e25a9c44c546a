"""Free ports: the usual one where nobody has it, else another; two stacks never choose the same one.

Between choosing a port and a server listening on it pass seconds, in which another stack may choose too. So a
choice is also claimed: a socket with the port's name in Linux's abstract namespace, which the kernel frees
when its owner ends, however it ends.
"""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from stream_app.errors import StartError

# Below 32768, where Linux begins to hand out ports to outgoing connections: one of those may take a port of that
# range between our look and the server's.
OTHER_PORTS = range(20_000, 32_000)
TRIES_MAX = 200


@dataclass(frozen=True, slots=True)
class ClaimedPort:
    """A port that is ours until `release`, or until this process ends."""

    number: int
    _claim: socket.socket

    def release(self) -> None:
        """Let others choose this port."""
        self._claim.close()


def claim_port(preferred: int | None = None) -> ClaimedPort:
    """`preferred` if it is free, else a free one above 20,000. Raises `StartError` when none is found."""
    if preferred is not None and (claimed := _try(preferred)) is not None:
        return claimed
    for port in random.Random().sample(OTHER_PORTS, TRIES_MAX):  # noqa: S311 - spread, not secrecy
        if (claimed := _try(port)) is not None:
            return claimed
    raise StartError("no free port found", advice=f"{TRIES_MAX} ports above {OTHER_PORTS.start} are all taken")


def _try(port: int) -> ClaimedPort | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0shunt-port-{port}")
        with socket.socket() as probe:
            # As the servers do: a port whose old connections are still fading counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return None
    return ClaimedPort(port, claim)
