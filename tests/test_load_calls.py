"""The load generator against a real server that counts for itself."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster import wait_until
from load_server import PROTO, SERVICE, Behaviour, LoadServer

from agentmem.bench.load.arguments import read_options
from agentmem.bench.load.command import main
from agentmem.bench.load.processes import run_load

ECHO = f"{SERVICE}/Echo"
# How far a rate may be from what was asked for, by the server's clock: others use the machine, too.
RATE_TOLERANCE = 0.4

Json = dict[str, Any]


@pytest.fixture
def server() -> Iterator[LoadServer]:
    with LoadServer() as server:
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


def load(server: LoadServer, out: Path, *words: str, call: str = ECHO) -> Json:
    """Makes a run and says its report."""
    command = ["--insecure", "--call", call, "-O", "json", "-o", str(out), *words, server.address]
    assert main(command) == 0
    report: Json = json.loads(out.read_text(encoding="utf-8"))
    return report


def latency_ns(latencies: Json, percentage: float) -> int:
    found = [one["latency"] for one in latencies["latencyDistribution"] if one["percentage"] == percentage]
    assert len(found) == 1
    value: int = found[0]
    return value


def arrival_rate(arrived_s: Sequence[float], width: int, expected: float) -> float:
    """Calls per second by the server's clock, which is expected to be so.

    Each end is the median lateness of `width` calls, so that a moment's hitch of the machine does not decide.
    """
    late_s = [arrived - number / expected for number, arrived in enumerate(arrived_s)]
    calls = len(arrived_s) - width
    return calls / (calls / expected + statistics.median(late_s[-width:]) - statistics.median(late_s[:width]))


def test_as_many_calls_arrive_as_are_asked_for(server: LoadServer, out: Path) -> None:
    report = load(server, out, "-n", "203", "-c", "7", "-d", '{"text": "{{.RequestNumber}}"}')
    assert len(server.received) == 203
    assert sorted(int(call.texts[0]) for call in server.received) == list(range(203))
    assert report["count"] == len(report["details"]) == 203
    assert report["statusCodeDistribution"] == {"OK": 203}
    assert report["endReason"] == "normal"
    assert server.most_under_way <= 7


def test_processes_share_the_calls_and_the_rate(server: LoadServer, out: Path) -> None:
    data = '{"text": "{{.RequestNumber}}"}'
    words = ("-n", "301", "-c", "8", "--rps", "300", "--processes", "2", "--warmup", "100ms", "-d", data)
    report = load(server, out, *words)
    numbers = [int(call.texts[0]) for call in server.received]
    warmup = [number for number in numbers if number >= 1_000_000_000]
    assert sorted(set(numbers) - set(warmup)) == list(range(301))
    assert len(numbers) == 301 + len(warmup)
    assert report["count"] == 301
    assert report["extended"]["warmup"]["count"] == len(warmup) > 0
    assert [process["count"] for process in report["extended"]["generator"]["processes"]] == [151, 150]
    assert report["options"]["connections"] == 2
    arrived_s = [call.arrived_s for call in server.received if int(call.texts[0]) not in warmup]
    assert arrival_rate(arrived_s, 100, 300) == pytest.approx(300, rel=RATE_TOLERANCE)


def test_a_rate_is_held_by_the_clock_of_the_server(server: LoadServer, out: Path) -> None:
    report = load(server, out, "-n", "400", "-c", "20", "--rps", "200")
    assert arrival_rate([call.arrived_s for call in server.received], 100, 200) == pytest.approx(
        200, rel=RATE_TOLERANCE
    )
    assert report["count"] == 400


def test_a_step_schedule_changes_the_rate(server: LoadServer, out: Path) -> None:
    schedule = ("--load-schedule", "step", "--load-start", "50", "--load-step", "150", "--load-end", "200")
    load(server, out, "-c", "20", "-n", "250", *schedule, "--load-step-duration", "1s")
    arrived_s = [call.arrived_s for call in server.received]
    assert arrival_rate(arrived_s[:50], 20, 50) == pytest.approx(50, rel=RATE_TOLERANCE)
    assert arrival_rate(arrived_s[50:], 80, 200) == pytest.approx(200, rel=RATE_TOLERANCE)


def test_a_stall_shows_in_the_latency_from_when_calls_were_due(out: Path) -> None:
    stall_s = 1.0
    with LoadServer(Behaviour(stall_at=50, stall_s=stall_s)) as server:
        report = load(server, out, "-n", "250", "-c", "1", "--rps", "100")
    half_ns = stall_s * 1e9 / 2
    # One call of 250 was slow from when it was sent; the hundred that were due meanwhile were not sent.
    assert report["slowest"] >= stall_s * 1e9
    assert latency_ns(report, 99) < half_ns
    assert latency_ns(report["extended"]["service"], 99) < half_ns
    assert latency_ns(report["extended"]["scheduled"], 99) > half_ns
    assert latency_ns(report["extended"]["scheduled"], 90) > half_ns
    assert report["extended"]["scheduled"]["slowest"] >= stall_s * 1e9
    # Nor was it the generator: it was late with those alone for which it had no worker.
    assert latency_ns(report["extended"]["generator"]["lag"], 90) < half_ns
    assert report["extended"]["generator"]["lag"]["count"] < 250 - 50


def test_async_sends_what_is_due_while_calls_wait(out: Path) -> None:
    with LoadServer(Behaviour(held=True)) as server:

        def release() -> None:
            wait_until(lambda: len(server.received) == 30, "all calls sent though none is answered")
            server.release()

        releasing = threading.Thread(target=release)
        releasing.start()
        report = load(server, out, "-n", "30", "-c", "2", "--rps", "300", "--async")
        releasing.join()
        assert server.most_under_way == 30
    assert report["statusCodeDistribution"] == {"OK": 30}
    assert report["options"]["async"] is True


def test_workers_follow_their_schedule() -> None:
    words = [
        "--insecure",
        "--call",
        ECHO,
        "-n",
        "50",
        "--concurrency-schedule",
        "step",
        "--concurrency-start",
        "2",
    ]
    words += ["--concurrency-step", "3", "--concurrency-end", "8", "--concurrency-step-duration", "300ms"]
    with LoadServer(Behaviour(held=True)) as server:

        def release() -> None:
            wait_until(lambda: server.under_way == 8, "eight workers")
            server.release()

        releasing = threading.Thread(target=release)
        releasing.start()
        (recording,) = run_load(read_options([*words, server.address]))
        releasing.join()
        assert server.most_under_way == 8
        assert len(server.received) == 50
    sent_ns = sorted(recording.sent_ns)
    # None before its step, so no more than two, then five, were under way.
    assert sent_ns[2] >= 300_000_000
    assert sent_ns[5] >= 600_000_000


@pytest.mark.parametrize("how", ["close", "ignore"])
def test_calls_under_way_at_the_end_are_cancelled(how: str, out: Path) -> None:
    with LoadServer(Behaviour(held=True)) as server:
        report = load(server, out, "-z", "600ms", "-c", "4", "--duration-stop", how)
        assert len(server.received) == 4
        assert server.answered == 0
    expected = {"Canceled": 4} if how == "close" else {}
    assert report["statusCodeDistribution"] == expected
    assert report["endReason"] == "timeout"
    assert "total" not in report["options"]


def test_calls_under_way_at_the_end_are_waited_for(out: Path) -> None:
    with LoadServer(Behaviour(held=True)) as server:

        def release() -> None:
            # The first call came no sooner than the run began, which ends 300 ms later.
            wait_until(lambda: bool(server.received), "a call")
            wait_until(lambda: time.monotonic() > server.received[0].arrived_s + 0.5, "the end of the run")
            server.release()

        releasing = threading.Thread(target=release)
        releasing.start()
        report = load(server, out, "-z", "300ms", "-c", "2", "--rps", "20", "--duration-stop", "wait")
        releasing.join()
        assert server.answered == 2
    assert report["statusCodeDistribution"] == {"OK": 2}
    # Six were due in 300 ms.
    assert report["extended"]["unsent"] == 4
    assert report["total"] >= 300_000_000


def test_max_duration_ends_a_run_before_its_total(server: LoadServer, out: Path) -> None:
    report = load(
        server, out, "-n", "100000", "-c", "2", "--rps", "50", "-x", "500ms", "--duration-stop", "wait"
    )
    assert report["endReason"] == "timeout"
    assert report["count"] == len(server.received) <= 25
    assert report["options"]["total"] == 100000


def test_failed_calls_are_told_apart(out: Path) -> None:
    failing = {
        3: grpc.StatusCode.UNAVAILABLE,
        5: grpc.StatusCode.INVALID_ARGUMENT,
        7: grpc.StatusCode.CANCELLED,
    }
    with LoadServer(Behaviour(failing=failing)) as server:
        report = load(server, out, "-n", "20", "-c", "1")
    assert report["statusCodeDistribution"] == {
        "OK": 17,
        "Unavailable": 1,
        "InvalidArgument": 1,
        "Canceled": 1,
    }
    assert report["errorDistribution"]["rpc error: code = Unavailable desc = as told"] == 1
    assert report["extended"]["service"]["count"] == 17
    assert report["extended"]["endpoints"] == [
        {"host": server.address, "count": 20, "errors": 3, "average": report["average"]}
    ]
    assert sum(bucket["count"] for bucket in report["histogram"]) == 17


def test_failed_calls_count_for_latencies_when_asked(out: Path) -> None:
    with LoadServer(Behaviour(failing={0: grpc.StatusCode.INTERNAL})) as server:
        report = load(server, out, "-n", "10", "-c", "1", "--count-errors")
    assert report["extended"]["service"]["count"] == 10
    assert sum(bucket["count"] for bucket in report["histogram"]) == 10


def test_a_call_that_takes_too_long_ends_at_its_timeout(out: Path) -> None:
    with LoadServer(Behaviour(held=True)) as server:
        report = load(server, out, "-n", "2", "-c", "2", "-t", "200ms")
    assert report["statusCodeDistribution"] == {"DeadlineExceeded": 2}


def test_the_first_answers_may_be_left_out(out: Path) -> None:
    with LoadServer(Behaviour(failing={0: grpc.StatusCode.INTERNAL})) as server:
        report = load(server, out, "-n", "10", "-c", "1", "--skipFirst", "4")
        assert len(server.received) == 10
    assert report["count"] == len(report["details"]) == 6
    assert report["statusCodeDistribution"] == {"OK": 6}


def test_several_hosts_take_turns(server: LoadServer, out: Path) -> None:
    with LoadServer() as other:
        command = ["--insecure", "--call", ECHO, "-O", "json", "-o", str(out), "-n", "40", "-c", "4"]
        assert main([*command, "--connections", "2", f"{server.address},{other.address}"]) == 0
        endpoints = json.loads(out.read_text(encoding="utf-8"))["extended"]["endpoints"]
        assert [one["host"] for one in endpoints] == [server.address, other.address]
        assert [one["count"] for one in endpoints] == [len(server.received), len(other.received)]
        assert min(len(server.received), len(other.received)) > 0


def test_streams_of_the_server_are_read_to_their_end(server: LoadServer, out: Path) -> None:
    report = load(server, out, "-n", "4", "-c", "1", "-d", '{"text": "a"}', call=f"{SERVICE}.Repeat")
    assert report["statusCodeDistribution"] == {"OK": 4}
    assert [call.texts for call in server.received] == [["a"]] * 4


@pytest.mark.parametrize("method", ["Collect", "Converse"])
def test_streams_to_the_server_have_all_messages(method: str, server: LoadServer, out: Path) -> None:
    data = '[{"text": "a"}, {"text": "{{.RequestNumber}}"}]'
    report = load(server, out, "-n", "3", "-c", "1", "-d", data, call=f"{SERVICE}/{method}")
    assert report["statusCodeDistribution"] == {"OK": 3}
    assert [call.texts for call in server.received] == [["a", "0"], ["a", "1"], ["a", "2"]]


def test_single_messages_of_an_array_take_turns(server: LoadServer, out: Path) -> None:
    load(server, out, "-n", "5", "-c", "1", "-d", '[{"text": "a"}, {"text": "b"}]')
    assert [call.texts for call in server.received] == [["a"], ["b"], ["a"], ["b"], ["a"]]


@pytest.mark.parametrize("source", ["reflection", "proto", "protoset"])
def test_the_method_is_found(source: str, server: LoadServer, out: Path, tmp_path: Path) -> None:
    protoset = tmp_path / "protoset"
    protoset.write_bytes(server.files)
    words = {"reflection": (), "proto": ("--proto", str(PROTO)), "protoset": ("--protoset", str(protoset))}
    data = '{"text": "x", "number": "7", "time": "2026-01-01T00:00:00Z"}'
    load(server, out, "-n", "1", "-c", "1", "-d", data, *words[source])
    assert [call.texts for call in server.received] == [["x"]]


def test_metadata_and_its_actions_reach_the_server(server: LoadServer, out: Path) -> None:
    metadata = '{"Number": "{{.RequestNumber}}", "token-bin": "ab", "worker": "{{.WorkerID}}"}'
    load(server, out, "-n", "3", "-c", "1", "-m", metadata)
    assert [call.metadata["number"] for call in server.received] == ["0", "1", "2"]
    assert {call.metadata["token-bin"] for call in server.received} == {b"ab"}
    assert {call.metadata["worker"] for call in server.received} == {"g0c0"}


def test_binary_messages_go_out_as_they_are(server: LoadServer, out: Path, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_bytes(server.request(text="raw").SerializeToString())
    report = load(server, out, "-n", "2", "-c", "1", "-B", str(message))
    assert [call.texts for call in server.received] == [["raw"], ["raw"]]
    assert report["options"]["binary"] is True


def test_a_config_file_of_ghz_is_read_and_the_command_line_comes_before_it(
    server: LoadServer, out: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    options = {
        "call": ECHO,
        "insecure": True,
        "total": 500,
        "concurrency": 3,
        "data": {"text": "c"},
        "timeout": "5s",
    }
    config.write_text(json.dumps(options | {"host": server.address, "format": "json"}), encoding="utf-8")
    assert main(["--config", str(config), "-n", "4", "-o", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["count"] == 4
    assert report["options"]["timeout"] == 5_000_000_000
    assert {call.texts[0] for call in server.received} == {"c"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--call", f"{SERVICE}/Nothing"), "call: no method Nothing"),
        (("--call", "load.test.v1.Other/Echo"), "load.test.v1.Other"),
        (("-d", '{"texd": "a"}'), "data: not a load.test.v1.EchoRequest"),
        (("-d", '{"text": '), "data: not JSON"),
        (("-d", '{"text": "{{randomInt 5 5}}"}'), "randomInt 5 5"),
    ],
)
def test_what_does_not_fit_the_server_is_refused(
    words: tuple[str, ...], text: str, server: LoadServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--insecure", "--call", ECHO, server.address, "-n", "1", "-c", "1", *words]) == 2
    assert text in capsys.readouterr().err
    assert server.received == []


def test_a_data_error_that_shows_in_the_middle_ends_the_run(
    server: LoadServer, capsys: pytest.CaptureFixture[str]
) -> None:
    # Known only when the call is due, as it names its worker.
    data = '{"number": {{mod 1 (mod .RequestNumber 2)}}, "text": "{{.WorkerID}}"}'
    assert main(["--insecure", "--call", ECHO, server.address, "-n", "4", "-c", "2", "-d", data]) == 2
    assert "mod: the second number must not be 0" in capsys.readouterr().err


def test_a_host_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--insecure", "--call", ECHO, "--proto", str(PROTO), "--connect-timeout", "200ms", "127.0.0.1:1"]
    assert main(words) == 2
    assert "host: no connection to 127.0.0.1:1 within 200.00 ms" in capsys.readouterr().err
