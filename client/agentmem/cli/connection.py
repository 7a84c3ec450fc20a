"""The way to the cluster, for one command."""

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from agentmem.cli.failures import from_client, unreachable, usage_error
from agentmem.client import Client
from agentmem.client.errors import AgentMemError

DEFAULT_TARGET = "127.0.0.1:50051"
CONNECT_TIMEOUT_S = 3.0


@contextmanager
def connected(target: str, timeout_s: float, namespace: str | None = None) -> Iterator[Client]:
    """A client of the cluster; what it raises becomes a CommandError."""
    if namespace == "":
        raise usage_error("which namespace? name it with -n NAME, or in AGENTMEM_NAMESPACE")
    endpoints = [endpoint for part in target.split(",") if (endpoint := part.strip())]
    if not endpoints:
        raise usage_error("which cluster? name it with --target host:port, or in AGENTMEM_TARGET")
    with translated(target), Client(*endpoints, timeout_s=timeout_s) as client:
        _check_reachable(endpoints, min(timeout_s, CONNECT_TIMEOUT_S))
        yield client


@contextmanager
def translated(target: str) -> Iterator[None]:
    """Turns what the client raises into a CommandError."""
    try:
        yield
    except AgentMemError as error:
        raise from_client(error, target) from error


def _check_reachable(endpoints: Sequence[str], timeout_s: float) -> None:
    """Fails at once when nobody listens; the client would wait for a node to come back."""
    problems = []
    for endpoint in endpoints:
        problem = _connection_problem(endpoint, timeout_s)
        if not problem:
            return
        problems.append(f"{endpoint}: {problem}")
    raise unreachable(", ".join(endpoints), "; ".join(problems))


def unreachable_addresses(addresses: Sequence[str]) -> set[str]:
    """Those that take no connection; a dead writer stays in the topology that the replicas know."""
    if not addresses:
        return set()
    with ThreadPoolExecutor(len(addresses)) as pool:
        problems = pool.map(lambda address: _connection_problem(address, CONNECT_TIMEOUT_S), addresses)
        return {address for address, problem in zip(addresses, problems, strict=True) if problem}


def _connection_problem(endpoint: str, timeout_s: float) -> str:
    """Why no connection can be made to host:port; empty when it can."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
