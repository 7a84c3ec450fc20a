"""What measuring costs: CPU of the writer per cheap call, with more and more of it.

    bare      the interceptor measures nothing: its class is replaced by one that does not
    counted   as always: calls are counted and timed, and nobody looks
    scraped   ... and somebody scrapes /metrics each second
    traced    ... and one call in a hundred is recorded in traces, and sent to a collector

The same calls go to each of them in turn, several rounds over; ratios are of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from agentmem.v1 import cluster_pb2, cluster_pb2_grpc

CALLERS = 16
SCRAPE_INTERVAL_S = 1.0
VARIANTS = ("bare", "counted", "scraped", "traced")
# In place of agentmem.core.call_metrics.CallMetrics.
_BARE = """
import sys
from agentmem.core import call_metrics, serving

class Nothing:
    status = reason = ""
    request = None
    method = ""
    def end(self, context): pass

class Bare(call_metrics.CallMetrics):
    nothing = Nothing()
    def begin(self, method, metadata, *, is_stream): return self.nothing

call_metrics.CallMetrics = Bare
from agentmem.server.__main__ import main
sys.exit(main())
"""


class _Discard(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """A collector that keeps nothing, but counts."""

    spans = 0

    def Export(self, request: Any, context: object) -> object:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self.spans += sum(
                len(each.spans) for resource in request.resource_spans for each in resource.scope_spans
            )
            return trace_service_pb2.ExportTraceServiceResponse()
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def _collector() -> Iterator[tuple[_Discard, str]]:
    discard = _Discard()
    server = grpc.server(ThreadPoolExecutor(1))
    add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_traces(discard, server)
    add_metrics(discard, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield discard, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def _writer(folder: Path, variant: str, collector: str) -> Iterator[tuple[int, str, str]]:
    """Its process id, address and metrics address."""
    flags = ["--data-dir", str(folder), "--insecure", "--listen", "127.0.0.1:0", "--embedder", "none"]
    if variant in ("bare", "counted"):
        flags += ["--metrics-listen", ""]
    if variant == "traced":
        flags += ["--otlp-endpoint", collector, "--trace-sample-ratio", "0.01"]
    program = ["-c", _BARE] if variant == "bare" else ["-m", "agentmem.server"]
    process = subprocess.Popen(
        [sys.executable, *program, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " ready on " not in line:
            raise SystemExit(f"the writer did not start: {line!r}")
        announced = json.loads((folder / "process.json").read_text())
        yield process.pid, announced["address"], announced["metrics_address"]
    finally:
        process.terminate()
        process.wait()


def _cpu_ns(pid: int) -> int:
    """CPU that the threads of a process have used; Linux."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


@contextmanager
def _scraping(address: str) -> Iterator[None]:
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(SCRAPE_INTERVAL_S):
            urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read()

    thread = threading.Thread(target=scrape)
    if address:
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read()
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if address:
            thread.join()


async def _call(address: str, calls: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)

        async def caller() -> None:
            for _ in range(calls // CALLERS):
                await stub.GetNode(cluster_pb2.GetNodeRequest(), timeout=30)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


def main(words: list[str]) -> int:
    """Measures, and prints a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m agentmem.bench telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=8000, help="of each variant in each round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    if options.rounds < 3 or options.calls < CALLERS:
        parser.error(f"--rounds must be at least 3, --calls at least {CALLERS}")
    microseconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    calls = options.calls // CALLERS * CALLERS
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        discard, collector = held.enter_context(_collector())
        writers = {
            variant: held.enter_context(_writer(folder / variant, variant, collector)) for variant in VARIANTS
        }
        for number in range(-1, options.rounds):  # the first warms up
            # Another one begins each time.
            order = VARIANTS[number % len(VARIANTS) :] + VARIANTS[: number % len(VARIANTS)]
            for variant in order:
                pid, address, metrics_address = writers[variant]
                with _scraping(metrics_address):
                    before_ns = _cpu_ns(pid)
                    asyncio.run(_call(address, calls))
                    used_ns = _cpu_ns(pid) - before_ns
                if number >= 0:
                    microseconds[variant].append(used_ns / calls / 1000)
    ratios = {
        variant: [value / bare for value, bare in zip(values, microseconds["bare"], strict=True)]
        for variant, values in microseconds.items()
    }
    if options.json:
        report = {"calls": calls, "cpu_us_per_call": microseconds, "ratio_to_bare": ratios}
        print(json.dumps(report | {"spans": discard.spans}))
        return 0
    print(f"CPU of the writer per GetNode, {options.rounds} rounds of {calls} calls, {CALLERS} callers")
    print(f"{'':10} {'µs, median':>11} {'min':>7} {'max':>7}   {'of bare':>8} {'min':>6} {'max':>6}")
    for variant, values in microseconds.items():
        own = ratios[variant]
        print(
            f"{variant:10} {statistics.median(values):11.1f} {min(values):7.1f} {max(values):7.1f}   "
            f"{statistics.median(own):8.3f} {min(own):6.3f} {max(own):6.3f}"
        )
    print(f"spans that the collector got, warm-up included: {discard.spans}")
    return 0
