"""`agentmem watch` against a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from cluster import Cluster
from command_line import COMMAND_TIMEOUT_S, Cli, failed

from agentmem.client import Client, NewMemory, WatchPosition, id_digest


def test_changes_are_printed_for_people_and_programs(
    cli: Cli, client: Client, shared_cluster: Cluster
) -> None:
    namespace = cli.namespace
    revision = client.add(namespace, "green\ntea", id="a", user_id="ana").revision
    client.update(namespace, "a", user_id="ben")
    client.add_many(namespace, [NewMemory("rum", id="b", user_id="ben"), NewMemory("ale", id="c")])
    client.delete(namespace, ["b"])
    client.delete(namespace, ["c"], purge=True)
    shared_cluster.wait_settled()
    before = str(revision - 1)
    done = cli("watch", "--after", before, "--limit", "5")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["added", "updated", "added", "deleted", "purged"]
    assert lines[0].endswith("v1    a  ana  green tea")
    assert lines[4].endswith(f"digest {id_digest(namespace, 'c').hex()}")
    assert {line[9:11] for line in lines[:4]} == {"20"}  # the century, in one column
    token = done.stderr.split()[-1]
    assert done.stderr == f"go on with --after {token}\n"
    # One document for each, and from its position on there are the others.
    documents = _json_lines(cli("watch", "--after", before, "--limit", "5", "--json").stdout)
    assert documents[-1]["position"] == token
    assert documents[0]["memory"] == cli.json("get", "a", "--as-of", str(revision))
    assert documents[1] | {"memory": None, "position": ""} == {
        "kind": "updated",
        "revision": revision + 1,
        "position": "",
        "matches": True,
        "memory": None,
    }
    assert set(documents[3]["memory"]) == {"id", "namespace", "version", "update_time"}
    assert documents[4]["id_digest"] == id_digest(namespace, "c").hex()
    rest = cli("watch", "--after", documents[1]["position"], "--limit", "3", "--json").stdout
    assert _json_lines(rest) == documents[2:]
    # Narrowed: the update that left is there, and the purge always is.
    hers = cli("watch", "--after", before, "--user-id", "ana", "--limit", "3").stdout.splitlines()
    assert [line.split()[0] for line in hers] == ["added", "updated", "purged"]
    assert "(matches no longer)" in hers[1]


def _json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_it_prints_at_once_and_ends_with_an_interrupt(cli: Cli, client: Client) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agentmem.cli", "watch", "--json", "--after", "0", "--skip-pruned"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"AGENTMEM_TARGET": cli.target, "AGENTMEM_NAMESPACE": cli.namespace},
    ) as process:
        assert process.stdout is not None
        for memory_id in ("a", "b"):
            client.add(cli.namespace, "tea", id=memory_id)
            document = json.loads(process.stdout.readline())
            assert document["memory"]["id"] == memory_id
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
        assert process.returncode == 0
        assert WatchPosition.from_token(err.split()[-1]).revision >= document["revision"]
        assert "Traceback" not in err


def test_what_cannot_be_is_refused(cli: Cli) -> None:
    failed(cli("watch", "--after", "hello"), 2, "after")
    failed(cli("watch", "--after", str(2**60)), 2, "after.revision")
    failed(cli("watch", "--since", "never"), 2, "--since")
