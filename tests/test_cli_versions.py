"""The `agentmem` command on what was, what ends, what is deleted, and what a namespace keeps and holds."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import Cluster
from command_line import COMMAND_TIMEOUT_S, Cli, failed

from agentmem.cli import arguments, documents
from agentmem.cli.failures import CommandError
from agentmem.client import NanosecondDatetime

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_duplicates_and_ends(cli: Cli) -> None:
    first = cli.json("add", "Likes tea.", "--user-id", "ana", "--ttl", "2h")
    assert first["outcome"] == "added"
    skipped = cli("add", "Likes tea.", "--user-id", "ana", "--on-duplicate", "skip")
    assert (skipped.returncode, skipped.stdout) == (0, f"{first['id']}\n")
    assert "skipped: it was there already" in skipped.stderr
    merged = cli.json("add", "Likes tea.", "--user-id", "ana", "--on-duplicate", "merge", "--tag", "x")
    assert (merged["id"], merged["version"], merged["outcome"]) == (first["id"], 2, "merged")
    later = cli.json("update", first["id"], "--expire-time", "2999-01-01")
    assert later["expire_time"] == "2999-01-01T00:00:00Z"
    soon = cli.json("update", first["id"], "--ttl", "1.5d")
    end = datetime.fromisoformat(soon["expire_time"]) - datetime.fromisoformat(soon["update_time"])
    assert end == timedelta(days=1.5)
    assert "expire_time" not in cli.json("update", first["id"], "--clear-expire-time")


def test_the_past(shared_cluster: Cluster, cli: Cli) -> None:
    first = cli.json("add", "one", "--id", "a")
    second = cli.json("update", "a", "--content", "two")
    deleted = cli.json("delete", "a")
    shared_cluster.wait_searchable(deleted["revision"])
    revision = str(first["revision"])
    assert cli.json("get", "a", "--as-of", revision)["content"] == "one"
    assert cli.json("get", "a", "--as-of", second["update_time"])["content"] == "two"
    assert cli.json("list", "--as-of", revision)["content"] == "one"
    assert "no memory matches" in cli("list", "--as-of", "2020-01-01").stderr
    for moment, expected in ((revision, ["one"]), (second["update_time"], ["two"]), ("2020-01-01", [])):
        hits = cli.json("search", "one or two", "--as-of", moment)["hits"]
        assert [hit["memory"]["content"] for hit in hits] == expected
    failed(cli("get", "a", "--as-of", str(deleted["revision"])), 3, "no memory 'a'")
    failed(cli("get", "a", "--as-of", str(10**9)), 2, "newest revision")

    history = cli("history", "a").stdout.splitlines()
    assert history[0].split() == ["VERSION", "KIND", "REVISION", "TIME", "CONTENT"]
    assert [line.split()[:3] for line in history[1:]] == [
        ["3", "deleted", str(deleted["revision"])],
        ["2", "written", str(first["revision"] + 1)],
        ["1", "written", str(first["revision"])],
    ]
    document = cli.json("history", "a", "--limit", "2")
    assert [version["kind"] for version in document["versions"]] == ["deleted", "written"]
    assert document["versions"][1]["memory"]["content"] == "two"
    assert (document["more"], document["pruned"]) == (True, False)
    assert "there are more than 1" in cli("history", "a", "--limit", "1").stderr
    failed(cli("history", "none"), 3, "no memory 'none'")


def test_deletion_by_options_is_asked_for(shared_cluster: Cluster, cli: Cli) -> None:
    for id, user in (("a", "ana"), ("b", "ana"), ("c", "ben"), ("d", "cem")):
        cli("add", "text", "--id", id, "--user-id", user)
    shared_cluster.wait_settled()
    failed(cli("delete", "--user-id", "ana"), 2, "--yes")
    failed(cli("delete", "--user-id", "ana", "--json"), 2, "--yes")
    assert answered(cli, "n\n", "delete", "--user-id", "ana").endswith("agentmem: nothing was deleted")
    said = answered(cli, "y\n", "delete", "--user-id", "ana")
    assert f"delete 2 memories of namespace '{cli.namespace}'? [y/N]" in said
    assert said.endswith("deleted 2 memories")
    document = cli.json("delete", "--user-id", "ben", "--yes")
    assert (document["deleted_ids"], document["deleted_count"], document["receipt"]) == (["c"], 1, None)
    failed(cli("delete", "--user-id", "ben", "--yes"), 3, "no memory matches")
    failed(cli("delete", "--user-id", "", "--yes"), 2, "user_id")
    assert cli("delete", "--everything", "-y").stdout == "deleted 1 memories\n"
    failed(cli("delete", "--expected-version", "2", "d"), 3, "no memory 'd'")


def answered(cli: Cli, answer: str, *arguments: str) -> str:
    """What the command says to somebody at a terminal."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, answer.encode())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agentmem.cli", *arguments],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            env=os.environ | {"AGENTMEM_TARGET": cli.target, "AGENTMEM_NAMESPACE": cli.namespace},
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(keyboard)
    return (done.stderr + done.stdout).strip()


