"""agentmem-server log, verify and restore, and the snapshots that backups are made of."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import grpc
import lmdb
import programs
import pytest
from calls import add, all_ids, error_of, update
from cluster import Cluster, Stubs

from agentmem.core.data_directory import DataDirectory
from agentmem.core.layout import DATABASES, FORMAT_VERSION
from agentmem.server import store_tools
from agentmem.v1 import memory_pb2, replication_pb2, replication_pb2_grpc

Memory = memory_pb2.Memory


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = programs.run("agentmem.server", *map(str, arguments))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def report(path: Path) -> dict[str, Any]:
    done = tool("verify", path, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(document["problem_count"])
    return document


def fetch(
    address: str, snapshot_id: str = "", offset: int = 0
) -> tuple[replication_pb2.SnapshotHeader, bytes]:
    """A snapshot from an offset on, its frames checked."""
    with grpc.insecure_channel(address) as channel:
        frames = replication_pb2_grpc.ReplicationServiceStub(channel).FetchSnapshot(
            replication_pb2.FetchSnapshotRequest(snapshot_id=snapshot_id, offset=offset)
        )
        header = next(frames).header
        data = b""
        for frame in frames:
            assert frame.chunk.offset == offset + len(data)
            data += frame.chunk.data
    return header, data


def write_backup(folder: Path, header: replication_pb2.SnapshotHeader, data: bytes) -> Path:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(data)
    manifest = {"format": header.format, "size_bytes": header.size_bytes, "sha256": header.sha256.hex()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a writer that has ended, with some of everything in it. Not to be changed."""
    path = tmp_path_factory.mktemp("ended")
    with Cluster(path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for number in range(30):
            add(stubs, "ns", Memory(id=f"m{number:02}", content=f"text number {number}"))
        update(stubs, "ns", Memory(id="m03", content="changed"), "content")
        stubs.channel.close()
    return cluster.writer.data_dir


@pytest.fixture
def stopped(ended: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ended, tmp_path / "writer"))


