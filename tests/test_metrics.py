"""What nodes say at /metrics: every row of the table, nothing else, and the truth."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from calls import Memory, add
from cluster import Cluster, Node, Stubs, held_back, wait_until
from scraping import metrics_url, scrape

from agentmem.core.measurements import LATENCY_BOUNDS_S, Histogram
from agentmem.core.metrics import METRICS, Metric, metrics_of
from agentmem.core.metrics import Node as Role
from agentmem.core.node_metrics import NodeMetrics
from agentmem.core.process_metrics import LOOP_INTERVAL_S
from agentmem.v1 import reader_pb2, writer_pb2

DURATION = "rpc_server_call_duration_seconds"
SEARCH = "agentmem.v1.ReaderService/SearchMemories"
# Made by the exporter: who is measured.
TARGET = "target_info"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A writer and a replica that seals its vectors early, and calls every call slow."""
    flags = ("--slow-query-ms", "0")
    with Cluster(tmp_path_factory.mktemp("metrics"), replicas=0, writer_flags=flags) as cluster:
        cluster.begin_replica("--seal-rows", "20", *flags).wait_ready()
        yield cluster


def _use_all(cluster: Cluster) -> None:
    """Does something of each kind that is measured."""
    with Stubs(cluster.writer.address) as writer, Stubs(cluster.replicas[0].address) as replica:
        memories = [Memory(content=f"the {number}th memory of the house") for number in range(40)]
        first = add(writer, "use", *memories).revision
        again = add(writer, "use", Memory(content="one more of the garden")).revision
        cluster.wait_searchable(again)
        for mode in (reader_pb2.SEARCH_MODE_HYBRID, reader_pb2.SEARCH_MODE_FUZZY):
            request = reader_pb2.SearchMemoriesRequest(namespace="use", text="house", mode=mode)
            assert replica.reader.SearchMemories(request, timeout=30).hits
        request = reader_pb2.SearchMemoriesRequest(namespace="use", text="house")
        request.as_of.revision = first
        assert replica.reader.SearchMemories(request, timeout=30).hits
        for stubs in (writer, replica):
            with pytest.raises(grpc.RpcError):
                stubs.reader.GetMemories(reader_pb2.GetMemoriesRequest(), timeout=30)
            stats = reader_pb2.GetStatsRequest(namespace="use")
            stubs.reader.GetStats(stats, timeout=30, metadata=(("agentmem-attempt", "hedge"),))
    built = "agentmem_index_build_duration_seconds_count"
    wait_until(lambda: scrape(cluster.replicas[0]).value(built) > 0, "a segment is built")


def _names_of(metric: Metric) -> set[str]:
    name = metric.prometheus_name
    return {f"{name}_{part}" for part in ("bucket", "sum", "count")} if metric.kind == "histogram" else {name}


def test_nodes_export_what_the_table_says_and_nothing_else(cluster: Cluster) -> None:
    _use_all(cluster)
    nodes: tuple[tuple[Node, Role], ...] = ((cluster.writer, "writer"), (cluster.replicas[0], "replica"))
    for node, role in nodes:
        found = scrape(node)
        table = {name: metric for metric in metrics_of(role).values() for name in _names_of(metric)}
        assert set(found.samples) == {*table, TARGET}
        for name, metric in table.items():
            assert found.kinds[metric.prometheus_name] == metric.kind
            bucket = {"le"} if name.endswith("_bucket") else set()
            assert found.labels(name) == {*metric.prometheus_labels, *bucket}, name


def test_the_table_has_each_name_once_and_no_label_without_bound() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.text
        assert metric.unit
        for label in metric.labels:
            assert not {"namespace", "user_id", "agent_id", "session_id", "id", "address"} & {
                *label.split("."),
                label,
            }


def test_a_metric_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="agentmem"):
        NodeMetrics("writer", "w", histograms={}, counters={}, collectors=[])
    histograms = {name: Histogram() for name, m in metrics_of("writer").items() if m.kind == "histogram"}
    strange = NodeMetrics(
        "writer", "w", histograms=histograms, counters={}, collectors=[lambda: {"agentmem.strange": {}}]
    )
    with pytest.raises(ValueError, match=r"agentmem\.strange"):
        strange.values()


def test_each_call_counts_once_with_its_status(cluster: Cluster, namespace: str) -> None:
    node = cluster.replicas[0]
    before = scrape(node)
    with Stubs(node.address) as stubs:
        for _ in range(3):
            stubs.reader.SearchMemories(reader_pb2.SearchMemoriesRequest(namespace=namespace), timeout=30)
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stubs.reader.SearchMemories(reader_pb2.SearchMemoriesRequest(), timeout=30)
        with pytest.raises(grpc.RpcError):
            stubs.reader.SearchMemories(
                reader_pb2.SearchMemoriesRequest(namespace=namespace, text="x", top_k=5000), timeout=30
            )
    after = before

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    def all_have_ended() -> bool:
        """A call is counted when its answer is on its way, which its caller may have by then."""
        nonlocal after
        after = scrape(node)
        return grown(f"{DURATION}_count", rpc_method=SEARCH) >= 6

    wait_until(all_have_ended, "all calls are counted")
    assert grown(f"{DURATION}_count", rpc_method=SEARCH, rpc_response_status_code="OK") == 3
    assert grown(f"{DURATION}_count", rpc_method=SEARCH, rpc_response_status_code="INVALID_ARGUMENT") == 3
    assert grown(f"{DURATION}_bucket", rpc_method=SEARCH, le="+Inf") == 6
    assert grown(f"{DURATION}_sum", rpc_method=SEARCH) > 0
    assert grown("agentmem_call_failures_total") == 3
    wanted = {("rpc_method", SEARCH), ("rpc_response_status_code", "OK")}
    buckets = [labels for labels in after.samples[f"{DURATION}_bucket"] if wanted <= labels]
    assert len(buckets) == len(LATENCY_BOUNDS_S) + 1


