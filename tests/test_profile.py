"""`agentmem profile`: what it says of stages is what calls took."""

from __future__ import annotations

import math

import pytest
from calls import Memory, add
from cluster import Cluster, Stubs
from command_line import Cli, failed

from agentmem.cli.profiles import CALL, Timings, quantile, report
from agentmem.v1 import reader_pb2

SEARCH = "agentmem.v1.ReaderService/SearchMemories"


def _address(cluster: Cluster) -> str:
    return str(cluster.replicas[0].announcement["metrics_address"])


def test_a_profile_has_the_stages_of_searches(shared_cluster: Cluster, namespace: str, cli: Cli) -> None:
    node = shared_cluster.replicas[0]
    with Stubs(shared_cluster.writer.address) as writer, Stubs(node.address) as replica:
        shared_cluster.wait_searchable(add(writer, namespace, Memory(content="a garden")).revision)
        for _ in range(5):
            request = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="garden")
            replica.reader.SearchMemories(request, timeout=30)
    document = cli.json("profile", _address(shared_cluster))
    rows = {row["stage"]: row for row in document["stages"] if row["method"] == SEARCH}
    assert {CALL, "queue", "embed", "filter", "rank", "read"} <= set(rows)
    assert rows[CALL]["count"] >= 5
    assert rows[CALL]["share"] == 1
    # Stages of a batch's searches overlap, so nothing is said of their sum.
    for row in rows.values():
        assert row["share"] == pytest.approx(row["total_s"] / rows[CALL]["total_s"], abs=0.01)
    for row in rows.values():
        assert row["total_s"] / row["count"] * 1000 == pytest.approx(row["mean_ms"])
    text = cli("profile", _address(shared_cluster)).stdout
    assert "ReaderService/SearchMemories" in text
    assert "embed" in text


def test_between_checkpoints_only_what_came_meanwhile_counts(shared_cluster: Cluster, cli: Cli) -> None:
    done = cli("profile", _address(shared_cluster), "--seconds", "0.1", "--checkpoints", "2", "--json")
    assert len(done.stdout.splitlines()) == 2
    buckets = {1.0: 10.0, math.inf: 10.0}
    before = {("m", CALL): Timings(3.0, {1.0: 8.0, math.inf: 8.0}), ("n", CALL): Timings(9.0, buckets)}
    after = {("m", CALL): Timings(5.0, buckets), ("n", CALL): Timings(1.0, {1.0: 2.0, math.inf: 2.0})}
    first, second = report(after, before)
    assert (first.method, first.count, first.total_s) == ("m", 2, 2.0)
    # It was started again.
    assert (second.method, second.count, second.total_s) == ("n", 2, 1.0)


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = {0.1: 50.0, 0.2: 90.0, 0.4: 100.0, math.inf: 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.7) == pytest.approx(0.15)
    assert quantile(buckets, 0.95) == pytest.approx(0.3)
    assert quantile({0.1: 0.0, math.inf: 10.0}, 0.95) == pytest.approx(0.1)


def test_a_node_that_cannot_be_asked_is_named(cli: Cli) -> None:
    failed(cli("profile", "127.0.0.1:1"), 4, "127.0.0.1:1", "cannot be read")
    failed(cli("profile", "127.0.0.1:1", "--checkpoints", "3"), 2, "--seconds")
    failed(cli("profile", "--data-dir", "/nonexistent"), 1, "no node with metrics")
