"""The log is bounded: old entries go, what they told stays, and who needs them gets a snapshot."""

from __future__ import annotations

from pathlib import Path

from calls import add, all_ids, get, update
from cluster import Cluster, Stubs, wait_until

from agentmem.core.data_directory import DataDirectory
from agentmem.v1 import memory_pb2, reader_pb2

Memory = memory_pb2.Memory
FLAGS = ("--embedder", "none")


def log_of(stubs: Stubs) -> reader_pb2.StoreStats:
    return stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace="ns")).store


def test_trimming_by_size_on_writer_and_replica(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=(*FLAGS, "--max-log-bytes", "5000")) as cluster:
        cluster.begin_replica(*FLAGS, "--max-log-bytes", "2000").wait_ready()
        stubs = Stubs(cluster.writer.address)
        replica = Stubs(cluster.replicas[0].address)
        first = add(stubs, "ns", Memory(id="a", content="first")).revision
        for number in range(150):
            add(stubs, "ns", Memory(id=f"m{number:03}", content="tea"))
        revision = update(stubs, "ns", Memory(id="a", content="second"), "content").revision
        cluster.wait_searchable(revision)
        for each, bound in ((stubs, 5000), (replica, 2000)):
            wait_until(lambda each=each, bound=bound: log_of(each).log_bytes <= bound, "the log is trimmed")  # type: ignore[misc]
            log = log_of(each)
            assert 1 < log.log_first_revision <= log.log_last_revision == revision
            # Everything that the entries told is there, the past too.
            assert len(all_ids(each, "ns")) == 151
            past = reader_pb2.GetMemoriesRequest(
                namespace="ns", ids=["a"], as_of=reader_pb2.AsOf(revision=first)
            )
            assert each.reader.GetMemories(past).memories[0].content == "first"
        # Replication and restarts go on behind what is gone.
        cluster.replicas[0].kill()
        cluster.writer.kill()
        cluster.writer.restart()
        cluster.replicas[0].restart()
        revision = add(stubs, "ns", Memory(id="after", content="rum")).revision
        cluster.wait_searchable(revision)
        assert get(replica, "ns", "after").memories
        for each in (stubs, replica):
            each.channel.close()


def test_trimming_by_age_keeps_the_newest_entry(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=(*FLAGS, "--max-log-age-s", "0.2")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for _ in range(20):
            revision = add(stubs, "ns", Memory(content="tea")).revision
        wait_until(lambda: log_of(stubs).log_first_revision == revision, "only the newest entry is left")
        cluster.writer.terminate()
        cluster.writer.restart()
        assert add(stubs, "ns", Memory(content="tea")).revision == revision + 1
        stubs.channel.close()


def test_a_replica_that_the_log_does_not_reach_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=(*FLAGS, "--max-log-bytes", "1000")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for number in range(50):
            add(stubs, "ns", Memory(id=f"m{number:02}", content="tea"))
        wait_until(lambda: log_of(stubs).log_first_revision > 1, "the log is trimmed")
        # One that is new, and later the same one, far behind.
        replica = cluster.begin_replica(*FLAGS)
        replica.wait_ready()
        copy = Stubs(replica.address)
        assert all_ids(copy, "ns") == {f"m{number:02}" for number in range(50)}
        assert "taking a snapshot" in "".join(replica.log)
        replica.kill()
        for number in range(50, 100):
            revision = add(stubs, "ns", Memory(id=f"m{number:02}", content="tea")).revision
        wait_until(lambda: log_of(stubs).log_first_revision > 52, "the log is trimmed")
        replica.restart()
        cluster.wait_searchable(revision)
        assert all_ids(copy, "ns") == {f"m{number:02}" for number in range(100)}
        search = reader_pb2.SearchMemoriesRequest(namespace="ns", text="tea", top_k=200)
        assert len(copy.reader.SearchMemories(search).hits) == 100
        # And from there it follows.
        revision = add(stubs, "ns", Memory(id="after", content="tea")).revision
        cluster.wait_searchable(revision)
        assert len(copy.reader.SearchMemories(search).hits) == 101
        assert replica.terminate() == 0
        leftovers = {path.name for path in replica.data_dir.iterdir()}
        assert not leftovers & {"snapshot", "store.replaced"}
        for each in (stubs, copy):
            each.channel.close()


def test_a_snapshot_that_is_ready_replaces_the_store_wherever_it_was_stopped(tmp_path: Path) -> None:
    def state(*files: str) -> Path:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for file in files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(file)
        return root

    def content(root: Path) -> str:
        directory = DataDirectory(root)
        directory.install_snapshot()
        directory.close()
        assert {path.name for path in root.iterdir()} == {"LOCK", "store"}
        return (root / "store" / "data.mdb").read_text()

    new, old = "snapshot/data.mdb", "store/data.mdb"
    assert content(state(old, new)) == new
    assert content(state("store.replaced/data.mdb", new)) == new  # stopped between the renames
    assert content(state("store.replaced/data.mdb", old)) == old  # stopped before the last removal
    assert content(state(old, "snapshot/data.mdb.partial")) == old  # never ready
