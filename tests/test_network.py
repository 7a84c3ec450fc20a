"""Nodes in network namespaces of their own, joined by links that are late and lose packets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Node, wait_until
from stream_faults import FLAGS, check_equal_nodes

PORT = 50051
LINK = ("delay", "20ms", "5ms", "loss", "2%")
CLIENT_TIMEOUT_S = 100
FOLDER = Path(__file__).parent
# What the client does, from a namespace of its own: writes, and reads what it wrote from the replicas.
CLIENT = """
import sys, time
from agentmem.client import Client, NewMemory
first, count, settled_replicas = map(int, sys.argv[2:])
with Client(sys.argv[1], timeout_s=60.0) as client:
    session = client.session()
    for number in range(first, first + count):
        added = session.add("ns", NewMemory(content=f"number {number} of the trip", id=f"m{number}"))
        assert session.get("ns", f"m{number // 2}") is not None
        session.search("ns", "trip")
    settled = lambda: [
        node for node in client.topology().nodes
        if node.role == "replica" and node.searchable_revision >= added.revision
    ]
    while len(settled()) < settled_replicas:
        time.sleep(0.05)
"""


class NoNamespaces(Exception):
    """Network namespaces cannot be made here; says why."""


@dataclass(frozen=True, slots=True)
class Network:
    """Namespaces, each of which has a port on a bridge.

    Attributes:
        bridge: the namespace of the bridge.
        names: of the namespaces.
        addresses: of each, on the bridge.
        is_lossy: whether the links are late and lose packets; some kernels cannot do that.
    """

    bridge: str
    names: list[str]
    addresses: list[str]
    is_lossy: bool

    def set_link(self, number: int, state: str) -> None:
        """Plugs the cable of a namespace in or out: ``up`` or ``down``."""
        run("ip", "-n", self.bridge, "link", "set", f"port{number}", state)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"{' '.join(command)}: {done.stderr.strip()}")


def spoil(name: str) -> bool:
    """Makes the link of a namespace late and lossy; whether the kernel could."""
    tc = ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth", "root", "netem", *LINK]
    return (
        shutil.which("tc") is not None and not subprocess.run(tc, capture_output=True, check=False).returncode
    )


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Makes the namespaces, and takes them away in the end. Raises NoNamespaces."""
    if shutil.which("ip") is None:
        raise NoNamespaces("there is no ip command")
    if os.geteuid():
        raise NoNamespaces("only root may make them")
    tag = uuid.uuid4().hex[:6]
    # The bridge is in a namespace as well, so that nothing outside is touched.
    bridge, *names = (f"agentmem-{tag}-{number}" for number in range(count + 1))
    addresses = [f"10.77.0.{number + 1}" for number in range(count)]
    made: list[str] = []
    try:
        for name in (bridge, *names):
            run("ip", "netns", "add", name)
            made.append(name)
        run("ip", "-n", bridge, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", bridge, "link", "set", "bridge", "up")
        for number, name in enumerate(names):
            pair = ("link", "add", f"port{number}", "type", "veth", "peer", "name", "eth", "netns", name)
            run("ip", "-n", bridge, *pair)
            run("ip", "-n", bridge, "link", "set", f"port{number}", "master", "bridge", "up")
            run("ip", "-n", name, "address", "add", f"{addresses[number]}/24", "dev", "eth")
            run("ip", "-n", name, "link", "set", "eth", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        spoiled = [spoil(name) for name in names]
        yield Network(bridge, names, addresses, all(spoiled))
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


class PlacedNode(Node):
    """A node in a namespace, on its loopback, and a forwarder that leads there from the network."""

    def __init__(self, place: tuple[Network, int], module: str, data_dir: Path, *flags: str) -> None:
        network, number = place
        self.prefix = ["ip", "netns", "exec", network.names[number]]
        self.place = f"{network.addresses[number]}:{PORT}"
        self._forwarder = subprocess.Popen(
            [*self.prefix, sys.executable, str(FOLDER / "forwarder.py"), self.place, f"127.0.0.1:{PORT}"]
        )
        super().__init__(
            module, data_dir, *flags, *FLAGS, "--advertise", self.place, listen=f"127.0.0.1:{PORT}"
        )

    def stop(self) -> None:
        super().stop()
        self._forwarder.kill()
        self._forwarder.wait()


def use(network: Network, target: str, first: int, count: int, *, settled_replicas: int = 0) -> None:
    """Runs the client in the last namespace; returns when so many replicas have what it wrote."""
    arguments = (target, str(first), str(count), str(settled_replicas))
    subprocess.run(
        ["ip", "netns", "exec", network.names[-1], sys.executable, "-c", CLIENT, *arguments],
        timeout=CLIENT_TIMEOUT_S,
        check=True,
    )


def test_nodes_on_networks_that_lose_packets_and_are_parted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            network_ = stack.enter_context(network(4))
        except NoNamespaces as error:
            pytest.skip(f"no network namespaces: {error}")
        print("links are late and lossy" if network_.is_lossy else "this kernel has no netem: good links")
        writer = PlacedNode((network_, 0), "agentmem.server", tmp_path / "writer", "--node-id", "writer")
        stack.callback(writer.stop)
        writer.wait_ready()
        replicas = []
        for number in (1, 2):
            flags = ("--node-id", f"replica-{number}", "--writer", writer.place)
            replica = PlacedNode((network_, number), "agentmem.replica", tmp_path / str(number), *flags)
            stack.callback(replica.stop)
            replicas.append(replica)
        for replica in replicas:
            replica.wait_ready()
        use(network_, writer.place, 0, 20, settled_replicas=2)
        # A cable is out: nobody is told, packets are gone. Reads and writes go on with the others.
        network_.set_link(1, "down")
        use(network_, writer.place, 20, 20)
        wait_until(lambda: "cannot be followed" in "".join(replicas[0].log), "the replica notices")
        network_.set_link(1, "up")
        wait_until(lambda: replicas[0].log[-1].count("following the writer") > 0, "the replica follows again")
        use(network_, writer.place, 40, 5, settled_replicas=2)
        check_equal_nodes(writer, replicas)
