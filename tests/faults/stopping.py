"""A worker that stops itself (SIGSTOP) at a named step of the protocol, when the harness asks it to.

`python -m tests.faults.stopping run classify` is the ordinary command line with a test-only subclass of the
transactional output put in. It is asked by a file `<worker>.<step>` in the working folder, which it takes away.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from stream_app.classify import start as classify_start
from stream_app.cli import main
from stream_app.escalate import start as escalate_start
from stream_app.kafka.membership import Membership
from stream_app.kafka.transactions import TransactionalOutput

OPENING, BEFORE_COMMIT = "opening", "before-commit"


def stop_if_asked(step: str) -> None:
    """SIGSTOP to this process where the file of that step is there."""
    asked = Path(f"{os.environ['SHUNT_TEST_WORKER']}.{step}")
    try:
        asked.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


class StopsItself(TransactionalOutput):
    """May stop after it has fenced the previous owner, and between send-offsets and commit."""

    async def open(self) -> None:
        await super().open()
        stop_if_asked(OPENING)

    async def _send_offsets(self, offsets: Any) -> None:
        await super()._send_offsets(offsets)
        stop_if_asked(BEFORE_COMMIT)


if __name__ == "__main__":
    for module in (classify_start, escalate_start):
        module.Membership = partial(Membership, make_output=StopsItself)
    main()
