"""Logs: one line a record, correlated with traces, and never with what a memory says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import Memory, add, update
from cluster import Cluster, Node, Stubs, wait_until

from agentmem.core.slow_calls import MAX_RECORDS_PER_S, filter_shape, request_shape
from agentmem.core.trace_context import TraceContext, parse_traceparent
from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

# In whatever a caller sends that is no namespace.
MARKER = "xyzzyplugh"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-00"),)
NAMESPACE = "logged"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A writer that logs text, a replica that logs JSON, both every call."""
    slow = ("--slow-query-ms", "0")
    with Cluster(tmp_path_factory.mktemp("logs"), replicas=0, writer_flags=slow) as cluster:
        cluster.begin_replica("--log-format", "json", *slow).wait_ready()
        yield cluster


def _condition(field: str, operator: filter_pb2.Operator, *values: str) -> filter_pb2.Filter:
    each = [filter_pb2.FilterValue(string_value=value) for value in values]
    return filter_pb2.Filter(condition=filter_pb2.Condition(field=field, operator=operator, values=each))


def _all_of(*filters: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=filters))


def _records(node: Node, message: str) -> list[dict[str, Any]]:
    """The JSON records of a message so far."""
    return [record for line in list(node.log) if (record := json.loads(line))["message"] == message]


def _marked_memory() -> Memory:
    memory = Memory(
        id=f"id-{MARKER}",
        content=f"the content says {MARKER}",
        user_id=f"user-{MARKER}",
        agent_id=f"agent-{MARKER}",
        session_id=f"session-{MARKER}",
        tags=[f"tag-{MARKER}"],
    )
    memory.metadata[f"key-{MARKER}"].string_value = f"value-{MARKER}"
    return memory


def _marked_search() -> reader_pb2.SearchMemoriesRequest:
    request = reader_pb2.SearchMemoriesRequest(namespace=NAMESPACE, text=f"who says {MARKER}?", top_k=7)
    request.filter.CopyFrom(
        _all_of(
            _condition("user_id", filter_pb2.OPERATOR_IN, f"user-{MARKER}", "another"),
            _condition(f"metadata.key-{MARKER}", filter_pb2.OPERATOR_EQ, f"value-{MARKER}"),
            filter_pb2.Filter(negated=_condition("tags", filter_pb2.OPERATOR_EQ, f"not-{MARKER}")),
        )
    )
    return request


def test_no_log_has_what_memories_and_requests_say(cluster: Cluster) -> None:
    """Of good and of bad requests, on both nodes, with every call in the slow-query log."""
    replica_node = cluster.replicas[0]
    with Stubs(cluster.writer.address) as writer, Stubs(replica_node.address) as replica:
        revision = add(writer, NAMESPACE, _marked_memory()).revision
        update(writer, NAMESPACE, Memory(id=f"id-{MARKER}", content=f"and now {MARKER}"), "content")
        cluster.wait_searchable(revision)
        assert replica.reader.SearchMemories(_marked_search(), timeout=30).hits
        batch = reader_pb2.BatchSearchMemoriesRequest(requests=[_marked_search()] * 3)
        replica.reader.BatchSearchMemories(batch, timeout=30)
        strange_filter = _condition(f"field-{MARKER}", filter_pb2.OPERATOR_EQ, MARKER)
        too_long = Memory(content=MARKER * 100_000)
        failing = (
            lambda: add(writer, NAMESPACE, Memory(id=f"bad\n{MARKER}", content=MARKER)),
            lambda: add(writer, NAMESPACE, _marked_memory()),
            lambda: add(writer, NAMESPACE, too_long),
            lambda: update(writer, NAMESPACE, Memory(id=f"no-{MARKER}", content=MARKER), "content"),
            lambda: update(writer, NAMESPACE, _marked_memory(), f"path-{MARKER}"),
            lambda: replica.reader.SearchMemories(
                reader_pb2.SearchMemoriesRequest(namespace=NAMESPACE, text=MARKER, filter=strange_filter)
            ),
            lambda: replica.reader.SearchMemories(
                reader_pb2.SearchMemoriesRequest(namespace=NAMESPACE, text=MARKER, embedding=MARKER.encode())
            ),
            lambda: replica.writer.AddMemories(
                writer_pb2.AddMemoriesRequest(namespace=NAMESPACE, memories=[_marked_memory()])
            ),
        )
        for call in failing:
            with pytest.raises(grpc.RpcError):
                call()
        raw: Any = replica.channel.unary_unary("/agentmem.v1.ReaderService/SearchMemories")
        with pytest.raises(grpc.RpcError):
            raw(MARKER.encode() * 3, timeout=30)
        # What was sent last is in the logs, so all before it is.
        _logged_search(cluster, "and-last")
    for node in cluster.nodes:
        lines = list(node.log)
        assert any("slow call" in line for line in lines)
        assert [line for line in lines if MARKER in line] == []


