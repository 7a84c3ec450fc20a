"""Real processes for tests: a writer and replicas on free ports of loopback."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

import grpc
import lmdb
import programs

from agentmem.client import Client
from agentmem.v1 import cluster_pb2, cluster_pb2_grpc, reader_pb2_grpc, writer_pb2_grpc

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.01
MAX_LOG_LINES = 2000


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Polls until the condition holds; fails the test, naming it, when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(POLL_INTERVAL_S)  # the poll's pace, bounded by the deadline above


class Node:
    """One process, started as with ``python -m``, behind the words of ``prefix``."""

    prefix: Sequence[str] = ()

    def __init__(
        self,
        module: str,
        data_dir: Path,
        *flags: str,
        listen: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._environment = dict(environment or {})
        self._module = module
        self._arguments = ["--data-dir", str(data_dir), "--insecure", *flags]
        self._listen = listen
        self.address = ""
        self.log: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._start()

    def _start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTMEM_")}
        out, its_out = os.pipe()
        error, its_error = os.pipe()
        self._out, self._error = os.fdopen(out), os.fdopen(error)
        with (
            open(os.devnull) as nothing,
            os.fdopen(its_out) as stdout,
            os.fdopen(its_error) as stderr,
        ):
            self.process = programs.start(
                self._module,
                [*self._arguments, "--listen", self._listen],
                inherited | self._environment,
                (nothing, stdout, stderr),
                self.prefix,
            )
        self._reader = threading.Thread(target=self._read_log, args=(self._error,), daemon=True)
        self._reader.start()

    def _read_log(self, lines: TextIO) -> None:
        self.log.extend(lines)

    def wait_ready(self) -> Node:
        """Returns once the process has said where it serves."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT_S):
                raise AssertionError(f"not ready within {START_TIMEOUT_S} s: {''.join(self.log)}")
        line = self._out.readline()
        if " ready on " not in line:
            self._reader.join(STOP_TIMEOUT_S)
            raise AssertionError(f"did not start: {line!r} {''.join(self.log)}")
        self.address = self._listen = line.split()[-1]
        return self

    def kill(self) -> None:
        """SIGKILL, as from a crash."""
        self.process.kill()
        self._wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        self._out.close()
        self._error.close()
        return code

    def pause(self) -> None:
        """Stops the process where it is, until ``resume``."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self, *flags: str) -> Node:
        """Starts it again on its data and, once it had one, its address; with more flags from now on."""
        self._arguments += flags
        self._start()
        return self.wait_ready()

    def stop(self) -> None:
        """Ends it, however it is."""
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self._wait()
            except subprocess.TimeoutExpired:
                # It says where each of its threads is.
                self.process.send_signal(signal.SIGUSR1)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(1)
                self.kill()
                raise AssertionError(f"it did not end: {''.join(self.log)}") from None

    @property
    def announcement(self) -> dict[str, object]:
        """What it wrote to process.json."""
        document: dict[str, object] = json.loads((self.data_dir / "process.json").read_text())
        return document


class Cluster:
    """A writer and its replicas, with their data under one folder."""

    def __init__(self, path: Path, replicas: int = 2, writer_flags: tuple[str, ...] = ()) -> None:
        self.path = path
        self.writer = Node("agentmem.server", path / "writer", "--node-id", "writer", *writer_flags)
        self.writer.wait_ready()
        self.replicas: list[Node] = []
        for _ in range(replicas):
            self.begin_replica()
        for replica in self.replicas:
            replica.wait_ready()

    def begin_replica(self, *flags: str) -> Node:
        """Starts one more replica; the caller waits until it is ready."""
        name = f"replica-{len(self.replicas) + 1}"
        replica = Node(
            "agentmem.replica",
            self.path / name,
            *("--node-id", name, "--writer", self.writer.address, *flags),
        )
        self.replicas.append(replica)
        return replica

    @property
    def nodes(self) -> list[Node]:
        return [self.writer, *self.replicas]

    def topology(self) -> cluster_pb2.Topology:
        """As the writer sees it now."""
        with grpc.insecure_channel(self.writer.address) as channel:
            stub = cluster_pb2_grpc.ClusterServiceStub(channel)
            return stub.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=10).topology

    def wait_searchable(self, revision: int) -> None:
        """Returns when the searches of every living replica show the revision."""
        alive = {replica.address for replica in self.replicas if replica.process.poll() is None}

        def shown() -> bool:
            searchable = {node.address: node.searchable_revision for node in self.topology().nodes}
            return all(searchable.get(address, -1) >= revision for address in alive)

        wait_until(shown, f"revision {revision} searchable on {sorted(alive)}")

    def wait_settled(self) -> None:
        """Returns when the searches of every living replica show what the writer has now."""
        (revision,) = [
            node.applied_revision
            for node in self.topology().nodes
            if node.role == cluster_pb2.NODE_ROLE_WRITER
        ]
        self.wait_searchable(revision)

    def stop(self) -> None:
        # All of them, also when one does not end.
        with ExitStack() as stopping:
            for node in self.nodes:
                stopping.callback(node.stop)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def held_back(*replicas: Node) -> Iterator[None]:
    """Holds LMDB's lock on writes: the replicas get entries and serve reads, and can apply nothing."""
    with ExitStack() as held:
        for replica in replicas:
            environment = lmdb.open(str(replica.data_dir / "store"), max_dbs=32, create=False)
            held.callback(environment.close)
            held.enter_context(environment.begin(write=True))
        yield


class Stubs:
    """Generated stubs on one node, as a user of the protos has them."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.writer = writer_pb2_grpc.WriterServiceStub(self.channel)
        self.reader = reader_pb2_grpc.ReaderServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)

    def __enter__(self) -> Stubs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()


def client_of(cluster: Cluster) -> Client:
    """A client that knows the writer only, as most will."""
    return Client(cluster.writer.address, timeout_s=30.0)
