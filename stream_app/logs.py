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


def masked(text: str) -> str:
    """`text` with what looks like a key or bearer token blotted out (providers echo keys in errors)."""
    return _SECRETS.sub(lambda match: f"{match.group(1)}***", text)


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = level or os.environ.get("SHUNT_LOG_LEVEL", "INFO")
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(root.level if root.level <= logging.DEBUG else logging.WARNING)
