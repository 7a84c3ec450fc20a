"""Traces go from the client through the writer to the replicas, over real OTLP, without what memories say."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from calls import Memory, add
from cluster import Cluster, Stubs, wait_until
from otlp_collector import Collector, Span

from agentmem.v1 import cluster_pb2, reader_pb2

MARKER = "xyzzyplugh"
WRITER, REPLICA, CLIENT = "agentmem-writer", "agentmem-replica", "the-application"


@dataclass
class Traced:
    cluster: Cluster
    collector: Collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Nodes that record what their callers record, and no other call."""
    with Collector() as collector:
        flags = ("--otlp-endpoint", collector.address, "--trace-sample-ratio", "0")
        path = tmp_path_factory.mktemp("traced")
        with Cluster(path, replicas=0, writer_flags=flags) as cluster:
            cluster.begin_replica(*flags).wait_ready()
            yield Traced(cluster, collector)


_APPLICATION = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from agentmem.client import Client
from agentmem.client.errors import AgentMemError

provider = TracerProvider(resource=Resource.create({"service.name": "the-application"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[2], insecure=True)))
trace.set_tracer_provider(provider)
with Client(sys.argv[1], timeout_s=30.0) as client:
    with trace.get_tracer("t").start_as_current_span("root") as root:
        print(f"{root.get_span_context().trace_id:032x}")
        client.add("traced", "the content says xyzzyplugh", id="id-xyzzyplugh", acknowledgement="applied")
        client.search("traced", "xyzzyplugh")
        assert list(client.export("traced"))
        try:
            client.update("traced", "no-xyzzyplugh", content="xyzzyplugh")
        except AgentMemError:
            pass
provider.shutdown()
"""


def test_a_trace_goes_from_the_client_through_the_writer_to_the_replica(traced: Traced) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _APPLICATION, traced.cluster.writer.address, traced.collector.address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    trace_id = run.stdout.strip()

    def spans() -> list[Span]:
        return [span for span in list(traced.collector.spans) if span.trace_id == trace_id]

    def named(service: str, end: str) -> list[Span]:
        return [span for span in spans() if span.service == service and span.name.endswith(end)]

    wanted = [(WRITER, "/AddMemories"), (WRITER, "/UpdateMemory"), (WRITER, "ship")]
    wanted += [(REPLICA, "apply"), (REPLICA, "/SearchMemories"), (REPLICA, "/ExportMemories")]
    for service, end in wanted:
        wait_until(lambda s=service, e=end: bool(named(s, e)), f"{service} sends {end}")  # type: ignore[misc]
    by_id = {span.span_id: span for span in spans()}

    def path(span: Span) -> list[str]:
        """The names from a span up to the root."""
        return [span.name, *(path(by_id[span.parent_id]) if span.parent_id else [])]

    (added,) = named(WRITER, "/AddMemories")
    (applied,) = named(REPLICA, "apply")
    (searched,) = named(REPLICA, "/SearchMemories")
    assert path(applied)[:3] == ["apply", "agentmem.v1.WriterService/AddMemories", "attempt"]
    assert path(applied)[-1] == "root"
    assert path(searched)[-1] == "root"
    (exported,) = named(REPLICA, "/ExportMemories")
    assert path(exported) == [exported.name, "attempt", "ExportMemories", "root"]
    assert path(named(WRITER, "ship")[0])[1] == "agentmem.v1.WriterService/AddMemories"
    for parent, names in ((added, ("embed", "queue", "commit", "sync", "replicas")), (searched, ("filter",))):
        children = {span.name: span for span in spans() if span.parent_id == parent.span_id}
        assert set(names) <= set(children)
        for name in names:
            assert parent.begin_ns <= children[name].begin_ns <= children[name].end_ns <= parent.end_ns
    (failed,) = named(WRITER, "/UpdateMemory")
    assert failed.attributes["error.type"] == "MEMORY_NOT_FOUND"
    assert MARKER not in repr(traced.collector.spans)


def test_calls_that_nobody_records_are_not_recorded(traced: Traced) -> None:
    before = len(traced.collector.spans)
    unsampled = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),)
    sampled = (("traceparent", f"00-{'c' * 32}-{'d' * 16}-01"),)
    with Stubs(traced.cluster.writer.address) as stubs:
        for metadata in ((), unsampled, sampled):
            for _ in range(10):
                request = reader_pb2.GetStatsRequest(namespace="traced")
                stubs.reader.GetStats(request, timeout=30, metadata=metadata)
    wait_until(
        lambda: sum(span.trace_id == "c" * 32 for span in list(traced.collector.spans)) == 10,
        "what the caller records comes",
    )
    assert len(traced.collector.spans) == before + 10


def test_a_share_of_the_calls_without_a_trace_begins_one(traced: Traced) -> None:
    replica = traced.cluster.begin_replica("--otlp-endpoint", traced.collector.address)
    replica.wait_ready().terminate()
    replica.restart("--trace-sample-ratio", "1")
    with Stubs(replica.address) as stubs:
        stubs.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace="traced"), timeout=30)

    def found() -> list[Span]:
        return [span for span in list(traced.collector.spans) if span.name.endswith("/ListMemories")]

    wait_until(lambda: bool(found()), "the call is recorded")
    assert found()[0].parent_id == ""
    assert found()[0].trace_id.strip("0")
    # What is left is sent at the end, metrics too.
    assert replica.terminate() == 0
    assert (REPLICA, "rpc.server.call.duration") in traced.collector.metric_names
    assert (REPLICA, "agentmem.revision.applied") in traced.collector.metric_names


def test_a_collector_that_is_away_holds_nothing_up(traced: Traced) -> None:
    """Of what it cannot be sent nothing is kept beyond a bound, and the node ends in order."""
    taken = Collector()
    node = traced.cluster.begin_replica(
        *("--otlp-endpoint", taken.address, "--trace-sample-ratio", "1", "--drain-s", "1")
    )
    node.wait_ready()
    with Stubs(traced.cluster.writer.address) as writer:
        traced.cluster.wait_searchable(add(writer, "away", Memory(content="it goes on")).revision)
    assert node.terminate() == 0


def test_a_collector_that_is_silent_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        flags = ("--otlp-endpoint", f"127.0.0.1:{silent.getsockname()[1]}", "--trace-sample-ratio", "1")
        with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster:
            with Stubs(cluster.writer.address) as stubs:
                # More than one message takes: each would wait for an answer.
                for _ in range(2000):
                    stubs.cluster.GetNode(cluster_pb2.GetNodeRequest(), timeout=30)
            assert cluster.writer.terminate() == 0
            assert "the collector did not take what was left" in "".join(cluster.writer.log)
