"""How new an answer is: every read shows what it demands, or the node says that it cannot."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec

import grpc
import pytest
from calls import Memory, add, error_of
from cluster import Cluster, Stubs, held_back, wait_until

from agentmem.core.consistency import Demand, check_not_lost
from agentmem.core.errors import FailedPrecondition
from agentmem.core.store import Change, Store
from agentmem.v1 import cluster_pb2, consistency_pb2, reader_pb2

P = ParamSpec("P")

MIB = 1024**2
WRITES = 30
THREADS = 4
MODES = (
    reader_pb2.SEARCH_MODE_HYBRID,
    reader_pb2.SEARCH_MODE_SEMANTIC,
    reader_pb2.SEARCH_MODE_TEXT,
)
STRONG = consistency_pb2.Consistency(strong=True)
EVENTUAL = consistency_pb2.Consistency()


def at_least(revision: int, epoch: int = 0) -> consistency_pb2.Consistency:
    return consistency_pb2.Consistency(min_revision=revision, min_epoch=epoch)


def no_older_than(seconds: float) -> consistency_pb2.Consistency:
    consistency = consistency_pb2.Consistency()
    consistency.max_staleness.FromMicroseconds(int(seconds * 1_000_000))
    return consistency


def got(
    stubs: Stubs, namespace: str, memory_id: str, consistency: consistency_pb2.Consistency = EVENTUAL
) -> set[str]:
    request = reader_pb2.GetMemoriesRequest(namespace=namespace, ids=[memory_id], consistency=consistency)
    return {memory.id for memory in stubs.reader.GetMemories(request, timeout=30).memories}


def listed(stubs: Stubs, namespace: str, consistency: consistency_pb2.Consistency) -> set[str]:
    request = reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=1000, consistency=consistency)
    return {memory.id for memory in stubs.reader.ListMemories(request, timeout=30).memories}


def found(
    stubs: Stubs,
    namespace: str,
    text: str,
    consistency: consistency_pb2.Consistency = EVENTUAL,
    mode: reader_pb2.SearchMode = reader_pb2.SEARCH_MODE_TEXT,
) -> set[str]:
    request = reader_pb2.SearchMemoriesRequest(
        namespace=namespace, text=text, mode=mode, top_k=1000, consistency=consistency
    )
    return {hit.memory.id for hit in stubs.reader.SearchMemories(request, timeout=30).hits}


def reads(
    stubs: Stubs, namespace: str, consistency: consistency_pb2.Consistency
) -> dict[str, Callable[[], tuple[int, int]]]:
    """Every read of one memory "a"; each returns applied_revision and epoch."""

    def place(answer: reader_pb2.GetMemoriesResponse | object) -> tuple[int, int]:
        return answer.applied_revision, answer.epoch  # type: ignore[union-attr]

    reader, common = stubs.reader, {"namespace": namespace, "consistency": consistency}
    return {
        "get": lambda: place(reader.GetMemories(reader_pb2.GetMemoriesRequest(ids=["a"], **common))),  # type: ignore[arg-type]
        "list": lambda: place(reader.ListMemories(reader_pb2.ListMemoriesRequest(**common))),  # type: ignore[arg-type]
        "history": lambda: place(
            reader.GetMemoryHistory(reader_pb2.GetMemoryHistoryRequest(id="a", **common))  # type: ignore[arg-type]
        ),
        "stats": lambda: place(reader.GetStats(reader_pb2.GetStatsRequest(**common))),  # type: ignore[arg-type]
        "export": lambda: place(
            next(iter(reader.ExportMemories(reader_pb2.ExportMemoriesRequest(**common))))  # type: ignore[arg-type]
        ),
        "search": lambda: place(
            reader.SearchMemories(reader_pb2.SearchMemoriesRequest(text="tea", **common))  # type: ignore[arg-type]
        ),
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For tests that stop processes for a while. It takes up a store in which a second epoch has begun."""
    path = tmp_path_factory.mktemp("consistency")
    store = Store(path / "writer" / "store", map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    two_epochs(store)
    store.close()
    with Cluster(path, replicas=1) as cluster:
        yield cluster


def two_epochs(store: Store) -> None:
    """Revisions 1 to 3 of epoch 1, and 4 to 5 of epoch 2, which begins with 4."""

    def write(memory_id: str) -> None:
        memory = Memory(namespace="old", id=memory_id, content="tea", version=1)
        store.commit(lambda transaction: transaction.append([Change(memory)], 1))

    store.found_cluster()
    for number in range(3):
        write(f"m{number}")
    store.commit(lambda transaction: transaction.begin_epoch(2, "writer", 1))
    write("m3")


def test_every_answer_tells_where_in_which_history_it_is(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    revision = add(writer, namespace, Memory(id="a", content="tea")).revision
    shared_cluster.wait_searchable(revision)
    for stubs in (writer, replica):
        for name, read in reads(stubs, namespace, at_least(revision)).items():
            if stubs is replica or name != "search":
                applied_revision, epoch = read()
                assert applied_revision >= revision, name
                assert epoch == 1, name


def test_each_read_shows_the_revision_that_it_demands(writer: Stubs, replica: Stubs, namespace: str) -> None:
    """On a replica, at once after each of many writes: reads of the store, and of each index."""
    for number, mode in zip(range(WRITES), itertools.cycle(MODES), strict=False):
        memory_id = f"m{number}"
        answer = add(writer, namespace, Memory(id=memory_id, content="green tea"))
        at_first = at_least(answer.revision, answer.epoch)
        assert memory_id in insisting(got, replica, namespace, memory_id, at_first)
        assert memory_id in insisting(found, replica, namespace, "green tea", at_first, mode)
        memory_id = f"m{number}-b"
        at_second = at_least(add(writer, namespace, Memory(id=memory_id, content="green tea")).revision)
        assert memory_id in insisting(listed, replica, namespace, at_second)
        memory_id = f"m{number}-c"
        at_third = at_least(add(writer, namespace, Memory(id=memory_id, content="green tea")).revision)
        assert memory_id in insisting(found, replica, namespace, "green tea", at_third, mode)


def test_a_strong_read_shows_what_was_acknowledged_just_before(
    writer: Stubs, replica: Stubs, namespace: str
) -> None:
    """From several callers at once, whose reads share the questions to the writer."""

    def call(caller: int) -> None:
        for number, mode in zip(range(WRITES // 2), itertools.cycle(MODES), strict=False):
            memory_id = f"m{caller}-{number}"
            add(writer, namespace, Memory(id=memory_id, content="green tea"))
            assert memory_id in insisting(got, replica, namespace, memory_id, STRONG)
            memory_id += "-b"
            add(writer, namespace, Memory(id=memory_id, content="green tea"))
            assert memory_id in insisting(found, replica, namespace, "green tea", STRONG, mode)
            # On the writer they hold by themselves.
            assert memory_id in got(writer, namespace, memory_id, STRONG)

    with ThreadPoolExecutor(THREADS) as callers:
        list(callers.map(call, range(THREADS)))


def test_an_answer_is_no_older_than_demanded_though_the_applier_is_paused(cluster: Cluster) -> None:
    (replica_node,) = cluster.replicas
    with Stubs(cluster.writer.address) as writer, Stubs(replica_node.address) as replica:
        cluster.wait_searchable(add(writer, "applier", Memory(id="a", content="tea")).revision)
        with held_back(replica_node):
            add(writer, "applier", Memory(id="b", content="tea"))
            acknowledged_s = time.monotonic()
            wait_until(lambda: time.monotonic() > acknowledged_s + 0.3, "the write is older than demanded")
            assert got(replica, "applier", "b") == set()
            for code, reason, metadata, _ in errors_of(
                lambda: got(replica, "applier", "b", no_older_than(0.3)),
                lambda: found(replica, "applier", "tea", no_older_than(0.3)),
                lambda: got(replica, "applier", "b", STRONG),
                lambda: found(replica, "applier", "tea", STRONG),
            ):
                assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "REPLICA_STALE")
                assert metadata["field"] in ("consistency.max_staleness", "consistency.strong")
                assert int(metadata["applied_revision"]) > 0
            # It was fresh a while ago, and who takes that gets it.
            assert got(replica, "applier", "b", no_older_than(3600)) == set()
        wait_until(lambda: found(replica, "applier", "tea") == {"a", "b"}, "the applier went on")
        assert insisting(got, replica, "applier", "b", no_older_than(0.3)) == {"b"}


@pytest.mark.parametrize("round_number", range(3))
def test_a_replica_that_was_stopped_does_not_take_itself_for_fresh(
    cluster: Cluster, round_number: int
) -> None:
    """It wakes up to heartbeats from before the write, and to the read."""
    (replica_node,) = cluster.replicas
    memory_id = f"m{round_number}"
    with Stubs(cluster.writer.address) as writer, Stubs(replica_node.address) as replica:
        if round_number == 0:
            add(writer, "stopped", Memory(id="first", content="tea"))
        assert "first" in insisting(found, replica, "stopped", "tea", STRONG)  # connects
        with ThreadPoolExecutor(3) as threads:
            replica_node.pause()
            try:
                stopped_s = time.monotonic()
                wait_until(lambda: time.monotonic() > stopped_s + 1.2, "a heartbeat waits")
                add(writer, "stopped", Memory(id=memory_id, content="tea"))
                acknowledged_s = time.monotonic()
                wait_until(
                    lambda: time.monotonic() > acknowledged_s + 0.2, "the write is older than demanded"
                )
                outcomes = [
                    threads.submit(outcome, lambda: found(replica, "stopped", "tea", no_older_than(0.2))),
                    threads.submit(outcome, lambda: found(replica, "stopped", "tea", STRONG)),
                    threads.submit(outcome, lambda: got(replica, "stopped", memory_id, no_older_than(0.2))),
                ]
                sent_s = time.monotonic()
                wait_until(lambda: time.monotonic() > sent_s + 0.1, "the reads wait, too")
            finally:
                replica_node.resume()
            for each in outcomes:
                answer = each.result()
                assert answer == {"REPLICA_STALE"} or memory_id in answer


def outcome(read: Callable[[], set[str]]) -> set[str]:
    """What a read answers; the reason when it fails."""
    try:
        return read()
    except grpc.RpcError as error:
        raised = error

        def fail() -> None:
            raise raised

        return {error_of(fail)[1]}


def insisting(read: Callable[P, set[str]], *args: P.args, **kwargs: P.kwargs) -> set[str]:
    """What a read answers in the end: on a busy machine a replica may need longer than a read waits."""
    answers: list[set[str]] = []

    def answered() -> bool:
        answers.append(outcome(lambda: read(*args, **kwargs)))
        return answers[-1] != {"REPLICA_STALE"}

    wait_until(answered, "an answer")
    return answers[-1]


def errors_of(*reads: Callable[[], object]) -> list[tuple[grpc.StatusCode, str, dict[str, str], str]]:
    """What the reads fail with, sent at the same time: each waits for a moment."""
    with ThreadPoolExecutor(len(reads)) as threads:
        return list(threads.map(error_of, reads))


def test_without_an_answer_of_the_writer_nothing_passes_for_fresh(cluster: Cluster) -> None:
    (replica_node,) = cluster.replicas
    with Stubs(cluster.writer.address) as writer, Stubs(replica_node.address) as replica:
        revision = add(writer, "silent", Memory(id="a", content="tea")).revision
        assert insisting(found, replica, "silent", "tea", at_least(revision)) == {"a"}
        cluster.writer.pause()
        try:
            stopped_s = time.monotonic()
            wait_until(lambda: time.monotonic() > stopped_s + 0.2, "what is known is older than demanded")
            errors = errors_of(
                lambda: got(replica, "silent", "a", no_older_than(0.2)),
                lambda: found(replica, "silent", "tea", no_older_than(0.2)),
                lambda: got(replica, "silent", "a", STRONG),
                lambda: found(replica, "silent", "tea", STRONG),
            )
            assert {reason for _, reason, _, _ in errors} == {"REPLICA_STALE"}
            assert got(replica, "silent", "a", no_older_than(3600)) == {"a"}
            assert found(replica, "silent", "tea", at_least(revision)) == {"a"}
        finally:
            cluster.writer.resume()
        assert insisting(got, replica, "silent", "a", STRONG) == {"a"}


def test_a_revision_that_is_not_there(cluster: Cluster) -> None:
    (replica_node,) = cluster.replicas
    with Stubs(cluster.writer.address) as writer, Stubs(replica_node.address) as replica:
        revision = add(writer, "ahead", Memory(id="a", content="tea")).revision
        for code, reason, metadata, _ in errors_of(
            *reads(replica, "ahead", at_least(revision + 1000)).values()
        ):
            assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "REPLICA_STALE")
            assert metadata["field"] == "consistency.min_revision"
            assert int(metadata["applied_revision"]) >= revision
        # The writer would have to have written it.
        for name, read in reads(writer, "ahead", at_least(revision + 1000, epoch=2)).items():
            if name != "search":
                code, reason, metadata, _ = error_of(read)
                assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_LOST"), name
                assert metadata == {
                    "field": "consistency.min_revision",
                    "epoch": "2",
                    "common_revision": str(revision),
                }
        # Of a later epoch: one of them may be the writer that has been replaced.
        assert error_of(lambda: got(replica, "ahead", "a", at_least(1, epoch=3)))[1:3] == (
            "REPLICA_STALE",
            {"field": "consistency.min_epoch", "applied_revision": str(revision)},
        )
        code, reason, metadata, _ = error_of(lambda: got(writer, "ahead", "a", at_least(1, epoch=3)))
        assert (code, reason, metadata["epoch"]) == (grpc.StatusCode.UNAVAILABLE, "STALE_EPOCH", "2")


def test_a_read_waits_no_longer_than_its_deadline_allows(replica: Stubs, namespace: str) -> None:
    request = reader_pb2.GetMemoriesRequest(namespace=namespace, ids=["a"], consistency=at_least(2**60))

    def is_refused() -> bool:
        try:
            replica.reader.GetMemories(request, timeout=0.3)
        except grpc.RpcError as error:
            # Unless the machine is very busy.
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    wait_until(is_refused, "an answer within the deadline")


def test_a_revision_that_a_promotion_left_behind_is_not_taken_for_another(cluster: Cluster) -> None:
    (replica_node,) = cluster.replicas
    cluster.wait_settled()
    for node in (cluster.writer, replica_node):
        with Stubs(node.address) as stubs:
            for name, read in reads(stubs, "old", at_least(4, epoch=1)).items():
                if node is replica_node or name != "search":
                    code, reason, metadata, _ = error_of(read)
                    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_LOST"), name
                    assert (metadata["epoch"], metadata["common_revision"]) == ("2", "3")
            for consistency in (at_least(3, epoch=1), at_least(4, epoch=2), at_least(5)):
                assert got(stubs, "old", "m2", consistency) == {"m2"}
            assert reads(stubs, "old", at_least(3, epoch=1))["get"]()[1] == 2
    with Stubs(replica_node.address) as stubs:
        assert reads(stubs, "old", at_least(4, epoch=2))["search"]()[1] == 2


def test_what_is_lost_is_what_lies_behind_the_common_revision(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    two_epochs(store)
    with store.read() as transaction:
        for min_revision, min_epoch in ((3, 1), (4, 2), (99, 2), (4, 0), (0, 1), (99, 3)):
            check_not_lost(transaction, Demand(min_revision=min_revision, min_epoch=min_epoch))
        with pytest.raises(FailedPrecondition) as caught:
            check_not_lost(transaction, Demand(min_revision=4, min_epoch=1))
    assert caught.value.reason == "REVISION_LOST"
    assert caught.value.metadata["common_revision"] == "3"
    store.close()


@pytest.mark.parametrize("seconds", [-1, 101 * 365 * 24 * 3600])
def test_a_staleness_that_has_no_meaning(writer: Stubs, replica: Stubs, namespace: str, seconds: int) -> None:
    for stubs in (writer, replica):
        for name, read in reads(stubs, namespace, no_older_than(seconds)).items():
            if stubs is replica or name != "search":
                code, reason, metadata, _ = error_of(read)
                assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
                assert metadata["field"] == "consistency.max_staleness"


def test_the_topology_tells_the_lag_in_seconds_and_wakes_nobody_for_it(shared_cluster: Cluster) -> None:
    def staleness() -> list[int]:
        nodes = [
            node for node in shared_cluster.topology().nodes if node.role == cluster_pb2.NODE_ROLE_REPLICA
        ]
        return [node.staleness.ToMicroseconds() for node in nodes if node.HasField("staleness")]

    received: list[cluster_pb2.WatchTopologyResponse] = []
    with Stubs(shared_cluster.writer.address) as stubs:
        watch = stubs.cluster.WatchTopology(cluster_pb2.WatchTopologyRequest())
        first = threading.Event()

        def receive() -> None:
            try:
                for response in watch:
                    received.append(response)
                    first.set()
            except grpc.RpcError:
                return

        receiver = threading.Thread(target=receive)
        receiver.start()
        assert first.wait(30)
        before = staleness()
        assert len(before) == len(shared_cluster.replicas)
        assert min(before) >= 0
        wait_until(lambda: not set(before) & set(staleness()), "every replica reported again")
        watch.cancel()
        receiver.join()
    assert len(received) == 1
