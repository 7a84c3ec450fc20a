"""The way to the cluster, for one command."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agentmem.cli.failures import from_client, unreachable, usage_error
from agentmem.client import Client
from agentmem.client.errors import AgentMemError

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
        host, _, port = endpoint.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
            return
        except OSError as error:
            problems.append(f"{endpoint}: {error.strerror or error}")
    raise unreachable(", ".join(endpoints), "; ".join(problems))
