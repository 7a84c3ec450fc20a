"""Writes of the client that wait for replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cluster import Cluster

from agentmem.client import (
    LOCAL,
    STRONG,
    Acknowledged,
    AcknowledgementLevel,
    Client,
    InvalidArgument,
    applied,
    at_least,
    replicated,
)

WRITES: dict[str, Callable[[Client, str, Any], Any]] = {
    "add": lambda client, ns, level: client.add(ns, "green tea", acknowledgement=level),
    "add_many": lambda client, ns, level: client.add_many(ns, ["green", "black"], acknowledgement=level),
    "update": lambda client, ns, level: client.update(ns, "a", content="white", acknowledgement=level),
    "delete": lambda client, ns, level: client.delete(ns, "a", acknowledgement=level),
    "purge": lambda client, ns, level: client.delete(ns, "a", purge=True, acknowledgement=level),
    "delete_matching": lambda client, ns, level: client.delete_matching(
        ns, everything=True, acknowledgement=level
    ),
    "update_namespace": lambda client, ns, level: client.update_namespace(
        ns, max_versions=3, acknowledgement=level
    ),
    "import_versions": lambda client, ns, level: client.import_versions(
        f"{ns}-copy", client.export(ns), acknowledgement=level
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_each_write_says_how_far_it_is(client: Client, namespace: str, name: str) -> None:
    client.add(namespace, "tea", id="a", acknowledgement=replicated(2))
    written = WRITES[name](client, namespace, applied(2, timeout=30))
    assert written.acknowledged == Acknowledged(True, replicated=2, applied=2)
    assert written.epoch == 1
    # What the searches of all replicas show, any of them finds.
    shown = client.search(namespace, "tea", mode="text").applied_revision
    assert shown >= written.revision


def test_what_was_not_reached_in_time_is_done_all_the_same(client: Client, namespace: str) -> None:
    """There are two replicas."""
    added = client.add(namespace, "tea", id="a", acknowledgement=replicated(3, timeout=0.2))
    assert added.acknowledged is not None
    assert (added.acknowledged.reached, added.acknowledged.replicated) == (False, 2)
    assert client.get(namespace, "a", consistency=at_least(added)) is not None
    # No longer than the call has time; without an answer it would not be known whether it was done.
    brief = client.add(namespace, "tea", acknowledgement=applied(3, timeout=60), timeout_s=2)
    assert brief.acknowledged is not None
    assert not brief.acknowledged.reached


def test_a_client_may_have_a_level_of_its_own(shared_cluster: Cluster, namespace: str) -> None:
    with Client(shared_cluster.writer.address, acknowledgement=replicated(2)) as client:
        assert client.add(namespace, "tea").acknowledged is not None
        assert client.session().add(namespace, "tea").acknowledged is not None
        for local in (LOCAL, "local", AcknowledgementLevel.LOCAL):
            assert client.add(namespace, "tea", acknowledgement=local).acknowledged is None
        by_name = client.add(namespace, "tea", acknowledgement="applied").acknowledged
        assert by_name is not None
        assert by_name.applied >= 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: replicated(0),
        lambda: applied(True),
        lambda: replicated(2, timeout=0),
        lambda: applied(2, timeout="5s"),  # type: ignore[arg-type]
        lambda: Client("localhost:1", acknowledgement="everywhere"),
        lambda: Client("localhost:1", acknowledgement=2),  # type: ignore[arg-type]
    ],
)
def test_a_bad_acknowledgement_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.metadata["field"] == "acknowledgement"


@pytest.mark.parametrize("level", [replicated(101), replicated(1, timeout=61)])
def test_the_writer_bounds_what_is_waited_for(client: Client, namespace: str, level: Any) -> None:
    with pytest.raises(InvalidArgument, match="acknowledgement"):
        client.add(namespace, "tea", acknowledgement=level)
    assert client.stats(namespace, consistency=STRONG).namespace.memories == 0
