"""Deletes by filter, and purges: what they take, what they leave, what they say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import pytest
from calls import add, all_ids, error_of, update
from cluster import Cluster, Stubs, wait_until
from memories import condition

from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory


def by_user(user_id: str) -> filter_pb2.Filter:
    return filter_pb2.Filter(
        condition=filter_pb2.Condition(
            field="user_id",
            operator=filter_pb2.OPERATOR_EQ,
            values=[filter_pb2.FilterValue(string_value=user_id)],
        )
    )


ANAS_TEA = filter_pb2.Filter(
    all_of=filter_pb2.FilterList(
        filters=[by_user("ana"), condition("content", filter_pb2.OPERATOR_CONTAINS, "tea")]
    )
)


def delete(stubs: Stubs, namespace: str, **fields: object) -> writer_pb2.DeleteMemoriesResponse:
    request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, **fields)  # type: ignore[arg-type]
    return stubs.writer.DeleteMemories(request)


def history_reason(stubs: Stubs, namespace: str, memory_id: str) -> str:
    request = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id=memory_id)
    return error_of(lambda: stubs.reader.GetMemoryHistory(request))[1]


def test_a_delete_by_filter_takes_what_matches_across_commits(writer: Stubs, namespace: str) -> None:
    for start in range(0, 1200, 400):
        memories = [
            Memory(id=f"m{number:04}", content=f"text {number}", user_id="ab"[number % 2])
            for number in range(start, start + 400)
        ]
        add(writer, namespace, *memories)
    response = delete(writer, namespace, filter=by_user("a"))
    assert response.deleted_count == len(response.deleted_ids) == 600
    assert all_ids(writer, namespace) == {f"m{number:04}" for number in range(1, 1200, 2)}
    assert delete(writer, namespace, filter=by_user("a")).deleted_count == 0


def test_a_delete_by_filter_comes_again_as_it_was(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="old", content="tea", user_id="ana"))
    first = delete(writer, namespace, filter=by_user("ana"), request_id="d")
    add(writer, namespace, Memory(id="new", content="tea", user_id="ana"))
    assert delete(writer, namespace, filter=by_user("ana"), request_id="d") == first
    assert all_ids(writer, namespace) == {"new"}


def test_ids_and_filter_exclude_each_other_and_an_expected_version_needs_one_id(
    writer: Stubs, namespace: str
) -> None:
    add(writer, namespace, Memory(id="a", content="tea", user_id="ana"))
    both = error_of(lambda: delete(writer, namespace, ids=["a"], filter=by_user("ana")))
    assert (both[0], both[2]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "filter")
    assert error_of(lambda: delete(writer, namespace))[2]["field"] == "ids"
    several = error_of(lambda: delete(writer, namespace, ids=["a", "b"], expected_version=1))
    assert several[2]["field"] == "expected_version"
    assert error_of(lambda: delete(writer, namespace, ids=["a"], expected_version=2))[0] == (
        grpc.StatusCode.ABORTED
    )
    assert delete(writer, namespace, ids=["a"], expected_version=1).deleted_ids == ["a"]


def test_a_purge_leaves_a_receipt_and_nothing_else(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    revision = add(writer, namespace, Memory(id="a", content="secret tea")).revision
    update(writer, namespace, Memory(id="a", content="secret rum"), "content")
    delete(writer, namespace, ids=["a"])
    add(writer, namespace, Memory(id="b", content="plain tea"))
    response = delete(writer, namespace, ids=["a", "b", "never"], purge=True)
    assert (list(response.deleted_ids), list(response.missing_ids)) == (["a", "b"], ["never"])
    receipt = response.receipt
    assert (receipt.memory_count, receipt.version_count, receipt.revision) == (2, 4, response.revision)
    assert receipt.ids_sha256 == hashlib.sha256(b"a\x00b\x00").digest()
    shared_cluster.wait_searchable(response.revision)
    for stubs in (writer, replica):
        assert history_reason(stubs, namespace, "a") == "MEMORY_NOT_FOUND"
        past = reader_pb2.GetMemoriesRequest(
            namespace=namespace, ids=["a"], as_of=reader_pb2.AsOf(revision=revision)
        )
        assert stubs.reader.GetMemories(past).missing_ids == ["a"]
        stats = stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace=namespace)).namespace
        assert (stats.memories, stats.versions, stats.pruned_versions) == (0, 0, 0)
    search = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea")
    assert not replica.reader.SearchMemories(search).hits
    later = writer.writer.GetPurgeReceipt(
        writer_pb2.GetPurgeReceiptRequest(namespace=namespace, revision=receipt.revision)
    )
    assert later.receipt == receipt
    assert len(later.nodes) == 3
    assert all(node.applied for node in later.nodes)
    # The id begins anew.
    assert add(writer, namespace, Memory(id="a", content="tea")).memories[0].version == 1


def test_a_purge_by_filter_takes_all_that_ever_matched(writer: Stubs, namespace: str) -> None:
    add(
        writer,
        namespace,
        Memory(id="live", content="one", user_id="ana"),
        Memory(id="deleted", content="two", user_id="ana"),
        Memory(id="moved", content="three", user_id="ana"),
        Memory(id="other", content="four", user_id="bob"),
    )
    delete(writer, namespace, ids=["deleted"])
    update(writer, namespace, Memory(id="moved", user_id="bob"), "user_id")
    response = delete(writer, namespace, filter=by_user("ana"), purge=True)
    assert list(response.deleted_ids) == ["deleted", "live", "moved"]
    assert (response.receipt.memory_count, response.receipt.version_count) == (3, 5)
    assert all_ids(writer, namespace) == {"other"}


def test_a_purge_of_everything_takes_what_is_only_a_deletion_any_more(writer: Stubs, namespace: str) -> None:
    settings = writer_pb2.NamespaceSettings(max_versions=1)
    configure = writer_pb2.UpdateNamespaceRequest(namespace=namespace, settings=settings)
    configure.update_mask.paths.append("max_versions")
    writer.writer.UpdateNamespace(configure)
    add(writer, namespace, Memory(id="a", content="tea", user_id="ana"), Memory(id="b", content="tea"))
    delete(writer, namespace, ids=["a"])
    assert delete(writer, namespace, filter=by_user("ana"), purge=True).deleted_count == 0
    every = filter_pb2.Filter(condition=filter_pb2.Condition(field="id", operator=filter_pb2.OPERATOR_EXISTS))
    assert list(delete(writer, namespace, filter=every, purge=True).deleted_ids) == ["a", "b"]


def test_a_receipt_is_found_by_its_namespace_and_revision(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="tea"))
    revision = delete(writer, namespace, ids=["a"], purge=True).revision
    for space, asked in ((namespace, revision - 1), (namespace + "x", revision)):
        request = writer_pb2.GetPurgeReceiptRequest(namespace=space, revision=asked)

        def ask(request: writer_pb2.GetPurgeReceiptRequest = request) -> object:
            return writer.writer.GetPurgeReceipt(request)

        code, reason, _, _ = error_of(ask)
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "RECEIPT_NOT_FOUND")


def test_a_replica_that_comes_later_never_sees_what_was_purged(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        add(stubs, "ns", Memory(id="a", content="xylophone secret"), Memory(id="b", content="plain"))
        update(stubs, "ns", Memory(id="a", content="xylophone again"), "content")
        delete(stubs, "ns", ids=["a"], purge=True)
        revision = add(stubs, "ns", Memory(id="c", content="later")).revision
        replica = cluster.begin_replica("--embedder", "none")
        replica.wait_ready()
        cluster.wait_searchable(revision)
        copy = Stubs(replica.address)
        assert all_ids(copy, "ns") == {"b", "c"}
        assert history_reason(copy, "ns", "a") == "MEMORY_NOT_FOUND"
        counts = [
            each.reader.GetStats(reader_pb2.GetStatsRequest(namespace="ns")).namespace
            for each in (stubs, copy)
        ]
        assert counts[0] == counts[1]
        copy.channel.close()
        stubs.channel.close()
        # It was never on the replica's disk, not even in a freed page.
        assert b"xylophone" not in (replica.data_dir / "store" / "data.mdb").read_bytes()


def test_a_purge_while_searches_run_never_breaks_or_shortens_an_answer(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    """The view of a replica is behind its store for a moment: what it still has may be gone there."""
    memories = [Memory(id=f"m{number:03}", content=f"tea number {number}") for number in range(60)]
    shared_cluster.wait_searchable(add(writer, namespace, *memories).revision)
    search = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea", top_k=20)
    purged: set[str] = set()
    for number in range(0, 40, 4):
        ids = [f"m{each:03}" for each in range(number, number + 4)]
        revision = delete(writer, namespace, ids=ids, purge=True).revision
        purged |= set(ids)

        def shown(revision: int = revision, purged: frozenset[str] = frozenset(purged)) -> bool:
            answer = replica.reader.SearchMemories(search)
            assert len(answer.hits) == 20
            hits = {hit.memory.id for hit in answer.hits}
            return answer.applied_revision >= revision and not hits & purged

        wait_until(shown, "the purge is searched around")


@pytest.mark.parametrize("node", [by_user("ana"), ANAS_TEA], ids=["owner", "content"])
@pytest.mark.parametrize("mode", ["HYBRID", "SEMANTIC", "TEXT"])
def test_updates_that_keep_one_version_never_shorten_an_answer(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str, mode: str, node: filter_pb2.Filter
) -> None:
    """The store removes the version that a view still has as soon as there is the next one."""
    settings = writer_pb2.NamespaceSettings(max_versions=1)
    configure = writer_pb2.UpdateNamespaceRequest(namespace=namespace, settings=settings)
    configure.update_mask.paths.append("max_versions")
    writer.writer.UpdateNamespace(configure)
    memories = [Memory(id=f"m{number}", content=f"tea {number}", user_id="ana") for number in range(20)]
    shared_cluster.wait_searchable(add(writer, namespace, *memories).revision)
    search = reader_pb2.SearchMemoriesRequest(
        namespace=namespace, text="tea", mode=f"SEARCH_MODE_{mode}", top_k=20
    )
    search.filter.CopyFrom(node)
    for turn in range(3):
        for memory in memories:
            memory.content += f" {turn}"
            update(writer, namespace, memory, "content")
            answer = replica.reader.SearchMemories(search)
            assert {hit.memory.id for hit in answer.hits} == {each.id for each in memories}
    # What replaced a version does not match any more.
    update(writer, namespace, Memory(id="m0", user_id="ben"), "user_id")

    def left() -> bool:
        answer = replica.reader.SearchMemories(search)
        assert {hit.memory.id for hit in answer.hits} >= {each.id for each in memories[1:]}
        assert {hit.memory.user_id for hit in answer.hits} == {"ana"}
        return len(answer.hits) == 19

    wait_until(left, "the memory that does not match is gone")
