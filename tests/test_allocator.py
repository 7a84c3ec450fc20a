"""The heaps of the C library: as few as were asked for, and as many as there are without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Twelve threads that take memory side by side, then what the C library says of its heaps.
PROGRAM = """
import ctypes, sys, threading
from agentmem.core.allocator import limit_arenas
if sys.argv[1] == "limited":
    limit_arenas()
libc = ctypes.CDLL(None)
barrier = threading.Barrier(13)
def take():
    libc.malloc(1000)
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads:
    thread.start()
barrier.wait()
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
barrier.wait()
"""


def heaps(argument: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", PROGRAM, argument]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=30)
    return done.stdout.count(b"<heap nr=")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_threads_share_heaps() -> None:
    assert heaps("unlimited") > 5
    assert heaps("limited") == 2
    assert heaps("limited", MALLOC_ARENA_MAX="5") == 5