def test_calls_that_nobody_waits_for_count_as_such(cluster: Cluster) -> None:
    node, active = cluster.writer, "agentmem_calls_active"
    with held_back(node), Stubs(node.address) as stubs:
        request = writer_pb2.AddMemoriesRequest(namespace="waits", memories=[Memory(content="it waits")])
        call = stubs.writer.AddMemories.future(request)
        wait_until(lambda: scrape(node).value(active, rpc_type="unary") > 0, "the call is there")
        call.cancel()
        late = stubs.writer.AddMemories.future(request, timeout=0.2)
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: scrape(node).value(active, rpc_type="unary") == 0, "the calls are gone")

    def count(status: str) -> float:
        method = "agentmem.v1.WriterService/AddMemories"
        return scrape(node).value(f"{DURATION}_count", rpc_method=method, rpc_response_status_code=status)

    assert count("CANCELLED") == 1
    wait_until(lambda: count("DEADLINE_EXCEEDED") == 1, "the late one is counted")


def test_connections_lag_and_revisions_are_those_of_the_node(cluster: Cluster) -> None:
    node, replica = cluster.writer, cluster.replicas[0]
    before = scrape(node).value("agentmem_connections_active")
    with Stubs(node.address) as first, Stubs(node.address) as second:
        for stubs in (first, second):
            # Channels of one process to one address would share a connection.
            add(stubs, "lag", Memory(content="a connection"))
        assert scrape(node).value("agentmem_connections_active") > before
        cluster.wait_settled()
        with held_back(replica):
            revision = add(first, "lag", Memory(content="held back")).revision
            wait_until(
                lambda: scrape(replica).value("agentmem_replication_lag") >= 1,
                "the replica says that it lags",
            )
            assert scrape(node).value("agentmem_replicas_lag") >= 1
            assert scrape(replica).value("agentmem_revision_applied") < revision
        cluster.wait_searchable(revision)
    wait_until(lambda: scrape(replica).value("agentmem_replication_lag") == 0, "it has caught up")
    assert scrape(replica).value("agentmem_revision_searchable") == revision
    assert scrape(node).value("agentmem_revision_applied") == revision
    assert scrape(node).value("agentmem_replicas", agentmem_state="serving") == 1
    assert scrape(node).value("agentmem_connections_active") <= before + 1


def test_a_writer_that_commits_says_how(cluster: Cluster) -> None:
    before = scrape(cluster.writer)
    with Stubs(cluster.writer.address) as stubs:
        for number in range(5):
            add(stubs, "commits", Memory(content=f"commit {number}"))
    after = scrape(cluster.writer)
    for name in ("commit_duration_seconds", "commit_sync_duration_seconds", "commit_queue_duration_seconds"):
        assert after.value(f"agentmem_{name}_count") >= before.value(f"agentmem_{name}_count") + 5
        assert after.value(f"agentmem_{name}_sum") > before.value(f"agentmem_{name}_sum")
    assert after.value("agentmem_commit_size_sum") >= before.value("agentmem_commit_size_sum") + 5
    # A part of it is the sync.
    assert after.value("agentmem_commit_sync_duration_seconds_sum") < after.value(
        "agentmem_commit_duration_seconds_sum"
    )


def test_the_timer_of_the_event_loop_goes_on(cluster: Cluster) -> None:
    name = "agentmem_event_loop_lag_seconds_count"
    before = scrape(cluster.writer).value(name)
    wait_until(lambda: scrape(cluster.writer).value(name) >= before + 2, f"two ticks of {LOOP_INTERVAL_S} s")


def test_other_paths_are_not_found_and_scrapes_at_once_are_whole(cluster: Cluster) -> None:
    url = metrics_url(cluster.writer)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url.replace("/metrics", "/other"), timeout=30)
    texts: list[str] = []

    def read() -> None:
        with urllib.request.urlopen(url, timeout=30) as response:
            texts.append(response.read().decode())

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    for text in texts:
        assert text.count("# TYPE agentmem_node_epoch gauge") == 1


def test_metrics_can_be_switched_off_and_a_port_in_use_is_named(tmp_path: Path, cluster: Cluster) -> None:
    node = Node("agentmem.server", tmp_path / "off", "--metrics-listen", "")
    try:
        node.wait_ready()
        assert node.announcement["metrics_address"] == ""
    finally:
        node.stop()
    taken = str(cluster.writer.announcement["metrics_address"])
    refused = Node("agentmem.server", tmp_path / "taken", "--metrics-listen", taken)
    assert refused._wait() == 1
    assert any("--metrics-listen" in line and taken in line for line in refused.log)
