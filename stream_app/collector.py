"""The garbage collector of a worker: run rarely, and only over what is young."""

from __future__ import annotations

import gc

YOUNG_MAX = 1_000_000
"""Objects made and not freed before a young collection. Three batches of 16,384 records are under way at once, each
record a dozen objects that reference counting frees by itself: 600,000. Below that every batch is walked several
times for nothing, which cost 1 µs a record (`benchmarks/hot_path.py`: 8.9 µs at 100,000, 7.8 µs at 1,000,000)."""


def calm_garbage_collector() -> None:
    """What is alive now stays for ever (modules, settings): it is never walked again. Call once, before work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)
