"""`agentmem profile`: what it says of stages is what calls took."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from calls import Memory, add
from cluster import Cluster, Stubs
from command_line import Cli, failed

from agentmem.cli.profiles import CALL, report
from agentmem.client import Client, MethodCalls, StageTimes
from agentmem.v1 import reader_pb2

SEARCH = "agentmem.v1.ReaderService/SearchMemories"


def test_a_profile_has_the_stages_of_searches(shared_cluster: Cluster, namespace: str, cli: Cli) -> None:
    node = shared_cluster.replicas[0]
    with Stubs(shared_cluster.writer.address) as writer, Stubs(node.address) as replica:
        shared_cluster.wait_searchable(add(writer, namespace, Memory(content="a garden")).revision)
        for _ in range(5):
            request = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="garden")
            replica.reader.SearchMemories(request, timeout=30)
    document = cli.json("profile", "--target", shared_cluster.writer.address)
    rows = {row["stage"]: row for row in document["stages"] if row["method"] == SEARCH}
    assert {CALL, "queue", "embed", "filter", "rank", "read"} <= set(rows)
    assert rows[CALL]["count"] >= 5
    assert rows[CALL]["share"] == 1
    # Stages of a batch's searches overlap, so nothing is said of their sum.
    for row in rows.values():
        assert row["share"] == pytest.approx(row["total_s"] / rows[CALL]["total_s"], abs=0.01)
    for row in rows.values():
        assert row["total_s"] / row["count"] * 1000 == pytest.approx(row["mean_ms"])
    text = cli("profile", node.address).stdout
    assert "ReaderService/SearchMemories" in text
    assert "embed" in text


def test_between_checkpoints_only_what_came_meanwhile_counts(shared_cluster: Cluster, cli: Cli) -> None:
    address = shared_cluster.replicas[0].address
    done = cli("profile", address, "--seconds", "0.1", "--checkpoints", "2", "--json")
    assert len(done.stdout.splitlines()) == 2
    calls = MethodCalls("m", False, {"OK": 10}, (7, 3, 0), 5.0, {"read": StageTimes((10, 0, 0), 4.0)})
    earlier = MethodCalls("m", False, {"OK": 8}, (7, 1, 0), 3.0, {"read": StageTimes((8, 0, 0), 2.5)})
    with Client(address) as client:
        node = client.node_report(address)
    after = replace(node, latency_bounds_s=(1.0, 2.0), methods={"m": calls})
    before = replace(after, uptime_s=node.uptime_s / 2, methods={"m": earlier})
    call, read = report([(before, after)])
    assert (call.stage, call.count, call.total_s, call.share) == (CALL, 2, 2.0, 1.0)
    assert (read.stage, read.count, read.total_s, read.share) == ("read", 2, 1.5, 0.75)
    assert (call.p95_ms, read.p95_ms) == pytest.approx((1950, 950))
    # It was started again; and another node has buckets of its own.
    restarted = replace(before, start_time=node.start_time - timedelta(seconds=1))
    other = replace(after, latency_bounds_s=(0.5, 2.0))
    call, read = report([(restarted, after), (None, other)])
    assert (call.count, call.total_s, read.total_s) == (20, 10.0, 8.0)
    assert call.p95_ms == pytest.approx(1000 + 1000 * (19 - 14) / 6)


def test_a_node_that_cannot_be_asked_is_named(cli: Cli) -> None:
    failed(cli("profile", "127.0.0.1:1"), 4, "127.0.0.1:1")
    failed(cli("profile", "--target", "127.0.0.1:1"), 4, "127.0.0.1:1")
    failed(cli("profile", "127.0.0.1:1", "--checkpoints", "3"), 2, "--seconds")
