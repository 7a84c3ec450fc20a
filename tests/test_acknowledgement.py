"""When a write is answered: once it is on the writer's disk, or also on replicas, or in their searches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from calls import Memory, add, all_ids, error_of, get
from cluster import Cluster, Stubs, held_back, wait_until

from agentmem.core.errors import ResourceExhausted
from agentmem.server import acknowledgement
from agentmem.server.acknowledgement import Acknowledgements
from agentmem.server.membership import Membership
from agentmem.v1 import consistency_pb2, memory_pb2, reader_pb2, writer_pb2

LOCAL = consistency_pb2.ACKNOWLEDGEMENT_LEVEL_LOCAL
REPLICATED = consistency_pb2.ACKNOWLEDGEMENT_LEVEL_REPLICATED
APPLIED = consistency_pb2.ACKNOWLEDGEMENT_LEVEL_APPLIED
WRITES = 10


def wanted(
    level: consistency_pb2.AcknowledgementLevel, replicas: int = 0, timeout_s: float | None = None
) -> consistency_pb2.Acknowledgement:
    message = consistency_pb2.Acknowledgement(level=level, replicas=replicas)
    if timeout_s is not None:
        message.timeout.FromMicroseconds(int(timeout_s * 1_000_000))
    return message


def added(
    stubs: Stubs,
    namespace: str,
    memory_id: str,
    acknowledged: consistency_pb2.Acknowledgement,
    request_id: str = "",
) -> writer_pb2.AddMemoriesResponse:
    request = writer_pb2.AddMemoriesRequest(
        namespace=namespace,
        memories=[Memory(id=memory_id, content="tea")],
        request_id=request_id,
        acknowledgement=acknowledged,
    )
    return stubs.writer.AddMemories(request, timeout=60)


def writes(
    stubs: Stubs, namespace: str, acknowledged: consistency_pb2.Acknowledgement
) -> dict[str, Callable[[], Any]]:
    """One call of each kind; they need the memory "a"."""
    mask = {"paths": ["importance"]}
    version = memory_pb2.MemoryVersion(
        memory=Memory(id="imported", content="tea", version=1), kind=memory_pb2.VERSION_KIND_WRITTEN
    )
    for stamp in ("create_time", "update_time", "event_time"):
        getattr(version.memory, stamp).FromSeconds(1)
    update = writer_pb2.UpdateMemoryRequest(
        namespace=namespace, memory=Memory(id="a"), update_mask=mask, acknowledgement=acknowledged
    )
    delete = writer_pb2.DeleteMemoriesRequest(
        namespace=namespace, ids=["none"], acknowledgement=acknowledged, request_id="delete"
    )
    by_filter = writer_pb2.DeleteMemoriesRequest(namespace=namespace, acknowledgement=acknowledged)
    by_filter.filter.condition.field = "tags"
    by_filter.filter.condition.operator = 1  # type: ignore[assignment]
    by_filter.filter.condition.values.add(string_value="none")
    settings = writer_pb2.UpdateNamespaceRequest(
        namespace=namespace, update_mask={"paths": ["max_versions"]}, acknowledgement=acknowledged
    )
    imported = writer_pb2.ImportMemoriesRequest(
        namespace=namespace,
        versions=[version],
        on_conflict=writer_pb2.IMPORT_CONFLICT_SKIP,
        acknowledgement=acknowledged,
    )
    return {
        "add": lambda: added(stubs, namespace, "b", acknowledged),
        "update": lambda: stubs.writer.UpdateMemory(update),
        "delete": lambda: stubs.writer.DeleteMemories(delete),
        "delete by filter": lambda: stubs.writer.DeleteMemories(by_filter),
        "settings": lambda: stubs.writer.UpdateNamespace(settings),
        "import": lambda: stubs.writer.ImportMemories(iter([imported])),
    }


def test_each_write_waits_for_the_replicas_it_asks_for(
    writer: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    add(writer, namespace, Memory(id="a", content="tea"))
    for name, write in writes(writer, namespace, wanted(APPLIED, replicas=2, timeout_s=60)).items():
        answer = write()
        assert answer.epoch == 1, name
        assert answer.acknowledged.reached, name
        assert (answer.acknowledged.replicated, answer.acknowledged.applied) == (2, 2), name
        searchable = [node.searchable_revision for node in shared_cluster.topology().nodes[1:]]
        assert min(searchable) >= answer.revision > 0, name


def test_a_write_that_asks_for_nothing_is_told_nothing(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="tea"))
    for name, write in writes(writer, namespace, wanted(LOCAL)).items():
        answer = write()
        assert not answer.HasField("acknowledged"), name
        assert (answer.epoch, answer.revision > 0) == (1, True), name


def test_what_is_replicated_is_in_the_store_and_what_is_applied_in_searches(
    writer: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    """On every replica at once, for reads that demand nothing."""
    with (
        Stubs(shared_cluster.replicas[0].address) as first,
        Stubs(shared_cluster.replicas[1].address) as second,
    ):
        for number in range(WRITES):
            memory_id = f"m{number}"
            assert added(writer, namespace, memory_id, wanted(REPLICATED, 2, 60)).acknowledged.reached
            for replica in (first, second):
                assert [memory.id for memory in get(replica, namespace, memory_id).memories] == [memory_id]
            memory_id += "-b"
            assert added(writer, namespace, memory_id, wanted(APPLIED, 2, 60)).acknowledged.reached
            request = reader_pb2.SearchMemoriesRequest(
                namespace=namespace, text="tea", top_k=1000, mode=reader_pb2.SEARCH_MODE_TEXT
            )
            for replica in (first, second):
                hits = replica.reader.SearchMemories(request).hits
                assert memory_id in {hit.memory.id for hit in hits}


def test_who_waits_for_searches_waits_for_no_pause_between_reports(writer: Stubs, namespace: str) -> None:
    """Of a tenth of a second: some twenty times as long as to wait for the store of a replica."""

    def median_s(acknowledged: consistency_pb2.Acknowledgement) -> float:
        taken_s = []
        for number in range(WRITES):
            began_s = time.perf_counter()
            added(writer, namespace, f"{acknowledged.level}-{number}", acknowledged)
            taken_s.append(time.perf_counter() - began_s)
        return statistics.median(taken_s)

    replicated_s, applied_s = median_s(wanted(REPLICATED, 1, 60)), median_s(wanted(APPLIED, 1, 60))
    assert applied_s < 5 * replicated_s


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For tests that stop its replica for a while."""
    with Cluster(tmp_path_factory.mktemp("acknowledgement"), replicas=1) as cluster:
        yield cluster


