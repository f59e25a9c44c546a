"""Logs: one line a record on standard error, as text for people and as JSON for machines, without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_SECRETS = re.compile(
    r"\b(sk-|gsk_|Bearer\s+|api[-_]key[\"']?\s*[:=]\s*[\"']?)[A-Za-z0-9._~+/-]{6,}[=*]*", re.IGNORECASE
)
_CHATTY = ("aiokafka", "faust", "mode", "httpx", "httpx2", "openai", "asyncio")
"""Libraries that say at level INFO what only their own authors want to know."""
REPEAT_EVERY_S = 10.0
MESSAGES_KNOWN_MAX = 1_000


def masked(text: str) -> str:
    """`text` with what looks like a key or bearer token blotted out (providers echo keys in errors)."""
    return _SECRETS.sub(lambda match: f"{match.group(1)}***", text)


class Seldom(logging.Filter):
    """Lets a library's message through once in `REPEAT_EVERY_S`, and says then how often it was held back.

    A broker that is away makes aiokafka write fifty lines a second; the first says everything.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a chatty library's message that was let through a moment ago."""
        if not record.name.startswith(_CHATTY):
            return True
        key = (record.name, str(record.msg))
        last_s, held_back = self._last.get(key, (-REPEAT_EVERY_S, 0))
        if record.created - last_s < REPEAT_EVERY_S:
            self._last[key] = (last_s, held_back + 1)
            return False
        if len(self._last) >= MESSAGES_KNOWN_MAX:
            self._last.clear()
        self._last[key] = (record.created, 0)
        if held_back:
            record.msg, record.args = f"{record.getMessage()} (and {held_back} times like it before)", ()
        return True


class LineFormatter(logging.Formatter):
    """`12:30:01.250 WARNING stream_app.kafka: what happened`, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, secrets masked."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = " ".join(record.getMessage().split())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {record.name}: {message}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return masked(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object, secrets masked."""
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{whole}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(level: str | int | None = None, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error), as text on a terminal and as JSON elsewhere.

    `SHUNT_LOG_FORMAT` (`text` or `json`) and `SHUNT_LOG_LEVEL` decide where they are set. Replaces whatever
    handlers the root logger had, so that calling it again (Faust sets up its own first) is safe.
    """
    target: TextIO = stream or sys.stderr
    chosen = os.environ.get("SHUNT_LOG_FORMAT", "").lower() or ("text" if target.isatty() else "json")
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter() if chosen == "json" else LineFormatter())
    handler.addFilter(Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = level or os.environ.get("SHUNT_LOG_LEVEL", "INFO")
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(root.level if root.level <= logging.DEBUG else logging.WARNING)
