"""The `agentmem` command against a real cluster: what it prints, where, and its exit codes."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from command_line import COMMAND_TIMEOUT_S, Cli, failed

from agentmem.cli import documents
from agentmem.cli.main import run
from agentmem.client import InvalidArgument


def jsonl(lines: Sequence[Any]) -> str:
    return "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def test_add_get_update_delete_as_text(cli: Cli) -> None:
    added = cli(
        "add", "Ana moved to Porto.", "--id", "m1", "--user-id", "ana", "--tag", "home", "--meta", "rooms=3"
    )
    assert (added.returncode, added.stdout) == (0, "m1\n")
    got = cli("get", "m1").stdout
    assert "user_id" in got
    assert '{"rooms": 3}' in got
    assert got.endswith("\n\nAna moved to Porto.\n")
    assert cli("update", "m1", "--content", "Ana moved to Lisbon.").stdout == "m1 is at version 2\n"
    listed = cli("list").stdout
    assert "Ana moved to Lisbon." in listed
    assert len(listed.splitlines()) == 1
    deleted = cli("delete", "m1", "m2")
    assert (deleted.returncode, deleted.stdout) == (0, "deleted m1\n")
    assert "no memory 'm2'" in deleted.stderr
    failed(cli("get", "m1"), 3, "no memory 'm1'")
    failed(cli("delete", "m1"), 3, "no memory 'm1'")
    failed(cli("update", "m1", "--content", "x"), 3, "m1")


def test_add_as_json_keeps_every_field(cli: Cli) -> None:
    options = (
        *("--id", "m1", "--type", "semantic", "--user-id", "ana", "--agent-id", "a", "--session-id", "s"),
        *("--importance", "0.5", "--tag", "x", "--tag", "y", "--event-time", "2024-05-01T10:00:00+02:00"),
        *("--meta", "n=1.5", "--meta", "flag=true", "--meta", 'list=["p", 2]', "--meta", "text=a=b"),
    )
    added = cli.json("add", "-", *options, stdin="喜欢绿茶\n")
    assert (added["id"], added["version"]) == ("m1", 1)
    memory = cli.json("get", "m1")
    for name in ("create_time", "update_time", "embedding_model"):
        memory.pop(name)
    assert memory == {
        "id": "m1",
        "namespace": cli.namespace,
        "content": "喜欢绿茶",
        "type": "semantic",
        "user_id": "ana",
        "agent_id": "a",
        "session_id": "s",
        "importance": 0.5,
        "tags": ["x", "y"],
        "metadata": {"n": 1.5, "flag": True, "list": ["p", 2], "text": "a=b"},
        "event_time": "2024-05-01T08:00:00Z",
        "version": 1,
    }
    updated = cli.json("update", "m1", "--clear-tags", "--clear-meta", "--expected-version", "1")
    assert (updated["tags"], updated["metadata"], updated["version"]) == ([], {}, 2)
    failed(cli("update", "m1", "--importance", "1", "--expected-version", "1"), 1, "version 2")


def test_search_and_list_take_the_same_filters(cli: Cli, shared_cluster: Cluster) -> None:
    memories = [
        {"id": "a", "content": "green tea", "user_id": "ana", "event_time": "2024-05-01T23:30:00Z"},
        {"id": "b", "content": "black tea", "user_id": "ben", "event_time": "2024-05-02T00:00:00Z"},
        {"id": "c", "content": "tea with milk", "user_id": "ana", "type": "semantic", "tags": ["x", "y"]},
    ]
    imported = cli.json("import", "-", stdin=jsonl(memories))
    assert imported["imported"] == 3
    shared_cluster.wait_searchable(imported["revision"])
    cases: list[tuple[list[str], set[str]]] = [
        ([], {"a", "b", "c"}),
        (["--user-id", "ana"], {"a", "c"}),
        (["--until", "2024-05-01"], {"a"}),
        (["--since", "2024-05-01", "--until", "2024-05-02T00:00:00"], {"a", "b"}),
        (["--type", "semantic", "--type", "working"], {"c"}),
        (["--tag", "x", "--tag", "y"], {"c"}),
        (["--tag", "x", "--user-id", "ben"], set()),
    ]
    for options, expected in cases:
        hits = cli.json("search", "tea", "--mode", "text", *options)["hits"]
        assert {hit["memory"]["id"] for hit in hits} == expected, options
        lines = cli("list", "--json", *options).stdout.splitlines()
        assert {json.loads(line)["id"] for line in lines} == expected, options
    for words, options, expected in (
        ("grean tea", ["--mode", "fuzzy", "--max-edits", "0"], {"a", "b", "c"}),
        ("grean", ["--mode", "fuzzy"], {"a"}),
        ("bl", ["--mode", "fuzzy", "--prefix"], {"b"}),
        ("tea with", ["--mode", "exact"], {"c"}),
    ):
        hits = cli.json("search", words, *options)["hits"]
        assert {hit["memory"]["id"] for hit in hits} == expected, (words, options)
    failed(cli("search", "tea", "--prefix"), 2, "fuzziness")
    shown = cli("search", "green tea", "-k", "1").stdout
    assert "2024-05-01 23:30  ana  a  green tea" in shown
    nothing = cli("list", "--user-id", "nobody")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no memory matches" in nothing.stderr


def test_import_stops_at_a_bad_line(cli: Cli, tmp_path: Path) -> None:
    good = [{"id": f"m{number:04}", "content": f"memory {number}"} for number in range(1, 1201)]
    bad_lines = {
        "{\n": ["line 701", "not JSON"],
        '{"content": "x", "colour": "red"}\n': ["line 701", "colour: no such field"],
        # Only the server knows this one.
        '{"content": "x", "importance": 2}\n': ["line 701", "importance"],
    }
    for number, (bad, parts) in enumerate(bad_lines.items()):
        namespace = f"{cli.namespace}-{number}"
        lines = jsonl([*good[:699], "\n", bad, *good[700:]])
        failed(
            cli("import", "-", "-n", namespace, stdin=lines),
            2,
            *parts,
            "699 memories were imported before it",
        )
        assert len(cli("list", "-n", namespace, "--limit", "0", "--json").stdout.splitlines()) == 699
    failed(cli("import", "-", stdin=b"\xff\n"), 2, "line 1", "0 memories were imported")
    failed(cli("import", str(tmp_path / "none.jsonl")), 2, "none.jsonl", "No such file")
    failed(cli("import", str(tmp_path)), 2, "Is a directory")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ([], "must be a JSON object"),
        ({"id": "x"}, "content: missing"),
        ({"content": ""}, "content: missing or empty"),
        ({"content": "x", "event_time": "noon"}, "event_time: 'noon'"),
        ({"content": "x", "event_time": 3}, "event_time: 3"),
        ({"content": "x", "event_time": "0001-01-01T00:00:00+05:00"}, "event_time"),
        ({"content": "x", "metadata": {"a": None}}, "metadata.a"),
        ({"content": "x", "metadata": ["a"]}, "metadata"),
        ({"content": "x", "tags": "a"}, "tags"),
        ({"content": "x", "type": "fish"}, "type"),
        ({"content": "x", "importance": "high"}, "importance"),
        ({"content": "x", "embedding": [1, "a"]}, "embedding"),
    ],
)
def test_a_document_that_is_no_memory_names_the_field(document: Any, part: str) -> None:
    with pytest.raises((ValueError, InvalidArgument)) as caught:
        documents.to_memory(document)
    assert part in str(caught.value)


def test_a_list_can_be_imported_again(cli: Cli, tmp_path: Path) -> None:
    cli("add", "Likes tea.", "--id", "m1", "--user-id", "ana", "--meta", "cups=2", "--importance", "0.25")
    cli("add", "Likes milk.", "--id", "m2", "--tag", "x", "--type", "working")
    listed = cli("list", "--json", "--with-embedding").stdout
    file = tmp_path / "memories.jsonl"
    file.write_text(listed)
    copy = f"{cli.namespace}-copy"
    assert cli("import", str(file), "-n", copy).stdout == f"imported 2 memories into {copy}\n"
    copied = cli("list", "--json", "--with-embedding", "-n", copy).stdout
    for before, after in zip(listed.splitlines(), copied.splitlines(), strict=True):
        expected, got = json.loads(before), json.loads(after)
        assert got.pop("embedding") == pytest.approx(expected.pop("embedding"), abs=1e-3)
        for name in ("namespace", "create_time", "update_time"):
            expected.pop(name), got.pop(name)
        assert got == expected
    failed(cli("import", str(file), "-n", copy), 1, "line 1", "'m1' exists already")


def test_status_shows_every_node(cli: Cli) -> None:
    lines = cli("status").stdout.splitlines()
    assert lines[0].split() == ["NODE", "ROLE", "ADDRESS", "STATE", "REVISION", "LAG", "SECONDS"]
    assert lines[1].split()[:4] == ["writer", "writer", cli.target, "serving"]
    assert lines[1].split()[-2:] == ["-", "-"]
    assert [line.split()[:2] for line in lines[2:4]] == [["replica-1", "replica"], ["replica-2", "replica"]]
    assert lines[4:] == ["epoch 1"]
    document = cli.json("status")
    assert document["epoch"] == 1
    nodes = document["nodes"]
    assert nodes[0]["staleness_s"] is None
    assert all(0 <= node["staleness_s"] < 60 for node in nodes[1:])
    assert [node["role"] for node in nodes] == ["writer", "replica", "replica"]
    assert nodes[0]["lag_revisions"] == 0
    for node in nodes:
        assert (node["epoch"], node["known_epoch"], node["set_aside_entries"]) == (1, 1, 0)
        assert 0 < node["store_used_bytes"] <= node["store_max_bytes"]
        assert 0 < node["anonymous_memory_bytes"] < node["memory_bytes"]
        assert node["connections"] > 0
        assert (node["index_bytes"] is None) is (node["role"] == "writer")


def test_reads_say_how_new_and_writes_how_far(cli: Cli, tmp_path: Path) -> None:
    added = cli.json("add", "green tea", "--id", "m1", "--ack", "applied:2")
    assert added["acknowledged"] == {"reached": True, "replicated": 2, "applied": 2}
    assert added["epoch"] == 1
    bound = f"at-least={added['revision']},max-staleness=5m"
    for how in ("strong", bound):
        found = cli.json("search", "tea", "--consistency", how)
        assert [hit["memory"]["id"] for hit in found["hits"]] == ["m1"]
        assert (found["epoch"], found["applied_revision"] >= added["revision"]) == (1, True)
    updated = cli.json("update", "m1", "--content", "black tea", "--ack", "local")
    assert (updated["acknowledged"], updated["epoch"]) == (None, 1)
    later = f"at-least={updated['revision']}"
    assert json.loads(cli("list", "--json", "--consistency", "strong").stdout)["content"] == "black tea"
    history = cli.json("history", "m1", "--consistency", "strong")
    assert (len(history["versions"]), history["epoch"]) == (2, 1)
    stats = cli.json("stats", "--consistency", later)
    assert (stats["namespace"]["versions"], stats["epoch"]) == (2, 1)
    file = tmp_path / "export.jsonl"
    assert cli.json("export", str(file), "--consistency", later) == {"exported": 2}
    imported = cli.json("import", str(file), "-n", f"{cli.namespace}-2", "--ack", "replicated")
    assert imported["acknowledged"]["reached"] is True
    # There are two replicas; the command does not wait for a third longer than it has time.
    late = cli("delete", "m1", "--ack", "replicated:3", "--timeout-s", "2")
    assert (late.returncode, late.stdout) == (0, "deleted m1\n")
    assert "2 replicas have it" in late.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["frobnicate"], "No such command"),
        (["add"], "content"),
        (["add", "x", "-n", ""], "-n NAME"),
        (["add", "x", "--type", "fish"], "episodic"),
        (["add", "x", "--importance", "3"], "importance"),
        (["add", "x", "--meta", "novalue"], "key=value"),
        (["add", "x", "--event-time", "noon"], "--event-time"),
        (["add", ""], "content"),
        (["update", "m1"], "nothing to change"),
        (["update", "m1", "--ttl", "1h", "--clear-expire-time"], "--clear-expire-time"),
        (["add", "x", "--ttl", "1h", "--expire-time", "2999-01-01"], "--ttl"),
        (["add", "x", "--ttl", "5"], "--ttl"),
        (["add", "x", "--expire-time", "2020-01-01"], "expire_time"),
        (["add", "x", "--on-duplicate", "drop"], "merge"),
        (["get", "m1", "--as-of", "yesterday"], "--as-of"),
        (["search", "tea", "--as-of", "yesterday"], "--as-of"),
        (["get", "m1", "--consistency", "strongest"], "at-least=REVISION"),
        (["list", "--consistency", "at-least=x"], "--consistency"),
        (["search", "tea", "--consistency", "max-staleness=5"], "max-staleness"),
        (["stats", "--consistency", "strong=1"], "--consistency"),
        (["add", "x", "--ack", "everywhere"], "replicated:N"),
        (["delete", "m1", "--ack", "applied:0"], "--ack"),
        (["update", "m1", "--content", "x", "--ack", "replicated:101"], "--ack"),
        (["delete"], "delete what?"),
        (["delete", "m1", "--everything"], "delete what?"),
        (["delete", "m1", "--user-id", "ana"], "delete what?"),
        (["delete", "m1", "m2", "--expected-version", "1"], "--expected-version"),
        (["receipt", "0"], "revision"),
        (["namespace", "set"], "nothing to change"),
        (["namespace", "set", "--max-version-age", "7"], "--max-version-age"),
        (["namespace", "set", "--vector-precision", "float8"], "float16"),
        (["list", "--since", "yesterday"], "--since"),
        (["list", "--user-id", ""], "user_id"),
        (["search", "x", "--top-k", "0"], "--top-k"),
        (["search", "x", "--timeout-s", "0"], "--timeout-s"),
        (["status", "--target", "nowhere"], "host:port"),
        (["status", "--target", ","], "--target"),
        (["scale", "1000"], "0 to 64"),
    ],
)
def test_input_that_can_never_work(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["agentmem", *arguments])
    monkeypatch.setenv("AGENTMEM_TARGET", cli.target)
    monkeypatch.setenv("AGENTMEM_NAMESPACE", cli.namespace)
    with pytest.raises(SystemExit) as exit:
        run()
    assert exit.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert part in captured.err


def test_a_cluster_that_is_not_there() -> None:
    cli = Cli("127.0.0.1:1", "n")
    for command in (["status"], ["add", "x"], ["search", "x"]):
        failed(cli(*command), 4, "cannot reach 127.0.0.1:1", "agentmem up")


def test_a_reader_that_goes_away_is_no_error(cli: Cli) -> None:
    assert cli.json("import", "-", stdin=jsonl([{"content": "x" * 1000}] * 500))["imported"] == 500
    for option in ("--json", "--limit=500"):
        command = [
            sys.executable,
            "-m",
            "agentmem.cli",
            "list",
            "--target",
            cli.target,
            "-n",
            cli.namespace,
            option,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            process.wait(COMMAND_TIMEOUT_S)


def test_characters_that_mislead_are_shown_as_escapes(cli: Cli) -> None:
    misleading = set("\x1b\x07\r\x9b\u202e\u2066\u200b\U000e0041")
    bad = "\x9b31m\u202eana\u2066\u200b\U000e0041"
    content = f"red \x1b[31m alert\x07\r {bad} \N{WOMAN}\u200d\N{ROCKET} \u05d0\u200f"
    cli(
        "add",
        content,
        "--id",
        bad,
        "--user-id",
        bad,
        "--tag",
        bad,
        "--meta",
        f"{bad}={bad}",
        "--meta",
        f"x={bad}",
    )
    cli("update", bad, "--content", content + " again")
    cli("add", "gone", "--id", bad + "2")
    cli("delete", bad + "2")
    commands = [
        *(
            ["get", bad],
            ["list"],
            ["search", "alert", "--explain", "--consistency", "strong"],
            ["history", bad],
        ),
        *(["stats", "--breakdown"], ["watch", "--after", "0", "--limit", "4"], ["get", bad + "2"]),
        ["delete", bad],
    ]
    for command in commands:
        for output in ("--timeout-s=20", "--json"):
            done = cli(*command, output)
            found = done.stdout + done.stderr
            assert not misleading & set(found), command
            if output != "--json" and command[0] != "delete":
                assert "\\x9b31m\\u202eana\\u2066\\u200b\\U000e0041" in found
            if command == ["get", bad] and output == "--json":
                memory = json.loads(done.stdout)
                assert memory["content"] == content + " again"
                assert memory["metadata"] == {bad: bad, "x": bad}
            elif command == ["get", bad]:
                assert "alert\\x07\\x0d" in found
                # What scripts and emoji are written with is not touched.
                assert "\N{WOMAN}\u200d\N{ROCKET} \u05d0\u200f" in found


def test_an_explanation_fits_80_columns(cli: Cli) -> None:
    for content in ("Ana drinks green tea", "Ben drinks black tea", "Ana sails"):
        assert cli("add", content, "--user-id", "ana", "--session-id", "s1").returncode == 0
    options = ("--consistency", "strong", "--recency", "0.5", "--importance", "0.5")
    done = cli("search", "who drinks tea?", "--explain", *options)
    assert done.returncode == 0, done.stderr
    hits, how, steps, signals = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert len(hits) == 3
    assert [line.split()[:2] for line in how] == [
        ["mode", "hybrid"],
        ["matching", "3"],
        ["looked", "for"],
        ["embedded", "by"],
    ]
    assert "drink tea" in how[2]
    assert steps[0].split() == ["STEP", "MS", "MEMORIES", "PLAN"]
    names = ["COSINE", "BM25", "VECTOR", "TEXT", "RECENCY", "IMPORTANCE", "SESSION"]
    assert signals[0].split() == ["HIT", "SCORE", *names]
    assert [line.split()[0] for line in signals[1:]] == ["1", "2", "3"]
    # The last column of the steps is wrapped where there is a terminal.
    assert max(map(len, (*how, *signals))) <= 80
    # Only what the search has.
    words = cli("search", "tea", "--explain", "--mode", "text", "--consistency", "strong").stdout
    assert words.split("\n\n")[-1].splitlines()[0].split() == ["HIT", "SCORE", "BM25"]
    assert "embedded by" not in words


def test_on_a_narrow_terminal_the_content_goes_below_the_other_columns(cli: Cli) -> None:
    content = "Ana " + "likes to drink green tea in the garden " * 3
    id = cli("add", content.strip(), "--user-id", "ana").stdout.strip()
    assert len(id) == 36
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "agentmem.cli",
                "search",
                "tea",
                "-n",
                cli.namespace,
                "--target",
                cli.target,
                "--consistency=strong",
            ],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            timeout=COMMAND_TIMEOUT_S,
            env=os.environ | {"COLUMNS": "80", "TERM": "xterm"},
            check=True,
        )
        lines = os.read(master, 65536).decode().splitlines()
    finally:
        os.close(slave)
        os.close(master)
    assert lines[0].split()[-2:] == ["ana", id]
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("    ") for line in lines[1:])
    assert " ".join(" ".join(lines[1:]).split()) == content.strip()


def test_help_names_the_exit_codes(cli: Cli) -> None:
    assert "Exit codes" in cli("--help").stdout
    assert "--timeout-s" in cli("search", "--help").stdout
