"""Versions of a memory, the store as it was, and what retention leaves of both."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from calls import add, error_of, get, update
from cluster import Cluster, Stubs, wait_until

from agentmem.core import history as history_module
from agentmem.core.embedders import Embedders
from agentmem.core.errors import AgentMemError
from agentmem.core.reading import get_memories
from agentmem.core.store import Change, Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.membership import Membership
from agentmem.server.reembedder import Reembedder
from agentmem.server.services import WriterService
from agentmem.server.sweeper import Sweeper
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

MIB = 1024**2
Memory = memory_pb2.Memory
WRITTEN = memory_pb2.VERSION_KIND_WRITTEN
DELETED = memory_pb2.VERSION_KIND_DELETED


def delete(stubs: Stubs, namespace: str, memory_id: str) -> int:
    request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=[memory_id])
    return stubs.writer.DeleteMemories(request).revision


def history(stubs: Stubs, namespace: str, **fields: object) -> reader_pb2.GetMemoryHistoryResponse:
    request = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id="a", **fields)  # type: ignore[arg-type]
    return stubs.reader.GetMemoryHistory(request)


def contents_at(stubs: Stubs, namespace: str, as_of: reader_pb2.AsOf) -> dict[str, str]:
    """What a list and a get show as of then; both must agree."""
    listed = stubs.reader.ListMemories(reader_pb2.ListMemoriesRequest(namespace=namespace, as_of=as_of))
    got = stubs.reader.GetMemories(
        reader_pb2.GetMemoriesRequest(namespace=namespace, ids=["a", "b"], as_of=as_of)
    )
    assert list(listed.memories) == list(got.memories)
    return {memory.id: memory.content for memory in got.memories}


def configure(stubs: Stubs, namespace: str, *paths: str, **fields: object) -> None:
    request = writer_pb2.UpdateNamespaceRequest(
        namespace=namespace,
        settings=writer_pb2.NamespaceSettings(**fields),  # type: ignore[arg-type]
    )
    request.update_mask.paths.extend(paths)
    stubs.writer.UpdateNamespace(request)


def stats(stubs: Stubs, namespace: str) -> reader_pb2.NamespaceStats:
    return stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace=namespace)).namespace


def test_history_has_every_version_newest_first(writer: Stubs, namespace: str) -> None:
    revisions = [add(writer, namespace, Memory(id="a", content="one")).revision]
    revisions.append(update(writer, namespace, Memory(id="a", content="two"), "content").revision)
    revisions.append(delete(writer, namespace, "a"))
    revisions.append(add(writer, namespace, Memory(id="a", content="four")).revision)
    answer = history(writer, namespace, include_embedding=True)
    assert [
        (version.memory.version, version.memory.content, version.kind, version.revision)
        for version in answer.versions
    ] == [
        (4, "four", WRITTEN, revisions[3]),
        (3, "", DELETED, revisions[2]),
        (2, "two", WRITTEN, revisions[1]),
        (1, "one", WRITTEN, revisions[0]),
    ]
    assert [bool(version.memory.embedding) for version in answer.versions] == [True, False, True, True]
    assert not answer.pruned
    pages = [history(writer, namespace, page_size=3)]
    pages.append(history(writer, namespace, page_size=3, page_token=pages[0].next_page_token))
    assert [version.memory.version for page in pages for version in page.versions] == [4, 3, 2, 1]
    assert not pages[1].next_page_token


def test_history_of_nothing_is_not_found(writer: Stubs, namespace: str) -> None:
    assert error_of(lambda: history(writer, namespace))[:2] == (
        grpc.StatusCode.NOT_FOUND,
        "MEMORY_NOT_FOUND",
    )


def test_a_page_token_of_another_memory_is_refused(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="one"), Memory(id="b", content="b"))
    update(writer, namespace, Memory(id="a", content="two"), "content")
    token = history(writer, namespace, page_size=1).next_page_token
    request = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id="b", page_token=token)
    assert error_of(lambda: writer.reader.GetMemoryHistory(request))[1] == "PAGE_TOKEN_MISMATCH"
    assert error_of(lambda: history(writer, namespace, page_token="AAAA"))[1] == "INVALID_FIELD"


def test_a_forged_page_token_shows_nothing_of_another_namespace(writer: Stubs, namespace: str) -> None:
    add(writer, namespace + "-other", Memory(id="a", content="not yours"))
    add(writer, namespace, Memory(id="a", content="one"))
    update(writer, namespace, Memory(id="a", content="two"), "content")
    token = base64.urlsafe_b64decode(history(writer, namespace, page_size=1).next_page_token)
    # It ends with the place, which is the ordinal of the next version: the other one's is just before it.
    place = int.from_bytes(token[-8:], "big") - 1
    forged = base64.urlsafe_b64encode(token[:-8] + place.to_bytes(8, "big")).decode()
    assert error_of(lambda: history(writer, namespace, page_token=forged))[1] == "INVALID_FIELD"


def test_the_store_as_it_was_by_revision_and_by_time(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    expected: list[tuple[int, dict[str, str]]] = []
    revision = add(writer, namespace, Memory(id="a", content="a1")).revision
    expected.append((revision - 1, {}))
    expected.append((revision, {"a": "a1"}))
    revision = add(writer, namespace, Memory(id="b", content="b1")).revision
    expected.append((revision, {"a": "a1", "b": "b1"}))
    revision = update(writer, namespace, Memory(id="a", content="a2"), "content").revision
    expected.append((revision, {"a": "a2", "b": "b1"}))
    expected.append((delete(writer, namespace, "b"), {"a": "a2"}))
    revision = add(writer, namespace, Memory(id="b", content="b3")).revision
    expected.append((revision, {"a": "a2", "b": "b3"}))
    shared_cluster.wait_searchable(revision)
    times = {
        version.revision: version.memory.update_time
        for memory_id in "ab"
        for version in writer.reader.GetMemoryHistory(
            reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id=memory_id)
        ).versions
    }
    for stubs in (writer, replica):
        for revision, contents in expected:
            assert contents_at(stubs, namespace, reader_pb2.AsOf(revision=revision)) == contents
            if revision in times:
                assert contents_at(stubs, namespace, reader_pb2.AsOf(time=times[revision])) == contents
    before = reader_pb2.AsOf()
    before.time.FromMicroseconds(min(time.ToMicroseconds() for time in times.values()) - 1)
    assert contents_at(writer, namespace, before) == {}
    before.time.FromMicroseconds(-1)
    assert contents_at(replica, namespace, before) == {}


def test_a_revision_to_come_is_refused(writer: Stubs, replica: Stubs, namespace: str) -> None:
    newest = add(writer, namespace, Memory(id="a", content="one")).revision
    ahead = reader_pb2.AsOf(revision=newest + 10**9)
    refused = error_of(lambda: contents_at(writer, namespace, ahead))
    assert (refused[0], refused[2]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "as_of.revision")
    # A replica may only be behind: another node is worth asking.
    behind = error_of(lambda: contents_at(replica, namespace, ahead))
    assert behind[:2] == (grpc.StatusCode.UNAVAILABLE, "REPLICA_STALE")


def test_a_list_as_of_then_goes_on_page_by_page_while_writes_go_on(writer: Stubs, namespace: str) -> None:
    memories = [Memory(id=f"m{number:02}", content=f"old {number}") for number in range(20)]
    revision = add(writer, namespace, *memories).revision
    seen: list[str] = []
    token = ""
    while True:
        page = writer.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(
                namespace=namespace,
                page_size=6,
                page_token=token,
                as_of=reader_pb2.AsOf(revision=revision),
            )
        )
        seen += [memory.content for memory in page.memories]
        number = len(seen) - 1
        update(writer, namespace, Memory(id=f"m{19 - number % 20:02}", content="new"), "content")
        add(writer, namespace, Memory(id=f"m{number:02}-later", content="new"))
        token = page.next_page_token
        if not token:
            break
    assert seen == [memory.content for memory in memories]


def test_a_way_too_far_into_the_past_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(history_module, "MAX_WALKED_VERSIONS", 10)
    store = Store(tmp_path / "store", map_size_bytes=2**24, max_map_size_bytes=2**24)
    for version in range(1, 13):
        memory = Memory(namespace="ns", id="a", content="tea", version=version)
        store.commit(lambda transaction, memory=memory: transaction.append([Change(memory)], 1))  # type: ignore[misc]

    def at(revision: int) -> list[Memory]:
        request = reader_pb2.GetMemoriesRequest(
            namespace="ns", ids=["a"], as_of=reader_pb2.AsOf(revision=revision)
        )
        return list(reader_pb2.GetMemoriesResponse.FromString(get_memories(store, request, 1)).memories)

    assert [memory.version for memory in at(3)] == [3]
    with pytest.raises(AgentMemError) as refused:
        at(2)
    assert refused.value.reason == "TOO_MANY_VERSIONS"
    store.close()


def test_retention_by_count_keeps_the_newest_and_says_so(writer: Stubs, namespace: str) -> None:
    configure(writer, namespace, "max_versions", max_versions=3)
    revisions = [add(writer, namespace, Memory(id="a", content="v1")).revision]
    for number in range(2, 7):
        content = Memory(id="a", content=f"v{number}")
        revisions.append(update(writer, namespace, content, "content").revision)
    answer = history(writer, namespace)
    assert [version.memory.content for version in answer.versions] == ["v6", "v5", "v4"]
    assert answer.pruned
    counts = stats(writer, namespace)
    assert (counts.memories, counts.versions, counts.pruned_versions) == (1, 3, 3)
    assert counts.settings.max_versions == 3
    assert contents_at(writer, namespace, reader_pb2.AsOf(revision=revisions[3])) == {"a": "v4"}
    for past in (
        reader_pb2.GetMemoriesRequest(
            namespace=namespace, ids=["a"], as_of=reader_pb2.AsOf(revision=revisions[2])
        ),
    ):
        refused = error_of(lambda past=past: writer.reader.GetMemories(past))  # type: ignore[misc]
        assert refused[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_PRUNED")


def test_a_lower_count_holds_for_what_is_there_already(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="v1"), Memory(id="b", content="v1"))
    for number in range(2, 8):
        for memory_id in "ab":
            update(writer, namespace, Memory(id=memory_id, content=f"v{number}"), "content")
    configure(writer, namespace, "max_versions", max_versions=2)
    wait_until(lambda: stats(writer, namespace).versions == 4, "old versions are pruned")
    assert stats(writer, namespace).pruned_versions == 10


def test_retention_by_age_forgets_deleted_memories_at_last(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    first = add(writer, namespace, Memory(id="a", content="v1"), Memory(id="b", content="b1")).revision
    update(writer, namespace, Memory(id="a", content="v2"), "content")
    deleted = delete(writer, namespace, "a")
    configure(writer, namespace, "max_version_age", max_version_age=timedelta(milliseconds=300))
    wait_until(lambda: stats(writer, namespace).versions == 1, "only b is left")
    assert error_of(lambda: history(writer, namespace))[1] == "MEMORY_NOT_FOUND"
    counts = stats(writer, namespace)
    assert (counts.memories, counts.pruned_versions, counts.history_start_revision) == (1, 3, deleted)
    for stubs in (writer, replica):
        wait_until(lambda stubs=stubs: stats(stubs, namespace) == counts, "both are pruned")  # type: ignore[misc]
        past = reader_pb2.AsOf(revision=first)
        assert error_of(lambda: contents_at(stubs, namespace, past))[1] == "HISTORY_PRUNED"  # noqa: B023
        assert contents_at(stubs, namespace, reader_pb2.AsOf(revision=deleted)) == {"b": "b1"}


@pytest.mark.parametrize(
    ("paths", "fields", "field"),
    [
        ((), {}, "update_mask"),
        (("versions",), {}, "update_mask"),
        (("max_versions",), {"max_versions": 1001}, "settings.max_versions"),
        (("max_version_age",), {"max_version_age": timedelta(0)}, "settings.max_version_age"),
        (("max_version_age",), {"max_version_age": timedelta(-1)}, "settings.max_version_age"),
        (("vector_precision",), {"vector_precision": 9}, "settings.vector_precision"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    writer: Stubs, namespace: str, paths: tuple[str, ...], fields: dict[str, object], field: str
) -> None:
    refused = error_of(lambda: configure(writer, namespace, *paths, **fields))
    assert (refused[0], refused[2]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_half_precision_keeps_vectors_at_half_the_size(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    configure(writer, namespace, "vector_precision", vector_precision=writer_pb2.VECTOR_PRECISION_FLOAT16)
    texts = ["the boat is red", "tea with milk", "a walk in the rain"]
    memories = [Memory(id=f"m{number}", content=text) for number, text in enumerate(texts)]
    shared_cluster.wait_searchable(add(writer, namespace, *memories).revision)
    halves = get(writer, namespace, "m0", "m1", embedding=True).memories
    assert all(len(memory.embedding) == 4 * 256 for memory in halves)
    whole = namespace + "-whole"
    add(writer, whole, *memories)
    exact = get(writer, whole, "m0", embedding=True).memories[0].embedding
    assert exact != halves[0].embedding
    search = reader_pb2.SearchMemoriesRequest(namespace=namespace, embedding=exact)
    best = replica.reader.SearchMemories(search).hits[0]
    assert best.memory.id == "m0"
    assert best.score == pytest.approx(1.0, abs=1e-4)
    # An update of another field carries the very same vector on.
    update(writer, namespace, Memory(id="m0", tags=["x"]), "tags")
    assert get(writer, namespace, "m0", embedding=True).memories[0].embedding == halves[0].embedding


def test_retention_holds_when_the_caller_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def configure_and_go() -> None:
        store = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
        store.found_cluster()
        queue = CommitQueue(
            store, max_commands=8, max_bytes=MIB, on_commit=lambda: None, on_failure=lambda error: None
        )
        sweeper = Sweeper(store, queue, max_log_bytes=MIB, max_log_age_s=60)
        watched: list[str] = []
        monkeypatch.setattr(sweeper, "watch", watched.append)
        membership = Membership("writer", "localhost:1", store.position, on_join=lambda address: None)
        embedders = Embedders(["none"])
        reembedder = Reembedder(store, queue, embedders)
        service = WriterService(store, queue, embedders, membership, sweeper, reembedder)
        request = writer_pb2.UpdateNamespaceRequest(
            namespace="ns", settings=writer_pb2.NamespaceSettings(max_versions=2)
        )
        request.update_mask.paths.append("max_versions")
        # It asks for nothing that the context of a call is needed for.
        call = asyncio.create_task(service.UpdateNamespace(request, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it begins
        await asyncio.sleep(0)  # its change is submitted
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await queue.close()
        await asyncio.sleep(0.1)
        assert store.position().revision == 1
        assert watched == ["ns"]
        service.close()
        store.close()

    asyncio.run(configure_and_go())
