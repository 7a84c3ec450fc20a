"""`agentmem export`, `import` of an export, and `backup`."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Stubs, wait_until
from command_line import Cli, failed

from agentmem.cli import exporting
from agentmem.client import Client, InvalidArgument, NewMemory, VersionKind
from agentmem.v1 import memory_pb2, writer_pb2

HEADER = '{"agentmem_export": 1}\n'


@pytest.fixture(scope="module")
def other_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("other"), replicas=1) as cluster:
        yield cluster


def fill(cluster: Cluster, namespace: str) -> None:
    """Memories of every kind, with a history, deletions, an end, and times that only the API can say."""
    kinds: dict[str, Any] = {
        "text": "Größe “x”\u2028\n\t\x01",
        "whole": 3,
        "half": 0.5,
        "huge": 1e300,
        "tiny": 5e-324,
        "minus zero": -0.0,
        "exact": 2**53,
        "yes": True,
        "no": False,
        "list": ["a", 1, 2.5, True, ""],
        "empty list": [],
        "empty": "",
    }
    with Client(cluster.writer.address, timeout_s=30) as client:
        client.add(
            namespace,
            "喜欢绿茶\r\nand \x7f more",
            id="all fields",
            type="procedural",
            user_id="ana",
            agent_id="agent",
            session_id="s",
            importance=0.1,
            tags=["b", "a"],
            metadata=kinds,
            embedding=[0.1, -0.7, 3e-5],
            event_time=datetime(1, 1, 1, tzinfo=UTC),
            expire_time=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        )
        client.update(namespace, "all fields", content="changed", tags=[], embedding=[1, 2, 3])
        client.update(namespace, "all fields", metadata={}, expire_time=None)
        client.add(namespace, "deleted", id="b", embedding=[0, 1, 0])
        client.delete(namespace, "b")
        client.add(namespace, "back again", id="b", embedding=[0, 1, 0])
        client.add(namespace, "no more", id="c", embedding=[0, 0, 1])
        client.delete(namespace, "c")
        client.add(namespace, "over", id="d", embedding=[0.5, 0.5, 0], ttl=0.1)
        client.add(namespace, "over at last", id="e", embedding=[1, 1, 1], ttl=timedelta(days=3))
        client.add_many(
            namespace, [NewMemory(f"many {n}", id=f"many-{n:04}", embedding=[1, n, 0]) for n in range(700)]
        )
        stubs = Stubs(cluster.writer.address)
        exact = memory_pb2.Memory(id="exact", content="exact", embedding=struct.pack("<3f", 1, 0, 0))
        exact.event_time.seconds, exact.event_time.nanos = 1, 123_456_789
        exact.expire_time.seconds, exact.expire_time.nanos = 253_402_300_799, 1
        stubs.writer.AddMemories(writer_pb2.AddMemoriesRequest(namespace=namespace, memories=[exact]))
        stubs.channel.close()

        def swept() -> bool:
            versions = client.history(namespace, "d").versions
            return versions[0].kind is VersionKind.EXPIRED

        cluster.wait_settled()
        wait_until(swept, "what is over is deleted")
        cluster.wait_settled()


def test_an_export_imported_elsewhere_is_exported_alike(
    shared_cluster: Cluster, other_cluster: Cluster, cli: Cli, namespace: str, tmp_path: Path
) -> None:
    fill(shared_cluster, namespace)
    here, there = cli, Cli(other_cluster.writer.address, "another-name")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    said = here("export", str(first))
    assert (said.returncode, said.stdout) == (
        0,
        f"exported 712 versions of namespace '{namespace}' to {first}\n",
    )
    done = there("import", str(first))
    assert (done.returncode, done.stdout) == (0, "imported 712 versions into another-name\n")
    other_cluster.wait_settled()
    assert there.json("export", str(second)) == {"exported": 712}
    assert first.read_bytes() == second.read_bytes()
    assert there("export", "-").stdout.encode() == first.read_bytes()
    # Both are read alike in every other way too.
    for command in (
        ["list", "--limit", "0", "--json", "--with-embedding"],
        ["history", "b"],
        ["get", "exact"],
    ):
        ours, theirs = (each(*command).stdout for each in (here, there))
        if command[0] == "history":
            ours, theirs = (
                "\n".join(" ".join(line.split()[:2]) for line in text.splitlines()) for text in (ours, theirs)
            )
        assert ours.replace(namespace, "another-name") == theirs

    lines = first.read_text().split("\n")
    assert lines[0] == HEADER.strip()
    assert [
        json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True) for line in lines[1:-1]
    ] == lines[1:-1]
    assert not any(key in line for line in lines for key in ('"namespace"', '"revision"'))

    failed(there("import", str(first)), 1, "is at version 3 already", "--skip-existing", "0 versions were")
    skipped = there.json("import", str(first), "--skip-existing")
    assert (skipped["imported"], skipped["skipped"]) == (0, 712)


def test_an_export_can_be_narrowed(shared_cluster: Cluster, cli: Cli, tmp_path: Path) -> None:
    cli("add", "one", "--id", "a", "--user-id", "ana")
    cli("update", "a", "--content", "two")
    cli("add", "other", "--id", "b", "--user-id", "ben")
    cli("add", "gone", "--id", "c", "--user-id", "ana")
    cli("delete", "c")
    shared_cluster.wait_settled()

    def exported(*options: str) -> list[tuple[str, int]]:
        lines = cli("export", "-", *options).stdout.splitlines()[1:]
        return [(json.loads(line)["id"], json.loads(line)["version"]) for line in lines]

    assert exported() == [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 2)]
    assert exported("--user-id", "ana") == [("a", 1), ("a", 2)]
    assert exported("--newest-only") == [("a", 2), ("b", 1)]
    assert exported("--user-id", "nobody") == []
    file = tmp_path / "export.jsonl"
    file.write_text("what was there")
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    assert cli("export", str(link)).returncode == 0
    assert link.is_symlink()
    assert file.read_text().startswith(HEADER)
    failed(cli("export", str(tmp_path / "none" / "export.jsonl")), 2, "cannot write", "No such file")
    failed(cli("export", str(tmp_path)), 2, "Is a directory")
    assert {path.name for path in tmp_path.iterdir()} == {"export.jsonl", "link.jsonl"}


def line(**fields: Any) -> str:
    document = {
        "id": "m1",
        "version": 1,
        "kind": "written",
        "type": "episodic",
        "content": "text",
        "event_time": "2024-05-01T00:00:00Z",
        "create_time": "2024-05-01T00:00:00Z",
        "update_time": "2024-05-01T00:00:00Z",
    } | fields
    return json.dumps({name: value for name, value in document.items() if value is not None}) + "\n"


def test_an_import_of_an_export_stops_at_a_bad_line(shared_cluster: Cluster, cli: Cli) -> None:
    good = [line(id=f"m{number:04}") for number in range(1500)]
    bad_lines = {
        "{\n": "not JSON",
        line(colour="red"): "colour: no such field",
        line(update_time="noon"): "update_time: 'noon'",
        # Only the server knows this one.
        line(id="bad", importance=2): "importance must be 0 to 1",
    }
    for number, (bad, problem) in enumerate(bad_lines.items()):
        namespace = f"{cli.namespace}-{number}"
        lines = "".join([HEADER, *good[:1199], "\n", bad, *good[1199:]])
        # The server takes a message or leaves it.
        count = 1000 if "importance" in problem else 1199
        failed(
            cli("import", "-", "-n", namespace, stdin=lines),
            2,
            f"line 1202: {problem}",
            f"{count} versions were imported before it",
        )
        shared_cluster.wait_settled()
        assert len(cli("list", "-n", namespace, "--limit", "0", "--json").stdout.splitlines()) == count


@pytest.mark.parametrize(
    ("stdin", "options", "part"),
    [
        ('{"agentmem_export": 2}\n', [], "format 1 alone"),
        ('{"agentmem_export": 1, "more": 2}\n', [], "format 1 alone"),
        (HEADER, ["--on-duplicate", "skip"], "--skip-existing"),
        ('{"content": "x"}\n', ["--skip-existing"], "--on-duplicate"),
        ("", ["--skip-existing"], "--on-duplicate"),
    ],
)
def test_options_and_headers_that_do_not_fit(cli: Cli, stdin: str, options: list[str], part: str) -> None:
    failed(cli("import", "-", *options, stdin=stdin), 2, part)


def test_an_export_of_nothing_is_imported(cli: Cli) -> None:
    assert cli("export", "-").stdout == HEADER
    document = cli.json("import", "-", stdin=HEADER)
    assert (document["imported"], document["skipped"], document["merged"]) == (0, 0, 0)


def test_new_memories_can_be_imported_again(shared_cluster: Cluster, cli: Cli) -> None:
    lines = "".join(json.dumps({"content": text, "ttl": 3600}) + "\n" for text in ("one", "two", "one"))
    first = cli.json("import", "-", "--on-duplicate", "skip", stdin=lines)
    assert (first["imported"], first["skipped"]) == (2, 1)
    again = cli("import", "-", "--on-duplicate", "merge", stdin=lines).stdout
    assert again == f"imported 0 memories into {cli.namespace}\nmerged 3\n"
    shared_cluster.wait_settled()
    listed = [json.loads(each) for each in cli("list", "--json").stdout.splitlines()]
    assert all("expire_time" in memory for memory in listed)
    # What is listed can be imported, its end with it.
    copied = cli.json("import", "-", "-n", f"{cli.namespace}-copy", stdin="\n".join(map(json.dumps, listed)))
    assert copied["imported"] == 2


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"id": None}, "id: missing"),
        ({"content": None}, "content: missing"),
        ({"create_time": None}, "create_time: missing"),
        ({"version": "1"}, "version"),
        ({"version": 0}, "version"),
        ({"kind": "lost"}, "kind must be one of written, deleted, expired"),
        ({"kind": "deleted"}, "kind: a version that is deleted has id, version, times and nothing else"),
        ({"type": "dream"}, "type must be one of"),
        ({"tags": "a"}, "tags"),
        ({"metadata": {"k": None}}, "metadata.k"),
        ({"embedding": "?"}, "embedding: is not the base64"),
        ({"embedding": base64.b64encode(b"12345").decode()}, "embedding: is not the base64"),
        ({"embedding": [1, 2]}, "embedding: is not the base64"),
        ({"namespace": "n"}, "namespace: no such field"),
    ],
)
def test_a_line_that_is_no_version_names_the_field(fields: dict[str, Any], part: str) -> None:
    with pytest.raises((ValueError, InvalidArgument)) as caught:
        exporting.to_version(json.loads(line(**fields)))
    assert part in str(caught.value)
    with pytest.raises(ValueError, match="must be a JSON object"):
        exporting.to_version([])


def test_a_backup(cli: Cli, tmp_path: Path) -> None:
    cli("add", "text")
    folder = tmp_path / "backup"
    said = cli("backup", str(folder)).stdout
    manifest = json.loads((folder / "manifest.json").read_text())
    assert said == f"{folder} holds revision {manifest['revision']} of cluster {manifest['cluster_id']}\n"
    failed(cli("backup", str(folder)), 2, "is not empty")
    document = cli.json("backup", str(tmp_path / "other"))
    assert document == json.loads((tmp_path / "other" / "manifest.json").read_text())
    assert set(document) == {
        "format",
        "cluster_id",
        "epoch",
        "revision",
        "chain_hash",
        "size_bytes",
        "sha256",
    }
