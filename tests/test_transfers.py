"""Exports, imports and backups through the client, and what breaks off in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster import Cluster, Node, Stubs, wait_until
from interruption import Relay

from agentmem.client import (
    AlreadyExists,
    AsyncClient,
    Client,
    Field,
    InvalidArgument,
    MemoryVersion,
    NewMemory,
    Unavailable,
    VersionKind,
    versions,
)
from agentmem.core.store import Store
from agentmem.server import snapshots
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

MIB = 1024**2
WRITER_FLAGS = ("--embedder", "none")


def exported(client: Client, namespace: str) -> list[MemoryVersion]:
    return list(client.export(namespace))


def test_a_namespace_is_exported_and_imported_whole(
    shared_cluster: Cluster, client: Client, namespace: str, writer: Stubs
) -> None:
    embedding = [0.1, -0.7, 3e-5]
    client.add(
        namespace, "version 1", id="a", embedding=embedding, metadata={"n": 1e300, "l": ["x", True, 2.5]}
    )
    client.update(namespace, "a", content="version 2", embedding=[1, 2, 3])
    client.add(namespace, "gone", id="b", embedding=embedding)
    client.delete(namespace, "b")
    client.add(namespace, "over", id="c", embedding=embedding, ttl=0.1)
    client.add(namespace, "stays", id="d", embedding=embedding, event_time=datetime(1, 1, 1, tzinfo=UTC))
    wait_until(lambda: not writer_has(writer, namespace, "c"), "c is over")
    wait_until(lambda: versions_of(writer, namespace) == 7, "c is swept")
    shared_cluster.wait_settled()

    first = exported(client, namespace)
    assert [(each.memory.id, each.memory.version, each.kind) for each in first] == [
        ("a", 1, VersionKind.WRITTEN),
        ("a", 2, VersionKind.WRITTEN),
        ("b", 1, VersionKind.WRITTEN),
        ("b", 2, VersionKind.DELETED),
        ("c", 1, VersionKind.WRITTEN),
        ("c", 2, VersionKind.EXPIRED),
        ("d", 1, VersionKind.WRITTEN),
    ]
    copy = f"{namespace}-copy"
    result = client.import_versions(copy, iter(first))
    assert (result.imported_versions, result.skipped_versions) == (7, 0)
    shared_cluster.wait_searchable(result.revision)
    assert raw_versions(writer, namespace) == raw_versions(writer, copy)

    with pytest.raises(AlreadyExists):
        client.import_versions(copy, first)
    again = client.import_versions(copy, first, on_conflict="skip")
    assert (again.imported_versions, again.skipped_versions) == (0, 7)
    newest = [each.memory.id for each in client.export(namespace, newest_only=True)]
    assert newest == ["a", "d"]
    some = client.export(namespace, filter=Field("id") != "d", until=datetime(1, 1, 2, tzinfo=UTC))
    assert list(some) == []


def writer_has(writer: Stubs, namespace: str, id: str) -> bool:
    request = reader_pb2.GetMemoriesRequest(namespace=namespace, ids=[id])
    return bool(writer.reader.GetMemories(request).memories)


def versions_of(writer: Stubs, namespace: str) -> int:
    request = reader_pb2.GetStatsRequest(namespace=namespace)
    return int(writer.reader.GetStats(request).namespace.versions)


def raw_versions(writer: Stubs, namespace: str) -> list[bytes]:
    """The export of the writer as it is sent, without the namespace."""
    found = []
    for frame in writer.reader.ExportMemories(reader_pb2.ExportMemoriesRequest(namespace=namespace)):
        for version in frame.versions:
            version.memory.namespace = ""
            found.append(version.SerializeToString(deterministic=True))
    return found


def test_many_versions_go_through_in_bounded_messages(
    shared_cluster: Cluster, client: Client, namespace: str, writer: Stubs
) -> None:
    for start in range(0, 3000, 500):
        batch = [
            NewMemory(f"memory {number} " + "x" * 3000, id=f"m{number:05}", embedding=[1.0, number])
            for number in range(start, start + 500)
        ]
        revision = client.add_many(namespace, batch).revision
    shared_cluster.wait_searchable(revision)
    copy = f"{namespace}-copy"
    result = client.import_versions(copy, client.export(namespace))
    assert result.imported_versions == 3000
    assert raw_versions(writer, namespace) == raw_versions(writer, copy)


def test_an_import_that_is_refused_in_the_middle_says_why(
    shared_cluster: Cluster, client: Client, namespace: str
) -> None:
    """Also while the client is still sending: the source is far longer than what fits on the way."""
    copy = f"{namespace}-copy"
    shared_cluster.wait_searchable(client.add(namespace, "x" * 100_000, id="a").revision)
    (version,) = client.export(namespace)

    def endless() -> Iterator[MemoryVersion]:
        while True:
            yield version

    for _ in range(5):
        with pytest.raises(AlreadyExists, match="'a' is at version 1"):
            client.import_versions(copy, endless())


def test_a_source_that_fails_ends_the_import(client: Client, namespace: str) -> None:
    def failing() -> Iterator[MemoryVersion]:
        raise RuntimeError("the source broke")
        yield

    async def failing_too() -> AsyncIterator[MemoryVersion]:
        raise RuntimeError("the source broke")
        yield

    async def scenario() -> None:
        async with AsyncClient(*client._client._endpoints) as other:
            with pytest.raises(RuntimeError, match="the source broke"):
                await other.import_versions(namespace, failing_too())
            assert {each.users for each in other._router._channels._endpoints.values()} <= {0, 1}

    with pytest.raises(RuntimeError, match="the source broke"):
        client.import_versions(namespace, failing())
    asyncio.run(scenario())
    assert client.import_versions(namespace, []).imported_versions == 0


def test_an_export_that_is_left_is_ended(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    batch = [NewMemory("x" * 10_000, id=f"m{number:04}") for number in range(500)]
    shared_cluster.wait_searchable(client.add_many(namespace, batch).revision)
    for _ in range(3):
        assert next(iter(client.export(namespace))).memory.id == "m0000"

    async def scenario() -> None:
        async with AsyncClient(shared_cluster.writer.address) as other:
            found = [version.memory.id async for version in other.export(namespace)]
            assert found == [memory.id for memory in batch]
            result = await other.import_versions(f"{namespace}-copy", other.export(namespace))
            assert result.imported_versions == 500

    asyncio.run(scenario())
    endpoints = client._client._router._channels._endpoints
    wait_until(lambda: {each.users for each in endpoints.values()} <= {0, 1}, "its calls have ended")


def test_an_import_goes_on_when_the_writer_was_killed(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, replicas=0, writer_flags=WRITER_FLAGS) as cluster,
        Client(cluster.writer.address, timeout_s=30) as client,
    ):
        client.add_many("ns", [NewMemory("x" * 50_000, id=f"m{number:04}") for number in range(600)])
        found = exported(client, "ns")

        def source(first: int = 0) -> Iterator[MemoryVersion]:
            """Kills the writer several times while messages are on their way."""
            for number, version in enumerate(found):
                if number in (first + 170, first + 340, first + 510):
                    cluster.writer.kill()
                    cluster.writer.restart()
                yield version

        for turn, conflict in enumerate(("fail", "skip")):
            copy = f"copy-{conflict}"
            result = client.import_versions(copy, source(turn), on_conflict=conflict)
            assert result.imported_versions + result.skipped_versions == 600
            assert conflict == "skip" or result.skipped_versions == 0
            assert [each.memory.id for each in client.export(copy)] == [each.memory.id for each in found]

        def fatal() -> Iterator[MemoryVersion]:
            yield from found[:300]
            cluster.writer.kill()
            yield from found[300:]

        with pytest.raises(Unavailable) as caught:
            client.import_versions("rest", fatal(), timeout_s=1)
        known = int(caught.value.metadata["imported_versions"])
        assert "request_id" not in caught.value.metadata
        cluster.writer.restart()
        result = client.import_versions("rest", found, on_conflict="skip")
        assert result.imported_versions + result.skipped_versions == 600
        assert result.skipped_versions >= known > 0


def test_an_import_names_the_version_that_is_refused(client: Client, namespace: str, writer: Stubs) -> None:
    ended = versions.ended_memory("", 1, datetime(2024, 5, 1, tzinfo=UTC), None)

    def source() -> Iterator[MemoryVersion]:
        for number in range(3000):
            # Only the server knows that this is too large.
            importance = 2.0 if number == 2345 else 0.5
            yield MemoryVersion(replace(ended, id=f"m{number:04}", content="x", importance=importance))

    with pytest.raises(
        InvalidArgument, match=r"^versions\[2345\]\.memory\.importance must be 0 to 1"
    ) as caught:
        client.import_versions(namespace, source())
    assert caught.value.metadata == {
        "field": "versions[2345].memory.importance",
        "imported_versions": "2000",
    }
    assert versions_of(writer, namespace) == 2000


def test_an_export_begins_elsewhere_and_ends_with_its_node(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, replicas=1, writer_flags=WRITER_FLAGS) as cluster,
        Client(cluster.writer.address) as client,
    ):
        revision = client.add_many(
            "ns", [NewMemory("x" * 50_000, id=f"m{number:04}") for number in range(400)]
        ).revision
        cluster.wait_searchable(revision)
        versions = iter(client.export("ns"))
        assert next(versions).memory.id == "m0000"
        cluster.replicas[0].kill()
        with pytest.raises(Unavailable):
            list(versions)
        assert len(exported(client, "ns")) == 400  # from the writer


def test_a_memory_without_a_type_is_imported_as_episodic(
    client: Client, namespace: str, writer: Stubs
) -> None:
    memory = memory_pb2.Memory(id="a", content="text", version=1)
    for name in ("event_time", "create_time", "update_time"):
        getattr(memory, name).FromMicroseconds(1)
    version = memory_pb2.MemoryVersion(memory=memory, kind=memory_pb2.VERSION_KIND_WRITTEN)
    request = writer_pb2.ImportMemoriesRequest(namespace=namespace, versions=[version])
    revision = writer.writer.ImportMemories(iter([request])).revision
    found = client.get(namespace, "a", as_of=revision)
    assert found is not None
    assert found.type == "episodic"


# Backups


def fill(client: Client, count: int = 200) -> int:
    """About 20 MB that no compression makes smaller."""
    revision = 0
    for start in range(0, count, 50):
        batch = [
            NewMemory(
                "".join(hashlib.sha512(f"{number} {part}".encode()).hexdigest() for part in range(800)),
                id=f"m{number:04}",
            )
            for number in range(start, min(start + 50, count))
        ]
        revision = client.add_many("ns", batch).revision
    return revision


def check_backup(folder: Path, revision: int) -> None:
    assert {path.name for path in folder.iterdir()} == {"data.mdb", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "data.mdb").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["size_bytes"] == len(data)
    assert manifest["revision"] == revision
    store = Store(folder, map_size_bytes=64 * MIB, max_map_size_bytes=1024 * MIB)
    position = store.position()
    store.close()
    assert manifest["cluster_id"] == position.cluster_id.hex()
    assert (manifest["epoch"], manifest["chain_hash"]) == (position.epoch, position.chain_hash.hex())


def test_a_backup_is_the_store_at_one_revision(
    shared_cluster: Cluster, client: Client, namespace: str, tmp_path: Path
) -> None:
    client.add(namespace, "kept")
    progress: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "backup"
    backup = client.backup(folder, on_progress=lambda done, total: progress.append((done, total)))
    check_backup(folder, backup.revision)
    assert progress[0] == (0, backup.size_bytes)
    assert progress[-1] == (backup.size_bytes, backup.size_bytes)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InvalidArgument, match="is not empty"):
        client.backup(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    client.backup(empty)
    assert len(list(empty.iterdir())) == 2


def test_a_backup_can_be_restored(tmp_path: Path) -> None:
    with Cluster(tmp_path, 0, WRITER_FLAGS) as cluster, Client(cluster.writer.address) as client:
        client.add("ns", "kept", id="a")
        client.backup(tmp_path / "backup")
        client.add("ns", "not in it", id="b")
    command = [
        sys.executable,
        "-m",
        "agentmem.server",
        "restore",
        str(tmp_path / "backup"),
        str(tmp_path / "new"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    node = Node("agentmem.server", tmp_path / "new", *WRITER_FLAGS).wait_ready()
    with Client(node.address) as client:
        assert [memory.id for memory in client.list("ns").memories] == ["a"]
    node.stop()


def test_a_backup_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    with Relay() as relay, Cluster(tmp_path, 0, WRITER_FLAGS) as cluster:
        relay.lead_to(cluster.writer.address)
        cluster.writer.terminate()
        cluster.writer.restart("--advertise", relay.address)
        with Client(relay.address, timeout_s=30) as client:
            revision = fill(client)
            seen: list[int] = []
            cuts: list[int] = []

            def cut_now_and_then(done: int, total: int) -> None:
                seen.append(done)
                if len(cuts) < 3 and done > (len(cuts) + 1) * total / 5:
                    cuts.append(done)
                    relay.cut()

            client.backup(tmp_path / "backup", on_progress=cut_now_and_then)
    assert len(cuts) == 3
    assert seen == sorted(seen)  # it never began anew
    check_backup(tmp_path / "backup", revision)


def test_a_backup_begins_anew_when_the_writer_was_restarted(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, 0, WRITER_FLAGS) as cluster,
        Client(cluster.writer.address, timeout_s=30) as client,
    ):
        revision = fill(client)
        seen: list[int] = []

        def restart_once(done: int, total: int) -> None:
            if done and 0 not in seen[1:] and len(seen) < 3:
                cluster.writer.kill()
                cluster.writer.restart()
            seen.append(done)

        client.backup(tmp_path / "backup", on_progress=restart_once)
    assert 0 in seen[1:]
    check_backup(tmp_path / "backup", revision)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, is_new: bool) -> None:
    folder = tmp_path / "backup"
    if not is_new:
        folder.mkdir()
    with Cluster(tmp_path, 0, WRITER_FLAGS) as cluster, Client(cluster.writer.address) as client:
        fill(client)

        def kill(done: int, total: int) -> None:
            if done and cluster.writer.process.poll() is None:
                cluster.writer.kill()

        with pytest.raises(Unavailable, match="the writer could not be reached"):
            client.backup(folder, on_progress=kill, timeout_s=0.5)
    assert folder.exists() is not is_new
    assert is_new or list(folder.iterdir()) == []


def test_a_backup_whose_caller_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        async with AsyncClient(cluster.writer.address) as client:
            begun = asyncio.Event()
            backup = asyncio.create_task(
                client.backup(tmp_path / "backup", on_progress=lambda done, total: begun.set())
            )
            await begun.wait()
            backup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await backup

    with Cluster(tmp_path, 0, WRITER_FLAGS) as cluster:
        with Client(cluster.writer.address) as client:
            fill(client, 50)
        asyncio.run(scenario(cluster))
    assert not (tmp_path / "backup").exists()


def test_nobody_writes_a_copy_that_is_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store", map_size_bytes=MIB, max_map_size_bytes=MIB)
    started: list[subprocess.Popen[bytes]] = []
    start = snapshots._start_copier

    def noted(store_path: Path, folder: Path) -> subprocess.Popen[bytes]:
        started.append(start(store_path, folder))
        return started[-1]

    monkeypatch.setattr(snapshots, "_start_copier", noted)
    (tmp_path / "copy").mkdir()

    async def cancelled() -> None:
        copying = asyncio.create_task(snapshots._copy(tmp_path / "store", tmp_path / "copy"))
        await asyncio.sleep(0)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying

    asyncio.run(cancelled())
    store.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL]