def test_a_write_that_too_few_replicas_have_is_answered_all_the_same(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as writer:
        answer = added(writer, "few", "a", wanted(REPLICATED, 2, 0.3))
        assert not answer.acknowledged.reached
        assert answer.acknowledged.replicated == 1
        # Its one replica has nothing to apply it with.
        with held_back(cluster.replicas[0]):
            # Longer than from one report to the next, and not.
            for level, timeout_s in ((REPLICATED, 1.2), (APPLIED, 0.1)):
                answer = added(writer, "few", f"m{level}", wanted(level, 1, timeout_s))
                assert (answer.acknowledged.reached, answer.acknowledged.replicated) == (False, 0)
                assert answer.acknowledged.applied == 0
            # The same request waits again, and is not carried out again.
            first = added(writer, "few", "again", wanted(APPLIED, 1, 0.1), "r")
            assert not first.acknowledged.reached
        again = added(writer, "few", "again", wanted(APPLIED, 1, 60), "r")
        assert again.acknowledged.reached
        assert (again.revision, again.epoch, again.memories) == (first.revision, first.epoch, first.memories)
        # At another level, too: how it is answered is not what it is.
        local = added(writer, "few", "again", consistency_pb2.Acknowledgement(), "r")
        assert (local.revision, local.HasField("acknowledged")) == (first.revision, False)
        assert all_ids(writer, "few") == {"a", f"m{REPLICATED}", f"m{APPLIED}", "again"}


def test_a_write_that_waits_is_there_and_holds_up_no_other(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as writer:
        with held_back(cluster.replicas[0]):
            request = writer_pb2.AddMemoriesRequest(
                namespace="waits",
                memories=[Memory(id="slow", content="tea")],
                acknowledgement=wanted(APPLIED, 1, 60),
            )
            call = writer.writer.AddMemories.future(request, timeout=60)
            wait_until(lambda: all_ids(writer, "waits") == {"slow"}, "it is committed")
            for number in range(WRITES):
                add(writer, "waits", Memory(id=f"m{number}", content="tea"))
            assert not call.done()
        assert call.result().acknowledged.reached


def test_a_write_waits_no_longer_than_its_deadline_allows(cluster: Cluster) -> None:
    """Though it would for a minute, it is answered in time, unless the machine is very busy."""
    with Stubs(cluster.writer.address) as writer, held_back(cluster.replicas[0]):
        request = writer_pb2.AddMemoriesRequest(
            namespace="deadline", memories=[Memory(content="tea")], acknowledgement=wanted(APPLIED, 1, 60)
        )

        def is_answered() -> bool:
            try:
                return not writer.writer.AddMemories(request, timeout=0.5).acknowledged.reached
            except grpc.RpcError:
                return False

        wait_until(is_answered, "an answer within the deadline")


def test_a_replica_that_comes_is_waited_for(cluster: Cluster) -> None:
    (replica_node,) = cluster.replicas
    assert replica_node.terminate() == 0
    with Stubs(cluster.writer.address) as writer, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(added, writer, "comes", "a", wanted(REPLICATED, 1, 60))
        wait_until(lambda: all_ids(writer, "comes") == {"a"}, "it is committed")
        replica_node.restart()
        assert answer.result().acknowledged.reached


def test_a_replicated_write_outlives_the_writer(cluster: Cluster) -> None:
    """The writer is killed with the answer, and the replica has the write already."""
    with Stubs(cluster.writer.address) as writer:
        answer = added(writer, "outlives", "a", wanted(REPLICATED, 1, 60))
    cluster.writer.kill()
    assert answer.acknowledged.reached
    with Stubs(cluster.replicas[0].address) as replica:
        assert [memory.id for memory in get(replica, "outlives", "a").memories] == ["a"]
    cluster.writer.restart()
    wait_until(lambda: len(cluster.topology().nodes) == 2, "the replica is back")


def test_at_a_shutdown_what_waits_is_answered(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as writer, ThreadPoolExecutor(1) as threads:
        revision = add(writer, "shutdown", Memory(content="tea")).revision
        answer = threads.submit(added, writer, "shutdown", "a", wanted(REPLICATED, 2, 60))
        wait_until(lambda: cluster.topology().nodes[1].applied_revision > revision, "the one replica has it")
        assert cluster.writer.terminate() == 0
        acknowledged = answer.result().acknowledged
    assert (acknowledged.reached, acknowledged.replicated) == (False, 1)
    cluster.writer.restart()


@pytest.mark.parametrize(
    ("acknowledged", "field"),
    [
        (wanted(REPLICATED, -1), "replicas"),
        (wanted(REPLICATED, 101), "replicas"),
        (wanted(REPLICATED, 1, -1), "timeout"),
        (wanted(REPLICATED, 1, 61), "timeout"),
        (wanted(LOCAL, 1), "replicas"),
        (wanted(LOCAL, 0, 1), "timeout"),
        (consistency_pb2.Acknowledgement(level=9), "level"),  # type: ignore[arg-type]
    ],
)
def test_an_acknowledgement_that_makes_no_sense_is_refused_before_the_write(
    writer: Stubs, namespace: str, acknowledged: consistency_pb2.Acknowledgement, field: str
) -> None:
    for name, write in writes(writer, namespace, acknowledged).items():
        code, reason, metadata, _ = error_of(write)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), name
        assert metadata["field"] == f"acknowledgement.{field}", name
    assert all_ids(writer, namespace) == set()


def test_a_later_message_of_an_import_cannot_ask_for_another_acknowledgement(
    writer: Stubs, namespace: str
) -> None:
    first = writer_pb2.ImportMemoriesRequest(namespace=namespace)
    later = writer_pb2.ImportMemoriesRequest(acknowledgement=wanted(REPLICATED))
    _, reason, metadata, _ = error_of(lambda: writer.writer.ImportMemories(iter([first, later])))
    assert (reason, metadata["field"]) == ("INVALID_FIELD", "acknowledgement")


def test_what_may_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgement, "MAX_WAITING_WRITES", 2)
    membership = Membership(
        "writer",
        "localhost:1",
        lambda: pytest.fail("nobody asks for the position"),
        on_join=lambda address: None,
    )
    acknowledgements = Acknowledgements(membership)

    def begin(level: consistency_pb2.AcknowledgementLevel) -> acknowledgement.LocalAcknowledgement:
        request = writer_pb2.AddMemoriesRequest(acknowledgement=wanted(level))
        return acknowledgements.begin(request, None)  # type: ignore[arg-type]

    with begin(REPLICATED), begin(APPLIED):
        with pytest.raises(ResourceExhausted) as caught, begin(REPLICATED):
            pytest.fail("it had no place")
        assert (caught.value.reason, caught.value.retry_after_s) == ("OVERLOADED", 0.2)
        with begin(LOCAL):
            pass
    with begin(REPLICATED), begin(APPLIED):
        pass
