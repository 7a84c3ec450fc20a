"""Fixtures that several test files share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from cluster import Cluster, Stubs
from command_line import Cli
from hypothesis import Phase, settings

from agentmem.client import Client

# Of what is drawn: by default the same each time, and without a deadline, as no test passes or fails on
# absolute speed. "long" draws anew, for as long as one likes; see test_model.py.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2000,
    stateful_step_count=100,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A writer and two replicas that no test may harm; each test has a namespace of its own."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def client(shared_cluster: Cluster) -> Iterator[Client]:
    with Client(shared_cluster.writer.address, timeout_s=30.0) as client:
        yield client


@pytest.fixture(scope="session")
def writer(shared_cluster: Cluster) -> Iterator[Stubs]:
    stubs = Stubs(shared_cluster.writer.address)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="session")
def replica(shared_cluster: Cluster) -> Iterator[Stubs]:
    stubs = Stubs(shared_cluster.replicas[0].address)
    yield stubs
    stubs.channel.close()


@pytest.fixture
def namespace() -> str:
    """A namespace that nobody else uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cli(shared_cluster: Cluster, namespace: str) -> Cli:
    """The command, with a namespace for each test."""
    return Cli(shared_cluster.writer.address, namespace)
