"""`python -m stream_app.local.llm`: run the stand-in until a signal."""

from __future__ import annotations

import sys

from aiohttp import web

from stream_app.local.llm.options import from_argv
from stream_app.local.llm.replay import Replay, ReplayError
from stream_app.local.llm.server import StandIn


def main() -> int:
    """Serve on 127.0.0.1 until SIGTERM or Ctrl-C. Returns the exit status."""
    port, options = from_argv(sys.argv[1:])
    replay = None
    if options.replay is not None:
        try:
            replay = Replay(options.replay, options.replay_names)
        except ReplayError as error:
            print(error, file=sys.stderr)
            return 2
    answers = "a fixed rule" if replay is None else f"{len(replay)} recorded answers"
    print(f"stand-in LLM on http://127.0.0.1:{port}/v1, answering by {answers}", flush=True)
    web.run_app(
        StandIn(options, replay).app(),
        host="127.0.0.1",
        port=port,
        access_log=None,
        handler_cancellation=True,  # a client that leaves is noticed at once, and its call is logged as left
        print=None,
        backlog=4096,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