def damaged(data_dir: Path, database: bytes, place: int) -> None:
    """Flips a bit in the value in the middle of a database."""
    with lmdb.open(str(data_dir / "store"), max_dbs=len(DATABASES)) as environment:
        opened = environment.open_db(database)
        with environment.begin(write=True) as transaction:
            keys = [key for key, _ in transaction.cursor(db=opened)]
            value = bytearray(transaction.get(keys[len(keys) // 2], db=opened) or b"")
            value[place] ^= 4
            transaction.put(keys[len(keys) // 2], bytes(value), db=opened)


def lost(data_dir: Path, database: bytes) -> None:
    """Takes the key in the middle of a database away."""
    with lmdb.open(str(data_dir / "store"), max_dbs=len(DATABASES)) as environment:
        opened = environment.open_db(database)
        with environment.begin(write=True) as transaction:
            keys = [key for key, _ in transaction.cursor(db=opened)]
            transaction.delete(keys[len(keys) // 2], db=opened)


def test_verify_counts_a_good_store(stopped: Path) -> None:
    document = report(stopped)
    assert document["problem_count"] == 0
    assert document["revision"] == 31
    assert document["counts"]["versions"] == 31
    assert document["counts"]["live memories"] == 30
    assert "no damage found" in tool("verify", stopped).stdout


@pytest.mark.parametrize("database", [b"docs", b"log", b"ids", b"namespaces", b"numbers"])
def test_verify_names_a_flipped_bit(stopped: Path, database: bytes) -> None:
    damaged(stopped, database, -1)
    document = report(stopped)
    assert any("fails its checksum" in problem for problem in document["problems"])


@pytest.mark.parametrize("database", [b"docs", b"log", b"ids", b"hashes", b"superseded", b"namespaces"])
def test_verify_names_what_is_lost(stopped: Path, database: bytes) -> None:
    lost(stopped, database)
    assert report(stopped)["problem_count"] > 0


@pytest.mark.parametrize("database", [b"hashes", b"expiry", b"superseded", b"docs", b"vectors"])
def test_verify_names_what_belongs_to_nothing(stopped: Path, database: bytes) -> None:
    with lmdb.open(str(stopped / "store"), max_dbs=len(DATABASES)) as environment:
        opened = environment.open_db(database)
        with environment.begin(write=True) as transaction:
            transaction.put(b"\x00\x00\x00\x09" + b"x" * 4, b"", db=opened)
    assert report(stopped)["problem_count"] > 0


def test_verify_survives_pages_that_crash_the_reader(stopped: Path) -> None:
    file = stopped / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    # Behind the two meta pages: branches and leaves that point anywhere.
    for place in range(2 * 4096, len(data), 64):
        data[place : place + 16] = b"\xff" * 16
    file.write_bytes(data)
    document = report(stopped)
    assert document["problem_count"] > 0


def test_a_damaged_store_is_not_served(stopped: Path) -> None:
    damaged(stopped, b"docs", -1)
    with Cluster(stopped.parent, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        code, reason, _, message = error_of(lambda: all_ids(stubs, "ns"))
        assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD")
        assert "ordinal" in message
        stubs.channel.close()


def test_log_prints_entries(stopped: Path) -> None:
    lines = tool("log", stopped, "--limit", 3).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["revision", "29", "30", "31"]
    (entry,) = (json.loads(line) for line in tool("log", stopped, "--from", 31, "--json").stdout.splitlines())
    assert (entry["revision"], entry["epoch"], entry["operations"]) == (31, 1, {"ns": {"put": 1}})
    assert len(entry["chain_hash"]) == 64


def test_a_backup_under_writes_is_a_revision_of_the_store(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        is_done = threading.Event()
        written: list[int] = []

        def write() -> None:
            while not is_done.is_set():
                written.append(add(stubs, "ns", Memory(content="x" * 500)).revision)

        thread = threading.Thread(target=write)
        thread.start()
        copies = [fetch(cluster.writer.address) for _ in range(3)]
        is_done.set()
        thread.join(60)
        # A transfer that was cut off goes on where it was.
        header, data = copies[-1]
        again, rest = fetch(cluster.writer.address, header.snapshot_id, 4096)
        assert (again, rest) == (header, data[4096:])
        assert error_of(lambda: fetch(cluster.writer.address, "unknown"))[1] == "SNAPSHOT_NOT_FOUND"
        assert error_of(lambda: fetch(cluster.writer.address, header.snapshot_id, len(data) + 1))[2] == {
            "field": "offset"
        }
        stubs.channel.close()
    assert copies[0][0].position.revision < copies[-1][0].position.revision <= max(written)
    for number, (header, data) in enumerate(copies):
        assert hashlib.sha256(data).digest() == header.sha256
        backup = write_backup(tmp_path / f"backup-{number}", header, data)
        document = report(backup)
        assert (document["problem_count"], document["revision"]) == (0, header.position.revision)
    # A copy does not outlive the process.
    assert not (cluster.writer.data_dir / "snapshots").exists()


def test_restore_makes_a_writer_and_a_replica(tmp_path: Path) -> None:
    with Cluster(tmp_path / "first", replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for number in range(10):
            add(stubs, "ns", Memory(id=f"m{number}", content="tea"))
        backup = write_backup(tmp_path / "backup", *fetch(cluster.writer.address))
        # A replica that begins with the backup follows from there.
        replica_dir = cluster.path / "replica-1"
        assert tool("restore", backup, replica_dir).returncode == 0
        revision = add(stubs, "ns", Memory(id="after", content="tea")).revision
        replica = cluster.begin_replica("--embedder", "none")
        replica.wait_ready()
        cluster.wait_searchable(revision)
        copy = Stubs(replica.address)
        assert len(all_ids(copy, "ns")) == 11
        assert "following the writer from revision 10" in "".join(replica.log)
        for each in (copy, stubs):
            each.channel.close()
    restored = tmp_path / "second"
    assert tool("restore", backup, restored / "writer").returncode == 0
    with Cluster(restored, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        assert len(all_ids(stubs, "ns")) == 10
        assert add(stubs, "ns", Memory(content="goes on")).revision == 11
        stubs.channel.close()
    assert report(restored / "writer")["problem_count"] == 0


def test_a_restored_cluster_may_be_one_of_its_own(stopped: Path, tmp_path: Path) -> None:
    data = (stopped / "store" / "data.mdb").read_bytes()
    header = replication_pb2.SnapshotHeader(
        format=FORMAT_VERSION, size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    backup = write_backup(tmp_path / "backup", header, data)
    done = tool("restore", backup, tmp_path / "new", "--new-cluster", "--json")
    assert json.loads(done.stdout)["cluster_id"] != report(stopped)["cluster_id"]
    assert report(tmp_path / "new")["problem_count"] == 0


def test_a_backup_that_is_not_whole_is_refused(stopped: Path, tmp_path: Path) -> None:
    data = (stopped / "store" / "data.mdb").read_bytes()
    header = replication_pb2.SnapshotHeader(
        format=FORMAT_VERSION, size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    flipped = bytearray(data)
    # Where nothing is, so that only the hash of the whole tells.
    flipped[data.index(bytes(256)) + 128] ^= 1
    for name, content, manifest in (
        ("flipped", bytes(flipped), True),
        ("short", data[: len(data) // 4096 // 2 * 4096], True),
        ("without-manifest", data, False),
    ):
        backup = write_backup(tmp_path / name, header, content)
        if not manifest:
            (backup / "manifest.json").unlink()
        done = tool("restore", backup, tmp_path / "target")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert not (tmp_path / "target" / "store").exists()
    good = write_backup(tmp_path / "good", header, data)
    assert "has a store already" in tool("restore", good, stopped).stderr
    later = json.loads((good / "manifest.json").read_text()) | {"format": 99}
    (good / "manifest.json").write_text(json.dumps(later))
    assert "format 99" in tool("restore", good, tmp_path / "target").stderr


def test_a_store_in_use_is_known_by_any_path(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    popen = subprocess.Popen

    def begin(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return popen(command, **options)

    monkeypatch.setattr("agentmem.server.store_tools.subprocess.Popen", begin)
    link = tmp_path / "link"
    link.symlink_to(stopped / "store")
    monkeypatch.chdir(stopped / "store")
    owner = DataDirectory(stopped)
    for path in (stopped, stopped / "store", link, "."):
        assert store_tools.run_command(["verify", str(path)]) == 0
    owner.close()
    assert ["--in-use" in command for command in commands] == [True] * 4


def test_paths_without_a_store_are_named(tmp_path: Path) -> None:
    for command in (("verify", tmp_path), ("log", tmp_path), ("restore", tmp_path, tmp_path / "x")):
        done = tool(*command)
        assert done.returncode == 1
        assert str(tmp_path) in done.stderr
    assert tool("log", tmp_path, "--limit", 0).returncode == 2
