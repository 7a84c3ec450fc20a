"""The log is bounded: old entries go, what they told stays, and who needs them is told."""

from __future__ import annotations

from pathlib import Path

from calls import add, all_ids, get, update
from cluster import Cluster, Stubs, wait_until

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


def test_a_replica_too_far_behind_ends_and_says_what_to_do(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=(*FLAGS, "--max-log-bytes", "1000")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for _ in range(50):
            add(stubs, "ns", Memory(content="tea"))
        wait_until(lambda: log_of(stubs).log_first_revision > 1, "the log is trimmed")
        replica = cluster.begin_replica(*FLAGS)
        wait_until(lambda: replica.process.poll() is not None, "the replica ends")
        assert replica.process.returncode == 1
        wait_until(lambda: "start the replica from a backup" in "".join(replica.log), "it says why")
        stubs.channel.close()
