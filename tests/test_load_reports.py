"""What the load generator reckons and prints: percentiles, reports and their formats."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import re
from datetime import UTC, datetime
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.bench.__main__ import main as bench
from agentmem.bench.load.arguments import read_options
from agentmem.bench.load.comparing import main as compare
from agentmem.bench.load.histograms import Histogram, nearest_rank
from agentmem.bench.load.printers import print_report
from agentmem.bench.load.recordings import (
    MAX_ERROR_TEXTS,
    NOT_DUE,
    OK,
    OTHER_ERRORS,
    STATUS_NUMBERS,
    Recording,
)
from agentmem.bench.load.reports import GHZ_PERCENTAGES, PERCENTAGES, build_report

SECOND_NS = 10**9
WORDS = ("--call", "a.B/C", "--insecure", "localhost:1")
KEYS = json.loads((Path(__file__).parent / "data" / "ghz_report_keys.json").read_text(encoding="utf-8"))

Json = dict[str, Any]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from(PERCENTAGES))
def test_a_percentile_is_the_nearest_rank(values: list[int], percentage: float) -> None:
    found = nearest_rank(sorted(values), percentage)
    # The least of the values that so many do not exceed.
    needed = Fraction(str(percentage)) / 100 * len(values)
    fitting = [value for value in values if sum(other <= value for other in values) >= needed]
    assert found == min(fitting)


def test_histograms_are_off_by_a_thousandth_at_most_and_can_be_joined() -> None:
    drawn = random.Random(3)
    values = [round(drawn.lognormvariate(15, 2)) for _ in range(5000)]
    parts = [Histogram(), Histogram()]
    for number, value in enumerate(values):
        parts[number % 2].record(value)
    whole = Histogram()
    at_once = Histogram()
    at_once.record_all(np.asarray(values))
    for part in parts:
        whole.add(pickle.loads(pickle.dumps(part)))
    assert whole.count == len(values)
    assert list(at_once.recorded()) == list(whole.recorded())
    for percentage in PERCENTAGES:
        exact = nearest_rank(sorted(values), percentage)
        assert exact <= whole.percentile(percentage) <= exact * 1.001 + 1


def recorded(delays: bool = True, max_detailed_calls: int = 10**6) -> Recording:
    """A thousand calls, of which each hundredth fails."""
    drawn = random.Random(5)
    recording = Recording(1, False, max_detailed_calls)
    for number in range(1000):
        service_ns, failed = drawn.randrange(10**6, 10**8), number % 100 == 99
        status = STATUS_NUMBERS["UNAVAILABLE"] if failed else OK
        error = "rpc error: code = Unavailable desc = gone" if failed else ""
        delay_ns = drawn.randrange(10**6) if delays else NOT_DUE
        recording.record(0, status, error, number * 10**6, service_ns, delay_ns)
    recording.elapsed_ns = SECOND_NS
    recording.cpu_ns = SECOND_NS // 4
    return recording


def reported(*words: str, recording: Recording | None = None) -> Json:
    options = read_options([*WORDS, *words])
    return build_report(options, [recording or recorded()], datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_percentiles_of_a_report_are_of_its_calls() -> None:
    recording = recorded()
    good = sorted(
        service
        for service, status in zip(recording.service_ns, recording.statuses, strict=True)
        if status == OK
    )
    report = reported(recording=recording)
    assert {one["percentage"]: one["latency"] for one in report["latencyDistribution"]} == {
        percentage: good[-(-percentage * len(good) // 100) - 1] for percentage in GHZ_PERCENTAGES
    }
    assert (report["fastest"], report["slowest"]) == (good[0], good[-1])
    assert report["average"] == sum(recording.service_ns) // 1000
    assert report["rps"] == 1000
    marks = [bucket["mark"] for bucket in report["histogram"]]
    assert (marks[0], marks[-1]) == (good[0] / 1e9, good[-1] / 1e9)
    for lower, bucket in zip([-1.0, *marks], report["histogram"], strict=False):
        assert bucket["count"] == sum(lower < value / 1e9 <= bucket["mark"] for value in good)
    assert sum(bucket["frequency"] for bucket in report["histogram"]) == pytest.approx(1)


def test_calls_past_the_bound_are_counted_without_their_details() -> None:
    exact, bounded = reported(), reported(recording=recorded(max_detailed_calls=100))
    assert len(bounded["details"]) == 100
    for key in ("count", "average", "fastest", "slowest", "errorDistribution", "statusCodeDistribution"):
        assert bounded[key] == exact[key], key
    assert bounded["extended"]["percentiles"] == "histogram"
    for key in ("service", "scheduled", "sendDelay"):
        assert bounded["extended"][key]["count"] == 990
        for one, other in zip(
            exact["extended"][key]["latencyDistribution"],
            bounded["extended"][key]["latencyDistribution"],
            strict=True,
        ):
            assert one["latency"] <= other["latency"] <= one["latency"] * 1.001 + 1
    assert sum(bucket["count"] for bucket in bounded["histogram"]) == 990


def test_different_error_texts_have_a_bound() -> None:
    recording = Recording(1, False)
    for number in range(MAX_ERROR_TEXTS + 50):
        recording.record(0, STATUS_NUMBERS["INTERNAL"], f"error {number}", 0, 1, NOT_DUE)
    errors = reported(recording=recording)["errorDistribution"]
    assert len(errors) == MAX_ERROR_TEXTS + 1
    assert errors[OTHER_ERRORS] == 50


def test_a_report_has_the_keys_of_ghz_and_one_more() -> None:
    report = reported("--name", "n", "--tags", '{"a": "b"}', "--rps", "5")
    assert set(report) == {*KEYS["report"], "extended"}
    for key in ("latencyDistribution", "histogram", "details"):
        assert set(report[key][0]) == set(KEYS[key])
    assert set(report["options"]) <= set(KEYS["options"])
    always = [key for key in KEYS["options"] if key.startswith(("load-", "concurrency-"))]
    assert {*always, "insecure", "binary", "CPUs"} <= set(report["options"])
    assert report["date"] == "2026-01-02T03:04:05+00:00"
    # The calls are in the order in which they ended; the timestamp is of their start.
    assert min(detail["timestamp"] for detail in report["details"]) == "2026-01-02T03:04:04.000000000Z"
    whole = [report[key] for key in ("count", "total", "average", "fastest", "slowest")]
    whole += [one["latency"] for one in report["latencyDistribution"] + report["details"]]
    assert all(type(value) is int for value in whole)


def test_the_summary_reads_like_that_of_ghz() -> None:
    lines = print_report(reported("--name", "a run"), "summary").splitlines()
    text = "\n".join(lines)
    assert lines[:4] == ["", "Summary:", "  Name:\t\ta run", "  Count:\t1000"]
    assert "  Requests/sec:\t1000.00" in lines
    for heading in ("Response time histogram:", "Latency distribution:", "Status code distribution:"):
        assert heading in lines
    assert re.search(r"^  99 % in \d+\.\d\d ms$", text, re.MULTILINE)
    assert re.search(r"^  99\.9 % in \d+\.\d\d ms$", text, re.MULTILINE)
    assert "  [OK]            990 responses" in lines
    assert "  [10]   rpc error: code = Unavailable desc = gone" in lines
    assert "Latency from when each call was due (waiting for its turn included):" in lines
    assert max(line.count("∎") for line in lines) == 40
    assert "was due" not in print_report(reported(recording=recorded(delays=False)), "summary")


def test_the_summary_warns_of_a_busy_generator() -> None:
    recording = recorded()
    assert "It was busy" not in print_report(reported(recording=recording), "summary")
    recording.cpu_ns = SECOND_NS
    assert "It was busy" in print_report(reported(recording=recording), "summary")


def test_csv_has_a_line_for_each_call() -> None:
    report = reported()
    rows = list(csv.reader(io.StringIO(print_report(report, "csv"))))
    assert rows[0] == ["duration (ms)", "status", "error"]
    assert len(rows) == 1001
    first = report["details"][0]
    assert rows[1] == [f"{first['latency'] / 1e6:.2f}", first["status"], first["error"]]


def test_json_and_pretty_are_the_same_report() -> None:
    report = reported()
    assert json.loads(print_report(report, "json")) == json.loads(print_report(report, "pretty")) == report


def test_prometheus_text_has_cumulative_buckets() -> None:
    text = print_report(reported("--tags", '{"odd name": "a\\"b"}', "--rps", "9"), "prometheus")
    samples = [
        re.fullmatch(r'(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)+)\} ([0-9.e+-]+)', line)
        for line in text.splitlines()
        if not line.startswith("#")
    ]
    assert all(samples)
    assert 'odd_name="a\\"b"' in text
    buckets = [int(sample[3]) for sample in samples if sample and sample[1] == "ghz_run_histogram_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 990
    assert {sample[1] for sample in samples if sample} >= {
        "ghz_run_count",
        "ghz_run_latency",
        "ghz_run_errors",
    }


class Tags(HTMLParser):
    """The tags that are open, and what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A drawn shape, which has no end of its own."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_what_it_shows() -> None:
    page = print_report(reported("--name", "<script>x</script>", "--rps", "9"), "html")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.fetched == []
    assert "<script" not in page
    assert page.count("<polyline") == 2
    assert page.count("<rect") >= 11


