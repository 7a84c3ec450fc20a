"""A process that has loaded the programs and forks for each that is to run. `programs.py` talks to it.

What a program runs in is a process all the same, with its own streams, environment, folder and end: only the
loading of modules, which is most of what a start costs, is done once. The template ends as its socket closes.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import selectors
import socket
import sys
from contextlib import suppress
from typing import Any

# Before NumPy is loaded, as in a replica: a fork may have no threads behind it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import wordllama  # noqa: F401

import agentmem.cli.main
import agentmem.replica.process
import agentmem.server.process
import agentmem.server.store_tools  # noqa: F401

# Streams of the program, and the socket that hears its process id and its exit code.
STREAMS = 3
LENGTH_BYTES = 4
NUMBER_BYTES = 8


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its file descriptors; None when nobody is there any more."""
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH_BYTES, STREAMS + 1)
    if not head:
        return None
    rest = b""
    while len(rest) < int.from_bytes(head):
        rest += control.recv(int.from_bytes(head) - len(rest))
    request: dict[str, Any] = json.loads(rest)
    return request, descriptors


def forked(control: socket.socket) -> dict[str, Any] | None:
    """Forks for each request, and tells of each end; what was asked for in the fork, None at the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    pid, heard = key.data
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    tell(heard, code)
                    os.close(heard)
                    continue
                received = receive(control)
                if received is None:
                    return None
                request, descriptors = received
                *streams, heard = descriptors
                pid = os.fork()
                if pid == 0:
                    for place, stream in enumerate(streams):
                        os.dup2(stream, place)
                    # Whoever waits for the end of another process's streams must not wait for this one's.
                    for each in selector.get_map().values():
                        if each.data is not None:
                            os.close(each.fd)
                            os.close(each.data[1])
                    for descriptor in descriptors:
                        os.close(descriptor)
                    control.close()
                    return request
                for stream in streams:
                    os.close(stream)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, heard))
                tell(heard, pid)


def tell(heard: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(heard, number.to_bytes(NUMBER_BYTES, signed=True))


def main() -> None:
    gc.collect()
    gc.freeze()
    try:
        request = forked(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        return
    if request is not None:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.path[0] = request["folder"]
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
