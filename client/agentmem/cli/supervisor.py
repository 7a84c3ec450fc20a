"""`agentmem up`: starts a local cluster, watches it in the foreground, and stops it on Ctrl-C."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentmem.cli import processes, terminal
from agentmem.cli.cluster import LocalCluster
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.processes import Announcement, Child, NodeFolder

WATCH_INTERVAL_S = 0.25
_REAP_TIMEOUT_S = 1.0
_LAST_WORDS_LINES = 3
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ORDERLY_EXIT_CODES = (0, -signal.SIGTERM)


@dataclass(slots=True)
class Watch:
    """What the supervisor knows of the nodes, and what it said about them."""

    cluster: LocalCluster
    children: dict[int, Child]
    known: dict[str, Announcement] = field(default_factory=dict)
    replicas: int = 0
    crashed: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Says which nodes came, stopped or died since the last look."""
        now = {folder.name: process for folder in self.cluster.folders() if (process := folder.live())}
        for name, process in now.items():
            if self.known.get(name) != process:
                # A node keeps the name of what it was first.
                role = "" if name.startswith(process.role) else f" as the {process.role}"
                metrics = f", metrics at {process.metrics_address}" if process.metrics_address else ""
                terminal.say(f"{name} serves at {process.address}{role}{metrics}")
                self.crashed.discard(name)
        ended = [(name, process) for name, process in self.known.items() if now.get(name) != process]
        died = {
            name
            for name, process in ended
            if self._say_end(NodeFolder(self.cluster.data_dir / name), process)
        }
        if died:
            self.crashed |= died - set(now)
            command = f"scale {self.replicas}" if now else "up"
            terminal.note(f"bring it back with: agentmem {command} --data-dir {self.cluster.data_dir}")
        self.replicas = max(self.replicas, len(now) - 1)
        self.known = now

    def _say_end(self, folder: NodeFolder, process: Announcement) -> bool:
        """Says how a process ended, and returns whether nobody had asked for it."""
        child = self.children.get(process.pid)
        code = _exit_code(child) if child else None
        if child is not None and code is None and not folder.is_stopping():
            terminal.say(f"{folder.name} changes its role")
            return False
        self.children.pop(process.pid, None)
        if folder.is_stopping():
            how = ""
        elif code is None:
            # Started by another command: a crash is known by what it leaves behind.
            how = "it crashed" if folder.crashed() == process else ""
        else:
            how = "" if code in _ORDERLY_EXIT_CODES else processes.how_ended(code)
        if not how:
            terminal.say(f"{folder.name} stopped")
            return False
        tail = processes.log_tail(self.cluster.log_path(folder.name), max_lines=_LAST_WORDS_LINES)
        terminal.fail(f"{folder.name} died: {how}; {tail}")
        return True


def serve(
    data_dir: Path,
    replicas: int,
    port: int,
    prepare: Callable[[LocalCluster], None] | None = None,
    *,
    embedders: Sequence[str] = (),
) -> ExitCode:
    """Runs a cluster until a signal or until nothing is left of it.

    Args:
        prepare: called once it is ready.
        embedders: of all its nodes, also those that are started later; those of the last time when empty.
    """
    cluster = LocalCluster(data_dir)
    stop_asked = threading.Event()
    with _stop_signals_set(stop_asked):
        with cluster.changing():
            ports = cluster.free_ports(replicas, port)
            if embedders:
                cluster.keep_embedders(embedders)
            terminal.say(f"starting one writer and {replicas} {_noun(replicas)} in {data_dir}")
            children = cluster.start(ports, stop_asked.is_set)
        watch = Watch(cluster, {child.process.pid: child for child in children}, replicas=replicas)
        try:
            watch.look()
            if prepare is not None and not stop_asked.is_set():
                prepare(cluster)
            terminal.say("ready; Ctrl-C stops everything")
            while not stop_asked.wait(WATCH_INTERVAL_S):
                watch.look()
                if not watch.known and not cluster.owned():
                    terminal.say(f"nothing runs in {data_dir} any more")
                    return ExitCode.FAILED if watch.crashed else ExitCode.OK
        finally:
            try:
                if cluster.owned():
                    terminal.say("stopping")
            finally:
                # Also when nobody reads what is printed any more.
                stop(cluster)
        terminal.say("stopped")
    return ExitCode.OK


def stop(cluster: LocalCluster) -> None:
    """Ends everything in the data directory and says what had to be killed."""
    try:
        with cluster.changing():
            killed = cluster.stop()
    except CommandError as error:
        # Another command is stuck while it starts or stops nodes: stopping is still right.
        killed = cluster.stop()
        terminal.fail(str(error))
    for message in killed:
        terminal.note(message)


@contextmanager
def _stop_signals_set(event: threading.Event) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda *_: event.set()) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit_code(child: Child) -> int | None:
    try:
        return child.process.wait(_REAP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None


def _noun(replicas: int) -> str:
    return "replica" if replicas == 1 else "replicas"