@pytest.mark.parametrize("form", ["summary", "html", "prometheus", "csv", "json"])
def test_a_run_without_a_good_call_can_be_shown(form: str) -> None:
    recording = Recording(1, False)
    recording.record(0, STATUS_NUMBERS["INTERNAL"], "rpc error: code = Internal desc = no", 0, 5, NOT_DUE)
    recording.elapsed_ns = SECOND_NS
    assert "Internal" in print_report(reported(recording=recording), form) or form == "prometheus"
    assert print_report(reported(recording=Recording(1, False)), form)


def test_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = recorded()
    slow.service_ns = type(slow.service_ns)("q", [2 * value for value in slow.service_ns])
    for name, recording in (("a", recorded()), ("b", slow)):
        (tmp_path / name).write_text(json.dumps(reported(recording=recording)), encoding="utf-8")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert compare([a, b]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^50 % .* 2\.000$", printed, re.MULTILINE)
    assert re.search(r"^due, 99 % ", printed, re.MULTILINE)
    assert compare([a, b, "--fail-above", "50"]) == 1
    assert "worse by more than 50 %: 99 %" in capsys.readouterr().err
    assert compare([b, a, "--fail-above", "0"]) == 0
    assert compare([a, str(tmp_path / "none")]) == 2
    assert "not a report of a run" in capsys.readouterr().err


def test_reports_of_ghz_can_be_compared(tmp_path: Path) -> None:
    report = reported()
    del report["extended"]
    (tmp_path / "ghz").write_text(json.dumps(report), encoding="utf-8")
    assert compare([str(tmp_path / "ghz"), str(tmp_path / "ghz"), "--fail-above", "1"]) == 0


def test_unknown_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["loud"]) == 2
    assert "load" in capsys.readouterr().err
