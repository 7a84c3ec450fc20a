"""`agentmem top`: what it shows of the nodes of a cluster, and of those that do not answer."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from command_line import Cli, failed
from rich.cells import cell_len

from agentmem.cli import node_table
from agentmem.cli.node_table import size_text
from agentmem.client import Client

GET = "agentmem.v1.ReaderService/GetMemories"
SCREEN_TIMEOUT_S = 30.0
LEAVES_SCREEN = "\x1b[?1049l"


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in document["nodes"]}


def test_rates_are_those_of_the_calls(cli: Cli, client: Client, namespace: str) -> None:
    client.add(namespace, "something to get", id="m")
    done = threading.Event()
    gets = 0

    def get() -> None:
        nonlocal gets
        while not done.is_set():
            client.get(namespace, "m")
            gets += 1

    thread = threading.Thread(target=get)
    thread.start()
    try:
        document = cli.json("top", "--once", "--interval", "1")
    finally:
        done.set()
        thread.join()
    nodes = by_id(document)
    assert list(nodes) == ["writer", "replica-1", "replica-2"]
    found = 0
    for name in ("replica-1", "replica-2"):
        node = nodes[name]
        calls = node["methods"].get(GET)
        if calls is None:
            continue
        count = sum(calls["codes"].values())
        assert calls["calls_per_s"] * node["interval_s"] == pytest.approx(count, abs=0.01 * count + 0.01)
        assert node["calls_per_s"] == calls["calls_per_s"]  # nothing else is asked of it
        assert 0 < calls["p50_ms"] <= calls["p95_ms"] <= calls["p99_ms"]
        found += count
    assert 0 < found <= gets
    assert nodes["writer"]["calls_per_s"] == 0
    for node in nodes.values():
        assert node["interval_s"] > 0
        assert node["errors_per_s"] == 0
        assert 0 < node["cpu_percent"] < 100 * (os.cpu_count() or 1)
        assert node["epoch"] == document["epoch"] == 1
        assert node["lag_revisions"] == 0


def test_nodes_that_do_not_answer_are_shown(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=2) as cluster:
        first, second = cluster.replicas
        command = [
            *(sys.executable, "-m", "agentmem.cli", "top", "--json", "--interval", "0.2"),
            *("--target", cluster.writer.address, "--timeout-s", "1"),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None

            def states() -> dict[str, str]:
                assert process.stdout is not None
                return {
                    name: node["state"] for name, node in by_id(json.loads(process.stdout.readline())).items()
                }

            def wait_for(**expected: str) -> None:
                deadline = time.monotonic() + SCREEN_TIMEOUT_S
                while (now := states()) != expected:
                    assert time.monotonic() < deadline, now

            names = {"writer": "serving", "replica-1": "serving", "replica-2": "serving"}
            wait_for(**names)
            first.pause()
            wait_for(**names | {"replica-1": "no answer"})
            first.resume()
            wait_for(**names)
            second.kill()
            wait_for(**names | {"replica-2": "unreachable"})
            cluster.writer.kill()
            wait_for(**names | {"replica-2": "unreachable", "writer": "unreachable"})
            process.send_signal(signal.SIGINT)
            assert process.wait(SCREEN_TIMEOUT_S) == 0
        shown = Cli(first.address)("top", "--once", "--interval", "0.1").stdout
        assert "no writer serves now" in shown
        rows = {words[0]: words for line in shown.splitlines() if (words := line.split())}
        # How far the writer is, nobody knows.
        assert rows["replica-1"][rows["NODE"].index("LAG")] == "-"


def test_a_cluster_that_is_not_there() -> None:
    failed(Cli("127.0.0.1:1")("top", "--once"), 4, "cannot reach 127.0.0.1:1")


def on_terminal(target: str, columns: int, *, until: str) -> str:
    """What `top` writes on a terminal until a text has come, and then to its end by Ctrl-C."""
    terminal, its_side = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "AGENTMEM_TARGET": target}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "agentmem.cli", "top", "--interval", "0.2"],
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        env=environment,
    )
    os.close(its_side)
    written, is_ending = b"", False
    while select.select([terminal], [], [], SCREEN_TIMEOUT_S)[0]:
        try:
            written += os.read(terminal, 65536)
        except OSError:  # the end, on Linux
            break
        if not is_ending and until.encode() in written:
            is_ending = True
            process.send_signal(signal.SIGINT)
    os.close(terminal)
    assert process.wait(SCREEN_TIMEOUT_S) == 0, written.decode()
    return written.decode()


@pytest.mark.parametrize(("columns", "has_state"), [(80, False), (120, True)])
def test_a_live_table(shared_cluster: Cluster, columns: int, has_state: bool) -> None:
    written = on_terminal(shared_cluster.writer.address, columns, until="0.0 calls/s")
    assert LEAVES_SCREEN in written
    assert ("STATE" in written) is has_state
    for part in ("QPS", "P95 MS", "CPU %", "MEMORY", "CONNS", "HITS %", "EPOCH", "replica-2"):
        assert part in written, written


def node(**fields: Any) -> dict[str, Any]:
    """A node under load, of a document."""
    return {
        "id": "replica-127.0.0.1:50052",
        "role": "replica",
        "address": "127.0.0.1:50052",
        "state": "serving",
        "epoch": 12,
        "applied_revision": 12_345_678,
        "lag_revisions": 1234,
        "staleness_s": 0.25,
        "calls_per_s": 12_345.6,
        "errors_per_s": 0.0,
        "p95_ms": 12.3456,
        "cpu_percent": 99.97,
        "memory_bytes": 3 * 1024**3,
        "store_used_bytes": 1024**2,
        "index_bytes": None,
        "connections": 1000,
        "open_calls": 7,
        "cache_hit_ratio": 1.0,
    } | fields


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_a_table_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    nodes = [node(), node(id="書斎のレプリカ-1"), node(state="unreachable", calls_per_s=None, id="r\x1b[2J")]
    lines = [text for text, _ in node_table.lines(nodes, width)]
    assert max(map(cell_len, lines)) <= width
    assert all(part in lines[0] for part in ("NODE", "ROLE", "REVISION", "LAG", "QPS", "P95 MS", "MEMORY"))
    assert "\x1b" not in "".join(lines)
    if width >= 80:
        assert all(part in lines[0] for part in ("EPOCH", "CPU %", "CONNS", "HITS %"))
    # Nothing is left out where there is room for it.
    everything = [text for text, _ in node_table.lines(nodes, None)]
    assert (lines == everything) is (max(map(cell_len, everything)) <= width)


def test_cells_say_what_is_meant() -> None:
    (header, _), (row, _) = node_table.lines([node()], None)
    cells = dict(zip(header.replace(" MS", "_MS").replace(" %", "_%").split(), row.split(), strict=True))
    assert cells["QPS"] == "12346"
    assert cells["P95_MS"] == "12.3"
    assert cells["CPU_%"] == "100"
    assert cells["HITS_%"] == "100"
    assert cells["MEMORY"] == "3.0G"
    assert cells["INDEXES"] == "-"
    assert cells["REVISION"] == "12345678"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.0K"), (10_239, "10K"), (1024**2, "1.0M"), (1023 * 1024**2, "1.0G")],
)
def test_sizes_have_three_digits_at_most(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