def _logged_search(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The record of a search in a namespace, with a trace. More may be made than are logged in a second."""
    node = cluster.replicas[0]
    found: list[dict[str, Any]] = []

    def is_logged() -> bool:
        request = _marked_search()
        request.namespace = namespace
        with Stubs(node.address) as stubs:
            stubs.reader.SearchMemories(request, timeout=30, metadata=TRACEPARENT)
        found[:] = [
            record
            for record in _records(node, "slow call")
            if record["method"].endswith("/SearchMemories")
            and record.get("request", {}).get("namespace") == namespace
        ]
        return bool(found)

    wait_until(is_logged, "a search is in the log")
    return found[-1]


def test_the_slow_query_log_has_shape_plan_stages_and_trace(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as writer:
        cluster.wait_searchable(add(writer, "shapes", _marked_memory()).revision)
    record = _logged_search(cluster, "shapes")
    assert record["method"] == "agentmem.v1.ReaderService/SearchMemories"
    assert (record["level"], record["status"]) == ("WARNING", "OK")
    assert record["trace_id"] == TRACE_ID
    assert record["request"] == {
        "namespace": "shapes",
        "text_characters": len(_marked_search().text),
        "top_k": 7,
        "filter": "(user_id IN[2] AND metadata.* EQ AND NOT (tags EQ))",
    }
    (search,) = record["searches"]
    assert (search["mode"], search["live"], search["matching"]) == ("hybrid", 1, 1)
    steps = {step["name"]: step for step in search["steps"]}
    assert steps["filter"]["plan"] == "the filter's memories"
    assert steps["filter"]["memories"] == 1
    assert {*steps, "queue", "embed"} == set(record["stages_ms"])
    assert 0 < sum(record["stages_ms"].values()) <= record["milliseconds"]


def test_a_slow_write_says_where_it_waited(cluster: Cluster) -> None:
    stages = ("queue", "commit", "sync", "embed")

    def is_logged() -> bool:
        with Stubs(cluster.writer.address) as writer:
            add(writer, "waits", Memory(content="somewhere"))
        lines = [line for line in list(cluster.writer.log) if "AddMemories" in line and "waits" in line]
        return any(all(f'"{stage}": ' in line for stage in stages) for line in lines)

    wait_until(is_logged, "a write is in the log with its stages")


def test_fast_calls_are_not_logged_and_slow_ones_are_bounded(
    cluster: Cluster, shared_cluster: Cluster, namespace: str
) -> None:
    with Stubs(shared_cluster.writer.address) as stubs:
        for _ in range(5):
            stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace=namespace), timeout=30)
    assert not any("slow call" in line and namespace in line for line in list(shared_cluster.writer.log))
    node = cluster.replicas[0]
    with Stubs(node.address) as stubs:
        for _ in range(10 * MAX_RECORDS_PER_S):
            stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace=namespace), timeout=30)
    _logged_search(cluster, "left-out")
    wait_until(
        lambda: any("left_out" in record for record in _records(node, "slow call")),
        "a record says how many were left out",
    )
    moments = [record["time"].partition(".")[0] for record in _records(node, "slow call")]
    # The log's seconds begin elsewhere than the clock's.
    assert max(moments.count(moment) for moment in moments) <= 2 * MAX_RECORDS_PER_S


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_errors_that_nobody_expected_have_a_place_and_no_message(log_format: str) -> None:
    """Of a handler, a task, a thread and the process: each a line, with types and frames alone."""
    code = f"""
import asyncio, gc, logging, threading, warnings
from agentmem.core import logs
from agentmem.core.errors import DataLoss, answerable

logs.configure({log_format!r}, lambda: ("{TRACE_ID}", "b7ad6b7169203331"))

def raising(text):
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ValueError("two\\nlines " + text) from error

try:
    raising("{MARKER}")
except ValueError as error:
    assert "{MARKER}" not in answerable(error, "Method").message

async def task():
    raising("{MARKER}")

async def main():
    asyncio.get_running_loop().set_exception_handler(logs.log_loop_error)
    each = asyncio.create_task(task())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del each
    gc.collect()

asyncio.run(main())
thread = threading.Thread(target=raising, args=("{MARKER}",), name="failing")
thread.start()
thread.join()
logging.getLogger("agentmem.x").warning("a\\nb", exc_info=DataLoss("CORRUPT_RECORD", "ordinal 5 is damaged"))
logging.getLogger("agentmem.x").error("no", exc_info=OSError(28, "No space left on device"))
raising("{MARKER}")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert len(lines) == 6, ended.stderr
    assert MARKER not in ended.stderr
    for line in lines:
        assert TRACE_ID in line
        assert "b7ad6b7169203331" in line
    for line in (*lines[:3], lines[5]):
        assert "ValueError" in line
        assert "raising" in line
        assert "caused by KeyError" in line
    assert "ordinal 5 is damaged" in lines[3]
    assert "No space left" in lines[4]
    if log_format == "json":
        records = [json.loads(line) for line in lines]
        assert records[3]["message"] == "a\nb"
        assert records[3]["level"] == "WARNING"
        assert records[0]["error"] == "ValueError"


def test_shapes_have_sizes_in_place_of_values() -> None:
    request = writer_pb2.AddMemoriesRequest(
        namespace="n",
        memories=[_marked_memory()] * 3,
        request_id=MARKER,
        on_duplicate=writer_pb2.DUPLICATE_POLICY_SKIP,
    )
    shape = request_shape(request)
    assert shape["memories"] == 3
    assert shape["request_id_characters"] == len(MARKER)
    assert shape["on_duplicate"] == "DUPLICATE_POLICY_SKIP"
    assert MARKER not in json.dumps(shape)
    one = writer_pb2.UpdateMemoryRequest(namespace="n", memory=memory_pb2.Memory(content=MARKER))
    assert request_shape(one) == {"namespace": "n", "memory_bytes": one.memory.ByteSize()}
    many = _all_of(*[_condition("id", filter_pb2.OPERATOR_EQ, MARKER)] * 300)
    assert filter_shape(many).count("id EQ") == 32
    strange = filter_pb2.Filter(condition=filter_pb2.Condition(field=MARKER, operator=99))  # type: ignore[arg-type]
    assert filter_shape(strange) == "? ?"


@pytest.mark.parametrize(
    "header",
    [
        *("", "00", f"00-{TRACE_ID}-b7ad6b7169203331", f"ff-{TRACE_ID}-b7ad6b7169203331-01"),
        *(f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE_ID}-{'0' * 16}-01"),
        *(f"00-{TRACE_ID}-b7ad6b7169203331-01-more", f"00-{TRACE_ID.upper()}-b7ad6b7169203331-01"),
        f"00-{TRACE_ID}-b7ad6b7169203331-01\n",
    ],
)
def test_a_trace_header_that_is_none_is_passed_over(header: str) -> None:
    assert parse_traceparent(header) is None


def test_a_trace_header_is_read_as_it_is_written() -> None:
    for is_sampled in (True, False):
        context = TraceContext(TRACE_ID, "b7ad6b7169203331", is_sampled)
        assert parse_traceparent(context.traceparent) == context
    later = parse_traceparent(f"01-{TRACE_ID}-b7ad6b7169203331-03-more")
    assert later is not None
    assert later.is_sampled


def test_every_line_of_a_json_log_is_an_object(cluster: Cluster, tmp_path: Path) -> None:
    lines = list(cluster.replicas[0].log)
    assert lines
    for line in lines:
        record = json.loads(line)
        assert {"time", "level", "logger", "message"} <= set(record)
    refused = Node("agentmem.server", tmp_path / "x", "--log-format", "xml")
    assert refused._wait() == 2
    assert any("--log-format" in line for line in refused.log)
