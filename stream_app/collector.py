"""A worker's memory: the garbage collector runs rarely, and freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import gc

YOUNG_MAX = 1_000_000
"""Objects made and not freed before a young collection. Three batches of 16,384 records are under way at once, each
record a dozen objects that reference counting frees by itself: 600,000. Below that every batch is walked several
times for nothing, which cost 1 µs a record (`benchmarks/hot_path.py`: 8.9 µs at 100,000, 7.8 µs at 1,000,000)."""
MMAP_THRESHOLD_BYTES = 4 * 1024 * 1024
TRIM_THRESHOLD_BYTES = 16 * 1024 * 1024
"""glibc raises both by itself, to 32 and 64 MB, and then keeps what batches and fetches took: 10 to 40 MB more
resident (`benchmarks/overload.py`). A quarter of these two costs the hot path a tenth of its CPU: every batch's
buffers would be new pages (`benchmarks/hot_path.py`)."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def calm_garbage_collector() -> None:
    """What is alive now stays for ever (modules, settings): it is never walked again. Call once, before work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)


def give_memory_back() -> None:
    """Call once, before work. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
