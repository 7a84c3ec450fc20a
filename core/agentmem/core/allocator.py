"""How many heaps the C library gives the threads of a process.

glibc gives each thread its own, up to eight for each core, and what one thread has freed serves no other. The
bitmaps, vectors and messages of a replica are made by some threads and freed by others: 100,000 memories took
1.9 KB each, two thirds of it free and held.
"""

from __future__ import annotations

import ctypes
import os

# Threads take turns for the interpreter's lock anyway, so two are enough that they hardly wait.
MAX_ARENAS = 2
_M_ARENA_MAX = -8


def limit_arenas() -> None:
    """Bounds them from now on, unless the environment has a bound, or the C library has none to set."""
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MAX_ARENAS)
