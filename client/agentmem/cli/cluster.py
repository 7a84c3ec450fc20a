"""A cluster on this machine: one writer and some replicas in one data directory.

writer/ replica-1/ replica-2/ ...   a folder for each node, named after what it was first; a replica may
                                    have been promoted since
logs/<name>.log                     what each of them printed
EMBEDDER                            what they embed with, as of `up --embedder`; without it they choose
shared-segments/                    sealed vectors, of which the replicas keep one copy together
LOCK                                held while a command starts or stops nodes
"""

import fcntl
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentmem.cli import processes
from agentmem.cli.failures import CommandError, usage_error
from agentmem.cli.processes import Child, NodeFolder
from agentmem.client import Client, NodeState, Topology

HOST = "127.0.0.1"
EMBEDDER_FILE = "EMBEDDER"
SHARED_FOLDER = "shared-segments"
MAX_REPLICAS = 64
TOPOLOGY_TIMEOUT_S = 120.0
_LOCK_TIMEOUT_S = 30.0
_TOPOLOGY_INTERVAL_S = 0.1
_REPLICA = re.compile(r"replica-([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """The nodes in one data directory."""

    data_dir: Path

    @property
    def writer(self) -> NodeFolder:
        """The writer's folder: the one with the highest epoch."""
        # The first of those that are equal.
        return max(self._folders(), key=NodeFolder.writer_epoch)

    def replicas(self, count: int = 0) -> list[NodeFolder]:
        """The folders of all replicas that ever ran here, and of as many new ones as make up the count."""
        writer = self.writer
        found = [folder for folder in self._folders() if folder != writer]
        number = 1
        while len(found) < count:
            folder = NodeFolder(self.data_dir / f"replica-{number}")
            if folder != writer and folder not in found:
                found.append(folder)
            number += 1
        return found

    def _folders(self) -> list[NodeFolder]:
        """`writer`, whether it is there or not, and the others by their numbers."""
        names = [path.name for path in self.data_dir.iterdir()] if self.data_dir.is_dir() else []
        numbers = sorted(int(match[1]) for name in names if (match := _REPLICA.fullmatch(name)))
        return [NodeFolder(self.data_dir / name) for name in ("writer", *(f"replica-{n}" for n in numbers))]

    def folders(self) -> list[NodeFolder]:
        """The folders of all nodes, the writer's first."""
        return [self.writer, *self.replicas()]

    def owned(self) -> list[NodeFolder]:
        """The folders where a process lives."""
        return [folder for folder in self.folders() if folder.is_owned()]

    def endpoints(self) -> list[str]:
        """The addresses of the nodes that are ready."""
        return [process.address for folder in self.folders() if (process := folder.live())]

    def log_path(self, name: str) -> Path:
        """Where a node's output goes."""
        return self.data_dir / "logs" / f"{name}.log"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Lets one command at a time start or stop nodes."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "LOCK").open("a") as lock:
            deadline = time.monotonic() + _LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CommandError(
                            f"another agentmem command is starting or stopping nodes in {self.data_dir}"
                        ) from None
                time.sleep(processes.POLL_INTERVAL_S)
            yield

    def start_writer(self, port: int) -> Child:
        """Starts the writer; see wait_ready."""
        options = {"listen": f"{HOST}:{port}", "node-id": self.writer.name}
        return self._start("agentmem.server", self.writer, options)

    def start_replica(self, folder: NodeFolder, port: int, writer_address: str) -> Child:
        """Starts a replica; see wait_ready."""
        options = {"listen": f"{HOST}:{port}", "writer": writer_address, "node-id": folder.name}
        options["shared-segments"] = str(self.data_dir / SHARED_FOLDER)
        return self._start("agentmem.replica", folder, options)

    def keep_embedders(self, names: Sequence[str]) -> None:
        """Lets nodes that are started from now on have these embedders."""
        (self.data_dir / EMBEDDER_FILE).write_text(",".join(names), encoding="utf-8")

    def _start(self, module: str, folder: NodeFolder, options: dict[str, str]) -> Child:
        path = self.data_dir / EMBEDDER_FILE
        if path.exists():
            options["embedder"] = path.read_text(encoding="utf-8")
        return processes.start(module, options, folder, self.log_path(folder.name))

    def free_ports(self, replicas: int, port: int) -> list[int]:
        """Ports for a writer and replicas, from `port` on, or any free ones for 0.

        Raises CommandError when one is in use, or when something runs here already.
        """
        if self.owned():
            raise CommandError(_already_running(self))
        ports = [port + offset if port else 0 for offset in range(replicas + 1)]
        _check_ports(ports)
        return ports

    def start(self, ports: Sequence[int], is_cancelled: Callable[[], bool] = lambda: False) -> list[Child]:
        """Starts a writer on the first port and a replica on each of the others; all are ready then."""
        children: list[Child] = []
        try:
            children.append(self.start_writer(ports[0]))
            processes.wait_ready(children, is_cancelled)
            writer_address = self.writer_address()
            for folder, port in zip(self.replicas(len(ports) - 1), ports[1:], strict=False):
                # One at a time: should one fail, those before it must be known.
                children.append(self.start_replica(folder, port, writer_address))
            processes.wait_ready(children, is_cancelled)
        except BaseException:
            processes.stop_children(list(reversed(children)))
            raise
        return children

    def writer_address(self) -> str:
        """Where the writer serves."""
        process = self.writer.live()
        if process is None:
            raise CommandError(f"no writer runs in {self.data_dir}")
        return process.address

    def stop(self) -> list[str]:
        """Ends everything that lives here, replicas first; says what had to be killed."""
        killed = processes.stop_folders(self.replicas())
        return killed + processes.stop_folders([self.writer])


def check_replicas(count: int) -> int:
    """A number of replicas that can be run here."""
    if not 0 <= count <= MAX_REPLICAS:
        raise usage_error(f"the number of replicas must be 0 to {MAX_REPLICAS}, not {count}")
    return count


def scale(cluster: LocalCluster, replicas: int) -> tuple[list[str], list[str], list[str]]:
    """Makes the first N replicas the ones that run, and the writer too if it crashed.

    Returns the nodes started, those stopped, and what had to be killed. The started ones serve then.
    """
    with cluster.changing():
        started: list[Child] = []
        try:
            if cluster.writer.live() is None:
                started.append(_restart_writer(cluster))
                processes.wait_ready(started)
            writer_address = cluster.writer_address()
            for number, folder in enumerate(cluster.replicas(replicas)[:replicas], 1):
                if not folder.is_owned():
                    port = _free_port_near(int(writer_address.rpartition(":")[2]) + number)
                    started.append(cluster.start_replica(folder, port, writer_address))
            processes.wait_ready(started)
        except BaseException:
            processes.stop_children(list(reversed(started)))
            raise
        surplus = [folder for folder in reversed(cluster.replicas()[replicas:]) if folder.is_owned()]
        killed = [message for folder in surplus for message in processes.stop_folders([folder])]
    names = [child.name for child in started]
    with Client(writer_address) as client:
        wait_serving(client, [child.name for child in started if child.folder != cluster.writer])
    return names, [folder.name for folder in surplus], killed


def _restart_writer(cluster: LocalCluster) -> Child:
    crashed = cluster.writer.crashed()
    if crashed is None:
        folder = cluster.data_dir
        if cluster.owned():
            raise CommandError(
                f"the writer in {folder} was stopped, its replicas were not: "
                f"stop them with `agentmem down --data-dir {folder}`, then start again with `agentmem up`"
            )
        raise CommandError(f"no cluster runs in {folder}: start one with `agentmem up --data-dir {folder}`")
    # The replicas know the writer by its address.
    port = int(crashed.address.rpartition(":")[2])
    _check_ports([port])
    return cluster.start_writer(port)


def wait_serving(client: Client, node_ids: Sequence[str], timeout_s: float = TOPOLOGY_TIMEOUT_S) -> None:
    """Returns when the nodes take calls."""

    def all_serve(topology: Topology) -> bool:
        serving = {node.id for node in topology.nodes if node.state is NodeState.SERVING}
        return serving.issuperset(node_ids)

    wait_for_topology(client, all_serve, f"{', '.join(node_ids)} did not start serving", timeout_s)


def wait_searchable(client: Client, revision: int, timeout_s: float = TOPOLOGY_TIMEOUT_S) -> None:
    """Returns when searches on every replica show the writes up to the revision."""

    def all_show(topology: Topology) -> bool:
        replicas = topology.replicas
        return bool(replicas) and all(node.searchable_revision >= revision for node in replicas)

    wait_for_topology(client, all_show, f"revision {revision} did not become searchable", timeout_s)


def wait_for_topology(
    client: Client, condition: Callable[[Topology], bool], problem: str, timeout_s: float
) -> None:
    """Asks for the topology until the condition holds; raises CommandError with the problem otherwise."""
    deadline = time.monotonic() + timeout_s
    while not condition(client.topology()):
        if time.monotonic() > deadline:
            raise CommandError(f"{problem} within {timeout_s:.0f} s")
        time.sleep(_TOPOLOGY_INTERVAL_S)


def _already_running(cluster: LocalCluster) -> str:
    names = ", ".join(
        f"{folder.name} at {process.address}" if (process := folder.live()) else folder.name
        for folder in cluster.owned()
    )
    return (
        f"a cluster already runs in {cluster.data_dir}: {names}\n"
        f"stop it with `agentmem down --data-dir {cluster.data_dir}`, or use another --data-dir and --port"
    )


def _check_ports(ports: Sequence[int]) -> None:
    for port in ports:
        if port > 65535:
            raise usage_error(f"port {port} does not exist: choose a lower --port")
        if port and not _is_free(port):
            raise CommandError(f"port {port} on {HOST} is in use: choose another with --port")


def _free_port_near(port: int) -> int:
    """The port if it is free, else 0: a replica's address is no one's business but the topology's."""
    return port if port <= 65535 and _is_free(port) else 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As a server does it: ports in TIME_WAIT are free, those that somebody listens on are not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
