"""The processes of a local cluster, each with a folder of its own that says who lives there.

A process holds a flock on `LOCK` in its folder while it lives, and that is the only proof of life: a pid
alone may belong to somebody else by now. When it is ready it writes `process.json`, and removes it at a clean
exit. So a `process.json` beside a free `LOCK` is what a crash leaves behind. `STOPPING` says that the end of
the process was asked for, so that nobody takes it for a crash even when it had to be killed.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmem.cli.failures import CommandError

START_TIMEOUT_S = 120.0
TERMINATE_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.05
LOG_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a process says about itself when it is ready."""

    pid: int
    role: str
    node_id: str
    address: str
    start_time: float
    # Of /metrics; empty without.
    metrics_address: str = ""


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The folder of one node, named as the node."""

    path: Path

    @property
    def name(self) -> str:
        """`writer` or `replica-N`, which is what the node was first."""
        return self.path.name

    def writer_epoch(self) -> int:
        """The epoch of which the node here is, or was last, the writer; 0 for a replica."""
        path = self.path / "standing.json"
        try:
            standing = json.loads(path.read_bytes())
            return int(standing["known_epoch"]) if standing["role"] == "writer" else 0
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{path} cannot be read: {error!r}") from error

    def is_owned(self) -> bool:
        """Whether a process lives here, ready or not."""
        try:
            descriptor = os.open(self.path / "LOCK", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def announcement(self) -> Announcement | None:
        """What the last process here said, whether it still lives or crashed."""
        try:
            data = json.loads((self.path / "process.json").read_bytes())
            return Announcement(
                int(data["pid"]),
                str(data["role"]),
                str(data["node_id"]),
                str(data["address"]),
                float(data["start_time"]),
                str(data.get("metrics_address", "")),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{self.path / 'process.json'} cannot be read: {error!r}") from error

    def live(self) -> Announcement | None:
        """The process that is ready here and alive."""
        before = self.announcement()
        if before is None or not self.is_owned():
            return None
        # The same on both sides of the look at the lock: it speaks of the process that holds it.
        return before if self.announcement() == before else None

    def crashed(self) -> Announcement | None:
        """The process that died here without an orderly end, if that was the last one."""
        return None if self.is_owned() else self.announcement()

    def is_stopping(self) -> bool:
        """Whether the process that lives here, or did last, was asked to end."""
        return (self.path / "STOPPING").exists()

    def mark_stopping(self) -> None:
        """Says that the process here is asked to end."""
        (self.path / "STOPPING").touch()

    def clear(self) -> None:
        """Forgets how the last process here ended."""
        for name in ("process.json", "STOPPING"):
            (self.path / name).unlink(missing_ok=True)


@dataclass(slots=True)
class Child:
    """A process that was started here."""

    folder: NodeFolder
    process: subprocess.Popen[bytes]
    log_path: Path
    log_offset: int

    @property
    def name(self) -> str:
        """The name of its node."""
        return self.folder.name

    def log_tail(self) -> str:
        """The last lines that it wrote, indented."""
        return log_tail(self.log_path, self.log_offset)


def start(module: str, options: Mapping[str, str], folder: NodeFolder, log_path: Path) -> Child:
    """Starts `python -m module --insecure` in a session of its own, so that Ctrl-C does not reach it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.clear()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, "--insecure", "--data-dir", str(folder.path)]
    for name, value in options.items():
        command += [f"--{name}", value]
    with log_path.open("ab") as log:
        offset = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Child(folder, process, log_path, offset)


def wait_ready(children: Sequence[Child], is_cancelled: Callable[[], bool] = lambda: False) -> None:
    """Returns when all are ready; raises CommandError with the end of the log of one that is not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    pending = list(children)
    while pending:
        for child in list(pending):
            code = child.process.poll()
            if code is not None:
                raise CommandError(f"{child.name} did not start: {how_ended(code)}\n{child.log_tail()}")
            announced = child.folder.announcement()
            if announced is not None and announced.pid == child.process.pid:
                pending.remove(child)
        if is_cancelled():
            raise CommandError("stopped while starting")
        if pending and time.monotonic() > deadline:
            child = pending[0]
            raise CommandError(
                f"{child.name} was not ready after {START_TIMEOUT_S:.0f} s\n{child.log_tail()}"
            )
        time.sleep(POLL_INTERVAL_S if pending else 0)


def stop_children(children: Sequence[Child]) -> list[str]:
    """Ends processes that were started here, ready or not; says which had to be killed."""
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + TERMINATE_TIMEOUT_S
    killed = []
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait(KILL_TIMEOUT_S)
            killed.append(_killed_message(child.name, TERMINATE_TIMEOUT_S))
    return killed


def stop_folders(folders: Sequence[NodeFolder], timeout_s: float = TERMINATE_TIMEOUT_S) -> list[str]:
    """Ends whatever lives in the folders, whoever started it; says which had to be killed.

    A process that is still starting is ended as soon as it has said who it is.
    """
    killed = []
    for folder in folders:
        if folder.is_owned():
            folder.mark_stopping()
    pending = _signal_until_free(folders, signal.SIGTERM, timeout_s)
    for folder in pending:
        if _signal_until_free([folder], signal.SIGKILL, KILL_TIMEOUT_S):
            raise CommandError(
                f"the process in {folder.path} cannot be stopped: it does not say its pid, or hangs"
            )
        # What a clean exit would have removed.
        (folder.path / "process.json").unlink(missing_ok=True)
        killed.append(_killed_message(folder.name, timeout_s))
    return killed


def _signal_until_free(
    folders: Sequence[NodeFolder], number: signal.Signals, timeout_s: float
) -> list[NodeFolder]:
    """Signals each process once and waits for their ends; returns the folders still owned."""
    deadline = time.monotonic() + timeout_s
    signalled: set[int] = set()
    while True:
        owned = [folder for folder in folders if folder.is_owned()]
        for folder in owned:
            process = folder.live()
            if process is not None and process.pid not in signalled:
                signalled.add(process.pid)
                _signal(process.pid, number)
        if not owned or time.monotonic() > deadline:
            return owned
        time.sleep(POLL_INTERVAL_S)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It ended by itself; the free lock will show it.
        return
    except PermissionError as error:
        raise CommandError(f"process {pid} belongs to another user and cannot be stopped") from error


def _killed_message(name: str, timeout_s: float) -> str:
    return f"{name} did not stop within {timeout_s:.0f} s and was killed"


def how_ended(code: int) -> str:
    """An exit code as subprocess has it, in words."""
    return f"it exited with code {code}" if code >= 0 else f"it was killed by {signal.Signals(-code).name}"


def log_tail(path: Path, offset: int = 0, max_lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, indented, with its path."""
    try:
        with path.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        lines = []
    text = "".join(f"\n  {line}" for line in lines[-max_lines:])
    return f"the end of {path}:{text}" if text else f"{path} is empty"
