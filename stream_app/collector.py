"""The garbage collector of a worker: run rarely, and only over what is young."""

from __future__ import annotations

import gc

YOUNG_MAX = 100_000
"""Objects made before a young collection. A batch makes up to some 16,000 records of a few objects each, which
reference counting frees at once; at Python's default of 700 each of them is walked several times first."""


def calm_garbage_collector() -> None:
    """What is alive now stays for ever (modules, settings): it is never walked again. Call once, before work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)