def test_a_purge_and_its_receipt(shared_cluster: Cluster, cli: Cli) -> None:
    cli("add", "text", "--id", "a", "--user-id", "ana")
    cli("update", "a", "--content", "other")
    purged = cli("delete", "a", "--purge")
    assert purged.stdout.startswith("purged a\nreceipt ")
    revision = purged.stdout.split()[3].removesuffix(":")
    shared_cluster.wait_searchable(int(revision))
    document = cli.json("receipt", revision)
    assert (document["receipt"]["memory_count"], document["receipt"]["version_count"]) == (1, 2)
    assert len(document["receipt"]["ids_sha256"]) == 64
    assert {node["node_id"]: node["applied"] for node in document["nodes"]} == {
        "writer": True,
        "replica-1": True,
        "replica-2": True,
    }
    shown = cli("receipt", revision).stdout
    assert "version_count  2" in shown
    assert [line.split()[0] for line in shown.splitlines()[-4:]] == [
        "NODE",
        "writer",
        "replica-1",
        "replica-2",
    ]
    failed(cli("receipt", "1"), 3, "no purge")
    failed(cli("history", "a"), 3, "no memory 'a'")


def test_stats_and_settings(shared_cluster: Cluster, cli: Cli) -> None:
    changed = cli.json(
        "namespace", "set", "--max-versions", "3", "--max-version-age", "7d", "--vector-precision", "float16"
    )
    assert changed == {
        "max_versions": 3,
        "max_version_age_s": 604800.0,
        "vector_precision": "float16",
        "embedder": None,
    }
    cleared = cli("namespace", "set", "--max-version-age", "never").stdout
    assert [line.split() for line in cleared.splitlines()] == [
        ["max_versions", "3"],
        ["max_version_age_s", "-"],
        ["vector_precision", "float16"],
        ["embedder", "-"],
    ]
    cli("add", "text")
    shared_cluster.wait_settled()
    assert cli("namespace", "show").stdout == cleared
    document = cli.json("stats")
    assert document["namespace"]["memories"] == document["namespace"]["versions"] == 1
    assert document["namespace"]["max_versions"] == 3
    assert document["store"]["log_last_revision"] == document["applied_revision"]
    shown = {line.split()[0] for line in cli("stats").stdout.splitlines()}
    assert shown == document["namespace"].keys() | document["store"].keys()
    failed(cli("namespace", "set"), 2, "nothing to change")
    document = cli.json("stats", "--breakdown")
    assert document["breakdown"]["types"] == {"episodic": 1}
    assert document["breakdown"]["users"] == {"distinct": 0, "largest": {}}
    assert document["breakdown"]["oldest_event_time"] == document["breakdown"]["newest_event_time"]
    assert document["indexes"]["facet_rows"] == 1
    assert document["indexes"].keys() >= {"search_staleness_s", "text_bytes", "segment_rows"}
    lines = cli("stats", "--breakdown").stdout.splitlines()
    shown = {line.split()[0] for line in lines if line}
    assert shown >= document["breakdown"].keys() - {"types"} | document["indexes"].keys()
    assert lines[lines.index("MEMORIES  TYPE") + 1].split() == ["1", "episodic"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604800), ("0.5h", 1800)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert arguments.parse_duration(text, "--ttl") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5w", "-5s", "0s", "5 s", "1e3s", "99999999999999d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(CommandError, match=r"--ttl: .* is not a length of time like 90s"):
        arguments.parse_duration(text, "--ttl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("0", 0),
        ("2024", 2024),
        ("2024-05-01T12:00:00", NOON),
        ("2024-05-01T14:00:00+02:00", NOON),
    ],
)
def test_as_of(text: str | None, expected: Any) -> None:
    assert arguments.as_of(text) == expected


@pytest.mark.parametrize("text", ["", "now", "-1", "99999999999999999999"])
def test_what_is_no_point_in_the_past(text: str) -> None:
    with pytest.raises(CommandError, match="--as-of"):
        arguments.as_of(text)


@pytest.mark.parametrize(
    ("text", "micro", "nano"),
    [
        ("2024-05-01T12:00:00Z", 0, 0),
        ("2024-05-01T12:00:00.250000Z", 250_000, 0),
        ("2024-05-01T12:00:00.123456789Z", 123_456, 789),
        ("2024-05-01T12:00:00.000000001Z", 0, 1),
    ],
)
def test_times_are_read_and_written_to_the_nanosecond(text: str, micro: int, nano: int) -> None:
    moment = arguments.parse_time(text, "time")
    assert moment == NOON.replace(microsecond=micro)
    assert (moment.nanosecond if isinstance(moment, NanosecondDatetime) else 0) == nano
    assert documents.timestamp(moment) == text
