"""The arithmetic of the benchmarks: figures with their noise, percentiles, growth, and what processes use."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
from cluster import wait_until

from agentmem.bench.suite import figures, process_trees
from agentmem.bench.suite.cross_check import read_output
from agentmem.bench.suite.scale import Scale
from agentmem.bench.suite.tables import number, shown
from agentmem.bench.suite.workbench import WrongAnswer

CHILD = """
import sys, time
while time.process_time() < 0.4:
    pass
sys.stdin.read()
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE)
sys.stdin.readline()
child.communicate()
print("ended", flush=True)
sys.stdin.readline()
"""
H2LOAD = """finished in 2.00s, 6140.50 req/s, 378.41KB/s
requests: 12280 total, 12296 started, 12280 done, 12280 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 12280 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 756.81KB (774977) total, 36.05KB (36915) headers (space savings 96.29%), 59.96KB (61400) data
"""


def test_a_figure_is_the_median_of_its_runs_with_how_far_they_are_apart() -> None:
    found = figures.figure([3.0, 1.0, 2.5])
    assert found == {"median": 2.5, "low": 1.0, "high": 3.0, "spread": 0.8, "runs": [3.0, 1.0, 2.5]}
    assert figures.figure([1.0, 2.0, 4.0, 8.0])["median"] == 3.0
    assert figures.figure([0.0, 0.0, 0.0])["spread"] == 0.0
    assert shown(found) == "2.5 (1–3)"
    assert shown(figures.figure([7.0, 7.0, 7.0])) == "7"
    assert shown(None) == "–"


@pytest.mark.parametrize("runs", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_figure_is_refused(runs: list[float]) -> None:
    with pytest.raises(ValueError, match="figure"):
        figures.figure(runs)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 500), (95, 950), (99, 990), (99.9, 999), (100, 1000), (0.01, 1), (0.1, 1)]
)
def test_percentiles_are_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert figures.percentile([float(value) for value in range(1, 1001)], percent) == expected


def test_percentiles_of_few() -> None:
    assert figures.percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert figures.percentile([float(value) for value in range(1, 11)], 95) == 10.0
    assert figures.percentile([5.0], 1) == 5.0
    with pytest.raises(ValueError, match="percent"):
        figures.percentile([1.0], 0)
    with pytest.raises(ValueError, match="nothing"):
        figures.percentile([], 50)


def test_a_percentile_is_told_only_of_enough_calls() -> None:
    assert figures.can_tell(1000, 99.9)
    assert not figures.can_tell(999, 99.9)
    assert list(figures.latency_curve([0.001] * 20))[-3:] == ["92.5", "95", "100"]
    assert figures.latency_curve([0.003, 0.001])["100"] == 3.0


def test_only_figures_of_every_run_are_kept() -> None:
    found = figures.by_name([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    assert list(found) == ["a"]
    assert found["a"]["runs"] == [1.0, 3.0]


def test_growth_by_the_hour() -> None:
    assert figures.slope_per_hour([0, 10, 20], [5.0, 6.0, 7.0]) == pytest.approx(360)
    assert figures.slope_per_hour([0, 10, 20], [5.0, 5.0, 5.0]) == 0
    with pytest.raises(ValueError, match="different"):
        figures.slope_per_hour([1, 1], [5.0, 6.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (12.34, "12.3"), (0.1234, "0.123"), (0.0000123, "1.2e-05")],
)
def test_numbers_as_they_are_read(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Scale(rounds=2), "rounds"),
        (lambda: Scale(sizes=(10, 5)), "sizes"),
        (lambda: Scale(seconds=0), "seconds"),
        (lambda: Scale(soak_s=3, soak_interval_s=1), "soak_interval_s"),
    ],
)
def test_a_scale_that_says_nothing_is_refused(make: Callable[[], Scale], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()


def test_the_time_of_a_child_counts_while_it_lives_and_when_it_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        wait_until(lambda: process_trees.usage(parent.pid).cpu_s >= 0.35, "the child's time in the tree")
        used = process_trees.usage(parent.pid)
        assert used.threads >= 2
        assert used.open_files >= 6
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "ended\n"
        ended = process_trees.usage(parent.pid)
        assert ended.cpu_s > used.cpu_s - 0.005  # half a tick of the clock
        assert ended.rss_bytes < used.rss_bytes
    with pytest.raises(ProcessLookupError):
        process_trees.usage(parent.pid)


def test_what_h2load_prints_is_read_and_answers_that_are_errors_are_noticed() -> None:
    assert read_output(H2LOAD, 5) == (6140.5, 12280)
    with pytest.raises(WrongAnswer, match="not of 6 each"):
        read_output(H2LOAD, 6)
    with pytest.raises(WrongAnswer, match="3 that failed"):
        read_output(H2LOAD.replace("0 failed", "3 failed"), 5)
    with pytest.raises(WrongAnswer, match="something else"):
        read_output("h2load: unknown option", 5)
