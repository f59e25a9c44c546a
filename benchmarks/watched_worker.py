"""The command line with its event loop watched closely: fifty times a second instead of twice."""

from __future__ import annotations

from stream_app import supervision
from stream_app.cli import main

CHECK_S = 0.02

if __name__ == "__main__":
    supervision.LOOP_CHECK_S = CHECK_S
    main()
