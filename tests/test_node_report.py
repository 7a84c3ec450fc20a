"""What nodes say of themselves: counts of calls, memory, connections; and what two reports give."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cluster import Cluster, Node, Stubs, wait_until

from agentmem.client import Client, MethodCalls, NodeReport, Unavailable
from agentmem.client.node_report import calls_between, quantile_s
from agentmem.core.process_metrics import LOOP_INTERVAL_S, EventLoopWatch
from agentmem.v1 import reader_pb2

GET = "agentmem.v1.ReaderService/GetMemories"
WATCH = "agentmem.v1.ReaderService/WatchMemories"


def report_of(client: Client, node: Node) -> NodeReport:
    return client.node_report(node.address)


def between(before: NodeReport, after: NodeReport) -> dict[str, MethodCalls]:
    calls = calls_between(before, after)
    assert calls is not None
    return calls


def test_calls_are_counted_by_method_and_status(
    shared_cluster: Cluster, client: Client, namespace: str
) -> None:
    for node in shared_cluster.nodes:
        with Stubs(node.address) as stubs:
            before = report_of(client, node)
            for _ in range(7):
                request = reader_pb2.GetMemoriesRequest(namespace=namespace, ids=["m"])
                stubs.reader.GetMemories(request, timeout=10)
            with pytest.raises(grpc.RpcError):
                stubs.reader.GetMemories(reader_pb2.GetMemoriesRequest(namespace=namespace), timeout=10)
            calls = between(before, report_of(client, node))[GET]
        assert calls.codes == {"OK": 7, "INVALID_ARGUMENT": 1}
        assert sum(calls.latency_counts) == 8
        assert not calls.is_stream
        # All of them took what the buckets say.
        lowest_s = sum(
            count * bound
            for count, bound in zip(calls.latency_counts, [0.0, *before.latency_bounds_s], strict=True)
        )
        assert lowest_s <= calls.total_s + 8e-6


def test_a_stream_is_open_until_it_ends(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    replica = shared_cluster.replicas[0]
    shared_cluster.wait_searchable(client.add(namespace, "a change to see").revision)
    before = report_of(client, replica)
    with Stubs(replica.address) as stubs:
        request = reader_pb2.WatchMemoriesRequest(namespace=namespace)
        request.after.SetInParent()
        stream = stubs.reader.WatchMemories(request, timeout=60)
        next(stream)
        opened = report_of(client, replica)
        assert opened.open_calls >= 2  # this one, and the one that asks
        assert WATCH not in between(before, opened)
        stream.cancel()
        wait_until(lambda: WATCH in between(before, report_of(client, replica)), "the stream is counted")
    calls = between(before, report_of(client, replica))[WATCH]
    assert (dict(calls.codes), calls.is_stream) == ({"CANCELLED": 1}, True)


def known_to_kernel(node: Node) -> int:
    """Connections to the node in the list of all TCP connections."""
    port = int(node.address.rpartition(":")[2])
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    return sum(row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def test_connections_are_those_to_the_node(shared_cluster: Cluster, client: Client) -> None:
    first, second = shared_cluster.replicas
    # The replica's own connection, to the writer, is none to it.
    wait_until(lambda: report_of(client, first).connections == known_to_kernel(first), "they are the same")
    before = {node.address: report_of(client, node).connections for node in (first, second)}
    assert all(count is not None for count in before.values())
    channels = [
        grpc.insecure_channel(first.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(3)
    ]
    for channel in channels:
        grpc.channel_ready_future(channel).result(timeout=10)
    assert report_of(client, first).connections == (before[first.address] or 0) + 3
    assert report_of(client, second).connections == before[second.address]
    for channel in channels:
        channel.close()
    wait_until(lambda: report_of(client, first).connections == before[first.address], "they are gone")


def test_memory_and_time_are_those_of_the_process(shared_cluster: Cluster, client: Client) -> None:
    replica = shared_cluster.replicas[0]
    process = Path(f"/proc/{replica.process.pid}")

    def cpu_s() -> float:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    earlier_s = cpu_s()
    report = report_of(client, replica)
    later_s = cpu_s()
    assert earlier_s - 0.02 <= report.cpu_s <= later_s + 0.02
    resident = next(
        int(line.split()[1]) * 1024
        for line in (process / "status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )
    assert report.memory_bytes == pytest.approx(resident, rel=0.2)
    assert 0 < (report.anonymous_memory_bytes or 0) < (report.memory_bytes or 0)


def test_who_holds_up_the_event_loop_is_noticed() -> None:
    async def later_than_an_interval() -> int:
        ticked = asyncio.Event()
        watch = EventLoopWatch(ticked.set)
        watching = asyncio.create_task(watch.run())

        def late() -> int:
            (lag,) = watch.lag.distributions().values()
            return sum(lag.counts[bisect_left(watch.lag.bounds, LOOP_INTERVAL_S) + 1 :])

        await ticked.wait()
        before = late()
        ticked.clear()
        asyncio.get_running_loop().call_soon(time.sleep, 3 * LOOP_INTERVAL_S)
        await ticked.wait()
        watching.cancel()
        return late() - before

    assert asyncio.run(later_than_an_interval()) >= 1


def test_the_event_loop_is_watched(shared_cluster: Cluster, client: Client) -> None:
    for node in (shared_cluster.writer, shared_cluster.replicas[0]):
        before = report_of(client, node)
        assert len(before.event_loop_lag_counts) == len(before.latency_bounds_s) + 1
        wait_until(
            lambda node=node, before=before: (  # type: ignore[misc]
                sum(report_of(client, node).event_loop_lag_counts) > sum(before.event_loop_lag_counts)
            ),
            "a timer of the event loop",
        )


def test_sizes_are_those_of_the_files(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    added = client.add(namespace, "a memory for the indexes")
    shared_cluster.wait_searchable(added.revision)
    writer = report_of(client, shared_cluster.writer)
    assert writer.index_bytes is None
    assert writer.store_file_bytes == (shared_cluster.writer.data_dir / "store/data.mdb").stat().st_size
    assert 0 < writer.store_used_bytes <= writer.store_max_bytes
    replica = shared_cluster.replicas[0]

    def is_same() -> bool:
        indexes = replica.data_dir / "indexes"
        files = [
            path for name in ("text", "segments") for path in (indexes / name).rglob("*") if path.is_file()
        ]
        return report_of(client, replica).index_bytes == sum(path.stat().st_size for path in files)

    wait_until(is_same, "the index has the size that is reported")
    assert report_of(client, replica).index_bytes


def test_searches_of_the_past_are_lookups(client: Client, namespace: str, shared_cluster: Cluster) -> None:
    revision = client.add(namespace, "green tea").revision
    shared_cluster.wait_searchable(client.add(namespace, "black tea").revision)
    (replica, _) = shared_cluster.replicas
    before = report_of(client, replica).caches["past"]
    with Stubs(replica.address) as stubs:
        for _ in range(3):
            request = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea", top_k=3)
            request.as_of.revision = revision
            assert len(stubs.reader.SearchMemories(request, timeout=30).hits) == 1
    after = report_of(client, replica).caches["past"]
    # The first one looks again when its index is built.
    assert (after.hits - before.hits, after.misses - before.misses) == (3, 1)


def test_a_node_that_is_not_there(client: Client) -> None:
    with pytest.raises(Unavailable):
        client.node_report("127.0.0.1:1", timeout_s=5)


def test_quantiles_are_in_the_bucket_of_the_true_one() -> None:
    bounds = [0.001, 0.002, 0.005, 0.01, 0.1, 1.0]
    draw = random.Random(7)
    for _ in range(200):
        values = sorted(draw.lognormvariate(-5, 1.5) for _ in range(draw.randint(1, 300)))
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[sum(bound < value for bound in bounds)] += 1
        half = [count // 2 for count in counts]
        calls = [
            MethodCalls("a", False, {}, half, 0.0, {}),
            MethodCalls(
                "b", False, {}, [all - some for all, some in zip(counts, half, strict=True)], 0.0, {}
            ),
        ]
        for share in (0.5, 0.95, 0.99, 1.0):
            rank = max(1, -(-share * len(values) // 1))
            true = values[int(rank) - 1]
            found = quantile_s(bounds, calls, share)
            assert found is not None
            bucket = sum(bound < true for bound in bounds)
            if bucket == len(bounds):
                assert found == bounds[-1]
            else:
                assert (0.0, *bounds)[bucket] <= found <= bounds[bucket]
    assert quantile_s(bounds, [], 0.95) is None
    # Spread evenly between 2 and 5 ms.
    even = MethodCalls("a", False, {}, [0, 0, 30, 0, 0, 0, 0], 0.0, {})
    assert quantile_s(bounds, [even], 0.5) == pytest.approx(0.0035)
    assert quantile_s(bounds, [MethodCalls("a", False, {}, [0] * 7, 0.0, {})], 0.95) is None


def test_a_node_that_began_again_has_no_rates(client: Client, shared_cluster: Cluster) -> None:
    before = report_of(client, shared_cluster.writer)
    after = report_of(client, shared_cluster.writer)
    assert calls_between(before, after) is not None
    began_again = replace(after, start_time=after.start_time + timedelta(seconds=1))
    assert calls_between(before, began_again) is None
    assert calls_between(after, before) is None
