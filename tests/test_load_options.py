"""What the load generator is told: options, config files, schedules, and the templates of its payloads."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from itertools import islice, takewhile
from pathlib import Path

import pytest
from load_server import PROTO, SERVICE

from agentmem.bench.__main__ import main as bench
from agentmem.bench.load.arguments import read_options
from agentmem.bench.load.descriptors import compile_proto, find_method
from agentmem.bench.load.durations import parse_duration_ns, show_duration
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.payloads import Payloads
from agentmem.bench.load.schedules import Ramp, due_times_ns
from agentmem.bench.load.templates import Call, Template

ROOT = Path(__file__).parent.parent
SECOND_NS = 10**9
WORDS = ("--call", "a.B/C", "--insecure", "localhost:1")
KEYS = json.loads((Path(__file__).parent / "data" / "ghz_report_keys.json").read_text(encoding="utf-8"))


def test_a_const_schedule_is_due_in_even_steps() -> None:
    assert list(islice(due_times_ns(Ramp("const", 4), 0, 1), 5)) == [
        0,
        250_000_000,
        500_000_000,
        750_000_000,
        SECOND_NS,
    ]
    # Nothing drifts: after a day the request is due at its second.
    assert next(due_times_ns(Ramp("const", 3), 3 * 86_400, 1)) == 86_400 * SECOND_NS


@pytest.mark.parametrize(
    ("ramp", "per_second"),
    [
        (Ramp("step", 10, 5, 20, SECOND_NS), [10, 15, 20, 20, 20]),
        (Ramp("step", 10, 7, 20, SECOND_NS), [10, 17, 20, 20]),
        (Ramp("step", 20, -5, 10, 2 * SECOND_NS), [20, 20, 15, 15, 10, 10, 10]),
        (Ramp("line", 5, 5), [5, 10, 15, 20, 25]),
        (Ramp("line", 5, 5, 0, 0, 2 * SECOND_NS), [5, 10, 15, 15]),
        (Ramp("line", 5, 5, 40, 0, 2 * SECOND_NS), [5, 10, 40, 40]),
        (Ramp("line", 10, -4), [10, 6, 2, 0, 0]),
    ],
)
def test_a_schedule_has_its_rate_in_each_second(ramp: Ramp, per_second: list[int]) -> None:
    end_ns = len(per_second) * SECOND_NS
    due = list(takewhile(lambda due_ns: due_ns < end_ns, due_times_ns(ramp, 0, 1)))
    assert [
        sum(due_ns // SECOND_NS == second for due_ns in due) for second in range(len(per_second))
    ] == per_second
    # Processes that share the schedule do neither more nor less.
    shared = [takewhile(lambda due_ns: due_ns < end_ns, due_times_ns(ramp, part, 3)) for part in range(3)]
    assert sorted(due_ns for part in shared for due_ns in part) == due


def call(number: int = 7) -> Call:
    method = find_method(compile_proto(str(PROTO), []), f"{SERVICE}/Repeat")
    return Call(method, number, "g1c0", random.Random(1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.RequestNumber}} {{ .WorkerID }}", "7 g1c0"),
        ("{{.FullyQualifiedName}}", "load.test.v1.EchoService.Repeat"),
        ("{{.ServiceName}}.{{.MethodName}}", "EchoService.Repeat"),
        ("{{.InputName}} {{.OutputName}}", "EchoRequest EchoResponse"),
        ("{{.IsClientStreaming}} {{.IsServerStreaming}}", "false true"),
        ("{{mod .RequestNumber 4}}", "3"),
        ("{{add 1 (mod .RequestNumber 4) -2}}", "2"),
        ("no action", "no action"),
    ],
)
def test_actions_are_filled_in(text: str, shown: str) -> None:
    assert Template(text, "data").render(call()) == shown


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{{newUUID}}", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
        ("{{.UUID}}", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
        ("{{randomString 3 5}}", r"[a-zA-Z0-9]{3,5}"),
        ("{{randomString}}", r"[a-zA-Z0-9]{2,16}"),
        ("{{randomInt 0 10}}", r"[0-9]"),
        ("{{.Timestamp}}", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"),
        ("{{.TimestampUnixNano}}", r"\d{19}"),
    ],
)
def test_actions_that_vary_have_their_form(text: str, pattern: str) -> None:
    template = Template(text, "data")
    for number in range(50):
        assert re.fullmatch(pattern, template.render(call(number)))
    assert not template.constant


def test_a_uuid_is_that_of_its_call_or_new() -> None:
    of_call, new = Template("{{.UUID}}", "data"), Template("{{newUUID}}", "data")
    one, other = call(), call()
    assert of_call.render(one) == of_call.render(one) != of_call.render(other)
    assert new.render(one) != new.render(one)


def test_what_is_random_comes_from_the_seed() -> None:
    template = Template("{{randomString 8 16}} {{randomInt 0 1000000}}", "data")
    assert template.render(call()) == template.render(call())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab {{.Request}}", "data: position 3: {{.Request}}: no variable .Request"),
        ("{{exec 1}}", "data: position 0: {{exec 1}}: no function exec"),
        ("{{}}", "the action is empty"),
        ("{{randomInt 1}}", "randomInt takes 0 or 2 numbers, not 1"),
        ("{{.UUID | upper}}", "'| upper' is not understood"),
        ("{{.UUID 3}}", "'3' is too much"),
        ("{{mod (add 1 2 3}}", "( without )"),
        ('{"a": "{{.UUID"}', "data: position 7: {{ without }}"),
        ('{{printf "%d" 3}}', "is not understood"),
    ],
)
def test_actions_that_are_not_known_are_refused_with_their_position(text: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        Template(text, "data")
    assert message in str(caught.value)


def test_payloads_built_ahead_are_those_built_late() -> None:
    method = find_method(compile_proto(str(PROTO), []), f"{SERVICE}/Echo")
    data = '{"number": {{.RequestNumber}}, "text": "{{randomString 8 16}}"}'
    ahead, late = Payloads(method, data, b"", 4), Payloads(method, data, b"", 4)
    ahead.build(range(20))
    assert [ahead.of(number, "w") for number in range(20)] == [late.of(number, "w") for number in range(20)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-n", "0"), "total: must be at least 1, not 0"),
        (("-n", "10", "-c", "20"), "total: 10 requests are fewer than the concurrency of 20"),
        (("-c", "20000"), "concurrency: must be from 1 to 10000"),
        (("-z", "10"), "duration: '10' is not a duration"),
        (("-z", "1s", "-x", "1s"), "max-duration: give duration or max-duration, not both"),
        (("-t", "soon"), "timeout: 'soon' is not a duration"),
        (("-O", "xml"), "format: 'xml' is none of"),
        (("--duration-stop", "hard"), "duration-stop: 'hard' is none of close, wait, ignore"),
        (("--async",), "async: needs rps or load-schedule"),
        (("--load-schedule", "curve"), "load-schedule: 'curve' is none of const, step, line"),
        (("--load-start", "5"), "load-start: belongs to load-schedule step or line"),
        (("--load-schedule", "line", "--load-step", "5"), "load-start: must be at least 1"),
        (("--load-schedule", "line", "--load-start", "5"), "load-step: must not be 0"),
        (
            ("--load-schedule", "step", "--load-start", "5", "--load-step", "1"),
            "load-step-duration: must be more",
        ),
        (
            ("--load-schedule", "line", "--load-start", "5", "--load-step", "1", "--load-end", "2"),
            "load-end: 2 is not",
        ),
        (
            ("--concurrency-schedule", "line", "--concurrency-start", "1", "--concurrency-step", "1"),
            "concurrency-end",
        ),
        (
            ("--rps", "5", "--load-schedule", "line", "--load-start", "1", "--load-step", "1"),
            "rps: give rps or",
        ),
        (("--processes", "3", "--connections", "2"), "connections: 2 are fewer than the 3 processes"),
        (("--processes", "3", "-c", "2"), "processes: 3 are more than the concurrency of 2"),
        (("-m", "[]"), "metadata: not an object of texts"),
        (("-m", "{"), "metadata: not JSON"),
        (("-d", "{}", "-D", "file"), "data-file: give data or data-file, not both"),
        (("-D", "/nowhere"), "data-file: "),
        (("--cert", "a"), "cert: cert and key belong together"),
        (("--config", "/nowhere"), "config: /nowhere"),
        (("--call", ""), "call: say which method"),
        (("-o", "/nowhere/x"), "output: no folder /nowhere"),
    ],
)
def test_bad_options_are_refused_by_name(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(["load", *WORDS, *words]) == 2
    assert message in capsys.readouterr().err


def test_words_that_are_no_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench(["load", *WORDS, "--skipTLS"])
    assert caught.value.code == 2
    assert "--skipTLS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"totl": 5}, "no option totl"),
        ({"skipTLS": True}, "skipTLS is not supported"),
        ({"total": "5"}, "total: '5' is not a whole number"),
        ({"insecure": "yes"}, "insecure: 'yes' is not true or false"),
        ({"name": 5}, "name: 5 is not a text"),
        ([], "not an object"),
    ],
)
def test_bad_config_files_are_refused(config: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LoadError) as caught:
        read_options([*WORDS[:2], "localhost:1", "--config", str(path)])
    assert message in str(caught.value)


def test_config_files_may_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('max-duration = "1m30s"\nskipFirst = 3\n[data]\ntext = "a"\n', encoding="utf-8")
    options = read_options([*WORDS, "--config", str(path)])
    assert (options.max_duration_ns, options.skip_first) == (90 * SECOND_NS, 3)
    assert json.loads(options.data) == {"text": "a"}


def test_defaults_are_those_of_ghz() -> None:
    options = read_options(WORDS)
    assert (options.total, options.concurrency, options.load) == (200, Ramp("const", 50), None)
    assert (options.timeout_ns, options.connect_timeout_ns) == (20 * SECOND_NS, 10 * SECOND_NS)
    assert (options.connections, options.duration_stop, options.format) == (1, "close", "summary")
    assert read_options([*WORDS, "-z", "1s"]).total is None


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [("10s", 10 * SECOND_NS), ("1m30s", 90 * SECOND_NS), ("1.5ms", 1_500_000), ("0", 0)],
)
def test_durations_are_read_as_go_does(text: str, duration_ns: int) -> None:
    assert parse_duration_ns(text, "duration") == duration_ns


def test_durations_are_shown_in_the_unit_that_fits() -> None:
    assert [show_duration(value) for value in (900, 1_500_000, 2_345_000_000)] == [
        "900 ns",
        "1.50 ms",
        "2.35 s",
    ]


@cache
def compiled_api(name: str) -> bytes:
    return compile_proto(str(ROOT / "protos" / "agentmem" / "v1" / name), [str(ROOT / "protos")])


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "ghz").glob("*.json")), ids=lambda path: path.stem)
def test_the_configs_of_the_main_calls_fit_the_api(path: Path) -> None:
    options = read_options(["--config", str(path)])
    service = options.call.split("/")[0].rpartition(".")[2]
    compiled = compiled_api(f"{service.removesuffix('Service').lower()}.proto")
    payloads = Payloads(find_method(compiled, options.call), options.data, b"", options.seed)
    assert all(payloads.of(number, "g0c0") is not None for number in range(20))
    assert options.name == path.stem
    # The same file is for ghz.
    assert set(json.loads(path.read_text(encoding="utf-8"))) <= {*KEYS["options"], "timeout"}
