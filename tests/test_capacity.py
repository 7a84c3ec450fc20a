"""`agentmem capacity`: what a load needs, and that each figure follows from the costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, failed

from agentmem.bench import costs as bench_costs
from agentmem.cli import capacity

CPU = {"add": 2.0, "apply": 1.0, "get": 0.5, "search_scoped": 4.0, "search_namespace": 40.0}
BYTES = {
    "writer_memory": 1e8,
    "replica_memory": 2e8,
    **{name: 0.0 for name in capacity.BYTE_COSTS if "_per_" in name},
    "writer_memory_per_memory": 10.0,
    "replica_memory_per_memory": 100.0,
    "replica_memory_per_component": 1.0,
    "store_disk_per_memory": 300.0,
    "store_disk_per_component": 4.0,
    "store_disk_per_content_byte": 0.5,
    "index_disk_per_component": 8.0,
}
DOCUMENT = {"format": 1, "cpu_ms": CPU, "bytes": BYTES, "measured_on": {"machine": "a drawing board"}}
LOAD = ("--memories", "1000000", "--dimension", "100", "--content-bytes", "200")
RATES = ("--writes", "100", "--searches", "150", "--gets", "300")


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def needs(document: dict[str, Any]) -> dict[str, float | None]:
    return {name: need["value"] for name, need in document["needs"].items()}


def test_each_need_follows_from_the_costs(costs: Path) -> None:
    cli = Cli("127.0.0.1:1")  # no cluster is asked
    options = ("--costs", str(costs), "--headroom", "2", "--utilization", "0.5")
    document = cli.json("capacity", *LOAD, *RATES, *options)
    assert document["feasible"] is True
    found = needs(document)
    store, index = 1e6 * (300 + 400 + 100), 1e6 * 800
    assert found == pytest.approx(
        {
            "writers": 1,
            "writer_CPU": 0.2,
            "read_CPU": 0.75,
            "replica_apply_CPU": 0.1,
            "replicas": 2 + 1,  # 0.75 / (0.5 - 0.1), rounded up, and one that may be missing
            "writer_memory": 2 * (1e8 + 1e7),
            "replica_memory": 2 * (2e8 + 2e8 + index),
            "writer_disk": 2 * 2 * store,
            "replica_disk": 2 * (2 * store + 2 * index),
        }
    )
    more = needs(cli.json("capacity", *LOAD, *RATES, *options, "--redundancy", "3", "--cores", "2"))
    assert (more["replicas"], more["read_CPU"]) == (1 + 3, 0.75)
    whole = needs(cli.json("capacity", *LOAD, *RATES, *options, "--search-kind", "namespace"))
    assert whole["replicas"] == 16 + 1
    shown = cli("capacity", *LOAD, *RATES, *options).stdout
    assert "150 searches/s x 4 ms + 300 gets/s x 0.5 ms" in shown
    assert "machine a drawing board" in shown


def test_nothing_but_memories_needs_a_replica(costs: Path) -> None:
    found = needs(Cli("").json("capacity", *LOAD, "--costs", str(costs), "--redundancy", "0"))
    assert (found["replicas"], found["read_CPU"], found["writer_CPU"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("writes", "part"),
    [("301", "one cannot keep up"), ("601", "none is enough")],
)
def test_a_load_that_cannot_be_carried(costs: Path, writes: str, part: str) -> None:
    cli = Cli("")
    done = cli("capacity", *LOAD, "--writes", writes, "--costs", str(costs), "--json")
    assert done.returncode == 1
    assert part in done.stderr
    document = json.loads(done.stdout)
    assert document["feasible"] is False
    assert document["needs"]["writers"]["value"] is None
    assert cli("capacity", *LOAD, "--writes", "299", "--costs", str(costs)).returncode == 0


def test_files_of_costs_that_are_none(costs: Path, tmp_path: Path) -> None:
    cli = Cli("")
    broken: list[tuple[Any, str]] = [
        ([], "not a file of costs of format 1"),
        (DOCUMENT | {"format": 2}, "not a file of costs of format 1"),
        (DOCUMENT | {"measured_on": None}, "measured_on: missing"),
        (DOCUMENT | {"cpu_ms": {**CPU, "get": -1}}, "cpu_ms.get: must be a number from 0 on, not -1"),
        (DOCUMENT | {"cpu_ms": {**CPU, "get": float("nan")}}, "cpu_ms.get"),
        (DOCUMENT | {"cpu_ms": {**CPU, "get": True}}, "cpu_ms.get"),
        (DOCUMENT | {"bytes": {}}, "bytes.writer_memory: must be a number from 0 on, not None"),
    ]
    for document, part in broken:
        costs.write_text(json.dumps(document))
        with pytest.raises(Exception, match="--costs") as caught:
            capacity.load_costs(costs)
        assert part in str(caught.value)
    costs.write_text("{")
    failed(cli("capacity", *LOAD, "--costs", str(costs)), 2, "--costs", "not JSON")
    failed(cli("capacity", *LOAD, "--costs", str(tmp_path / "none.json")), 1, "none.json")
    failed(cli("capacity", "--memories", "0"), 2, "memories")


def test_the_costs_of_the_release_are_measured() -> None:
    measured = capacity.load_costs(capacity.DEFAULT_COSTS)
    assert measured.measured_on["command"].startswith("python -m agentmem.bench costs ")
    assert measured.measured_on["memories"] >= 10_000
    assert all(cost > 0 for cost in measured.cpu_ms.values())
    # A float32 for each component, and what LMDB leaves of its pages.
    assert 4 <= measured.bytes["store_disk_per_component"] <= 8.5


def test_costs_can_be_measured(tmp_path: Path) -> None:
    out = tmp_path / "costs.json"
    command = [sys.executable, "-m", "agentmem.bench", "costs", "--out", str(out)]
    sizes = ("--memories", "300", "--calls", "20", "--rounds", "1", "--callers", "2", "--quiet-s", "0")
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    measured = capacity.load_costs(out)
    assert all(cost > 0 for cost in measured.cpu_ms.values())
    assert measured.bytes["store_disk_per_component"] > 3
    assert measured.bytes["store_disk_per_memory"] > 0
    wrong = subprocess.run([*command, "--rounds", "0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert bench_costs.FORMAT == capacity.FORMAT
