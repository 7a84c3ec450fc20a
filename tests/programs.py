"""Starts the programs as forks of one process that has loaded them; as `python -m` where that cannot be.

A start costs 0.4 s of CPU less so, and the tests start some hundred nodes and commands.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from program_template import LENGTH_BYTES, NUMBER_BYTES

# What is different for each program, and read when it runs.
OWN_PREFIXES = ("AGENTMEM_", "PYTEST_CURRENT_TEST", "TOKENIZERS_PARALLELISM")
START_TIMEOUT_S = 60.0


class Fork:
    """A program that runs, with the methods of subprocess.Popen that tests use."""

    def __init__(self, command: Sequence[str], heard: socket.socket) -> None:
        self.args = command
        self.returncode: int | None = None
        self._heard = heard
        self._lock = threading.Lock()
        heard.settimeout(START_TIMEOUT_S)
        self.pid = self._number()

    def _number(self) -> int:
        got = self._heard.recv(NUMBER_BYTES)
        if len(got) < NUMBER_BYTES:
            raise AssertionError(f"what started {' '.join(self.args)} is gone")
        return int.from_bytes(got, signed=True)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative after a signal.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        with self._lock:
            if self.returncode is None:
                self._heard.settimeout(timeout)
                try:
                    self.returncode = self._number()
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
                self._heard.close()
            return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Template:
    """The process that has loaded the programs."""

    def __init__(self) -> None:
        self.environment = _shared(os.environ)
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        program = Path(__file__).with_name("program_template.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        atexit.register(self._end)

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> Fork:
        request = json.dumps(
            {
                "module": module,
                "arguments": arguments,
                "environment": dict(environment),
                "folder": os.getcwd(),
            }
        ).encode()
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            head = len(request).to_bytes(LENGTH_BYTES)
            socket.send_fds(self._control, [head], [*streams, theirs.fileno()])
            self._control.sendall(request)
        return Fork([sys.executable, "-m", module, *arguments], ours)

    def _end(self) -> None:
        self._control.close()
        self._process.wait(START_TIMEOUT_S)


_first_start = threading.Lock()
_template: _Template | None = None


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OWN_PREFIXES)}


def start(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[IO[Any]],
    prefix: Sequence[str] = (),
) -> Fork | subprocess.Popen[bytes]:
    """Runs `prefix python -m module arguments` with (stdin, stdout, stderr), which the caller closes.

    By a fork, unless there is a prefix, or the modules could find another environment as they load than those
    of the template did.
    """
    global _template
    with _first_start:
        if _template is None:
            _template = _Template()
    if not prefix and hasattr(os, "pidfd_open") and _shared(environment) == _template.environment:
        return _template.start(module, arguments, environment, [each.fileno() for each in streams])
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", module, *arguments],
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


def run(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float = 100.0,
) -> subprocess.CompletedProcess[bytes]:
    """As ``start``, and waits for the end.

    Raises:
        subprocess.TimeoutExpired: it was killed after ``timeout_s``.
    """
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as error:
        given.write(stdin)
        given.seek(0)
        process = start(
            module, arguments, os.environ if environment is None else environment, (given, out, error)
        )
        try:
            code = process.wait(timeout_s)
        finally:
            process.kill()
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), error.read())
