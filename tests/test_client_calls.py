"""What the client makes of duplicates, ends, deletions, the past, and what namespaces keep and hold."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from cluster import Cluster, Stubs, wait_until

from agentmem.client import (
    STRONG,
    AddedMemory,
    AddOutcome,
    AddResult,
    AsyncClient,
    Breakdown,
    Client,
    DuplicatePolicy,
    Field,
    HistoryPruned,
    InvalidArgument,
    MemoryType,
    MemoryVersion,
    NamespaceSettings,
    NanosecondDatetime,
    NewMemory,
    NotFound,
    OwnerCounts,
    VectorPrecision,
    VersionKind,
    VersionMismatch,
    at_least,
)
from agentmem.client.sync_connection import ClientThread
from agentmem.client.versions import AsOf
from agentmem.v1 import reader_pb2


def test_duplicates_are_added_skipped_or_merged(client: Client, namespace: str) -> None:
    def add(**options: Any) -> AddResult:
        return client.add(namespace, "Likes tea", user_id="ana", **options)

    (first,) = add(tags=["a"], ttl=3600).memories
    assert first.outcome is AddOutcome.ADDED
    skipped = add(on_duplicate="skip", tags=["b"])
    assert skipped.memories == (AddedMemory(first.id, 1, AddOutcome.SKIPPED),)
    for _ in range(2):
        merged = add(on_duplicate=DuplicatePolicy.MERGE, tags=["b"])
        assert merged.memories == (AddedMemory(first.id, 2, AddOutcome.MERGED),)
    memory = client.get(namespace, first.id, as_of=merged.revision)
    assert memory is not None
    assert (memory.tags, memory.expire_time) == (("a", "b"), None)
    assert add(on_duplicate="add").memories[0].id != first.id
    # Within one batch too, and not across owners.
    batch = [NewMemory("x", user_id="ana"), NewMemory("x", user_id="ana"), NewMemory("x", user_id="ben")]
    added = client.add_many(namespace, batch, on_duplicate="skip").memories
    assert [each.outcome for each in added] == [AddOutcome.ADDED, AddOutcome.SKIPPED, AddOutcome.ADDED]
    assert added[0].id == added[1].id


def test_a_memory_ends_by_itself(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    for id, fields in {
        "time": {"expire_time": later},
        "delta": {"ttl": timedelta(days=1)},
        "seconds": {"ttl": 86400.0},
        "never": {"ttl": None, "expire_time": None},
    }.items():
        client.add(namespace, id, id=id, **fields)  # type: ignore[arg-type]
    revision = client.add(namespace, "soon", id="soon", ttl=0.2).revision
    found = {memory.id: memory for memory in client.list(namespace, as_of=revision).memories}
    assert found["time"].expire_time == later
    assert found["delta"].expire_time == found["delta"].create_time + timedelta(days=1)
    assert found["seconds"].expire_time == found["seconds"].create_time + timedelta(days=1)
    assert found["never"].expire_time is None
    shared_cluster.wait_searchable(revision)
    wait_until(lambda: client.get(namespace, "soon") is None, "it has ended")

    def ended() -> MemoryVersion:
        return client.history(namespace, "soon").versions[0]

    wait_until(lambda: ended().kind is VersionKind.EXPIRED, "the writer has deleted it")
    assert ended().memory.expire_time == found["soon"].expire_time
    # An update takes the end away, sets it anew, or leaves it as it is.
    assert client.update(namespace, "time", expire_time=None).expire_time is None
    assert client.update(namespace, "time", expire_time=later).expire_time == later
    assert client.update(namespace, "time", importance=1).expire_time == later
    updated = client.update(namespace, "time", ttl=60)
    assert updated.expire_time == updated.update_time + timedelta(seconds=60)


def test_deletion_by_id(client: Client, namespace: str) -> None:
    client.add_many(namespace, [NewMemory("text", id=id) for id in ("a", "b", "c")])
    with pytest.raises(VersionMismatch):
        client.delete(namespace, "a", expected_version=2)
    with pytest.raises(NotFound):
        client.delete(namespace, "none", expected_version=2)
    result = client.delete(namespace, ["a", "none"])
    assert (result.deleted_ids, result.missing_ids, result.deleted_count) == (("a",), ("none",), 1)
    assert result.receipt is None
    assert client.delete(namespace, "b", expected_version=1).deleted_count == 1


def test_deletion_by_filter_and_scope(client: Client, namespace: str) -> None:
    memories = [
        NewMemory(
            "text", id=f"m{number:04}", user_id="ana" if number % 2 else "ben", importance=number / 1000
        )
        for number in range(1000)
    ]
    client.add_many(namespace, memories)
    result = client.delete_matching(namespace, user_id="ana", filter=Field("importance") >= 0.9)
    assert result.deleted_count == len(result.deleted_ids) == 50
    assert result.deleted_ids[0] == "m0901"
    assert client.delete_matching(namespace, user_id="nobody").deleted_count == 0
    assert client.delete_matching(namespace, everything=True).deleted_count == 950


def test_a_purge_leaves_its_receipt_alone(
    shared_cluster: Cluster, client: Client, namespace: str, writer: Stubs
) -> None:
    client.add(namespace, "first words", id="a", user_id="ana")
    client.update(namespace, "a", content="other words", user_id="ben")
    client.add(namespace, "more", id="b", user_id="ana")
    client.delete(namespace, "b")
    client.add(namespace, "stays", id="c", user_id="ben")
    result = client.delete_matching(namespace, user_id="ana", purge=True)
    assert result.deleted_ids == ("a", "b")
    receipt = result.receipt
    assert receipt is not None
    assert (receipt.namespace, receipt.revision) == (namespace, result.revision)
    assert (receipt.memory_count, receipt.version_count) == (2, 4)
    assert receipt.ids_sha256 == hashlib.sha256(b"a\0b\0").digest()
    shared_cluster.wait_searchable(result.revision)
    status = client.purge_receipt(namespace, receipt.revision)
    assert status.receipt == receipt
    assert {node.node_id: node.applied for node in status.nodes} == {
        "writer": True,
        "replica-1": True,
        "replica-2": True,
    }
    for id in ("a", "b"):
        with pytest.raises(NotFound):
            client.history(namespace, id)
    by_id = client.delete(namespace, ["c", "a"], purge=True)
    assert (by_id.deleted_ids, by_id.missing_ids) == (("c",), ("a",))
    with pytest.raises(NotFound) as caught:
        client.purge_receipt(namespace, 1)
    assert caught.value.reason == "RECEIPT_NOT_FOUND"


def test_reads_of_the_past(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    first = client.add_many(namespace, [NewMemory("one", id="a"), NewMemory("one", id="b")])
    second = client.update(namespace, "a", content="two")
    deleted = client.delete(namespace, ["a", "b"])
    shared_cluster.wait_searchable(deleted.revision)
    before: tuple[AsOf, ...] = (first.revision, second.update_time - timedelta(microseconds=1))
    for as_of in before:
        assert client.get_many(namespace, ["a"], as_of=as_of).memories[0].content == "one"
        assert [memory.id for memory in client.list(namespace, as_of=as_of).memories] == ["a", "b"]
        found = list(client.iterate(namespace, as_of=as_of, page_size=1, filter=Field("id") == "b"))
        assert [memory.id for memory in found] == ["b"]
    at = client.get(namespace, "a", as_of=deleted.revision - 1)
    assert at is not None
    assert (at.content, at.version) == ("two", 2)
    after: tuple[AsOf, ...] = (deleted.revision, datetime.now(UTC), None)
    for as_of in after:
        assert client.get(namespace, "a", as_of=as_of) is None
    assert client.get(namespace, "a", as_of=0) is None
    with pytest.raises(InvalidArgument, match="newest revision"):
        client.get(namespace, "a", as_of=2**62)


def test_searches_of_the_past(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    first = client.add(namespace, "a red boat", id="a")
    second = client.update(namespace, "a", content="a blue boat")
    session = client.session()
    third = session.add(namespace, "a third boat", id="b")
    shared_cluster.wait_searchable(third.revision)
    moments: tuple[tuple[AsOf, list[str]], ...] = (
        (first.revision, ["a red boat"]),
        (second.update_time, ["a blue boat"]),
        (second.update_time - timedelta(microseconds=1), ["a red boat"]),
        (first.revision - 1, []),
    )
    for searching in (client, session):
        for as_of, expected in moments:
            found = searching.search(namespace, "boat", as_of=as_of)
            assert [hit.memory.content for hit in found.hits] == expected
            assert found.applied_revision >= second.revision
    assert {hit.memory.id for hit in session.search(namespace, "boat").hits} == {"a", "b"}


def test_searches_of_several_moments_may_travel_together(
    shared_cluster: Cluster, client: Client, namespace: str
) -> None:
    revisions = [client.add(namespace, "boat 0", id="a").revision]
    revisions += [client.update(namespace, "a", content=f"boat {n}").revision for n in range(1, 5)]
    newest = at_least(client.get_many(namespace, ["a"], consistency=STRONG))

    async def search_all() -> list[str]:
        async with AsyncClient(shared_cluster.writer.address, timeout_s=30.0) as other:
            found = await asyncio.gather(
                *(
                    other.search(namespace, "boat", as_of=as_of, consistency=newest)
                    for as_of in (*revisions, None)
                )
            )
            assert other.statistics().coalesced
        return [hit.memory.content for result in found for hit in result.hits]

    assert asyncio.run(search_all()) == [*(f"boat {n}" for n in range(5)), "boat 4"]


def test_a_revision_can_be_read_at_once_whoever_answers(client: Client, namespace: str) -> None:
    """A replica that does not have it yet sends the client on."""
    for number in range(50):
        revision = client.add(namespace, f"number {number}", id=str(number)).revision
        assert client.get(namespace, str(number), as_of=revision) is not None


def test_a_history_goes_page_by_page(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    client.add(namespace, "version 1", id="a")
    for number in range(2, 8):
        client.update(namespace, "a", content=f"version {number}")
    revision = client.delete(namespace, "a").revision
    shared_cluster.wait_searchable(revision)
    page = client.history(namespace, "a", page_size=3)
    assert [version.memory.version for version in page.versions] == [8, 7, 6]
    assert (page.versions[0].kind, page.versions[0].revision) == (VersionKind.DELETED, revision)
    assert page.next_page_token
    rest = list(client.iterate_history(namespace, "a", page_size=3, include_embedding=True))
    assert [version.memory.content for version in rest[1:]] == [f"version {n}" for n in range(7, 0, -1)]
    assert rest[1].memory.embedding is not None
    with pytest.raises(NotFound):
        client.history(namespace, "none")


def test_retention_and_what_is_kept(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    assert client.stats(namespace).namespace.settings == NamespaceSettings(0, None, VectorPrecision.FLOAT32)
    day = timedelta(days=1)
    assert client.update_namespace(namespace, max_versions=2, max_version_age=day) == NamespaceSettings(
        2, day, VectorPrecision.FLOAT32
    )
    assert client.update_namespace(namespace, vector_precision="float16") == NamespaceSettings(
        2, day, VectorPrecision.FLOAT16
    )
    settings = client.update_namespace(namespace, max_version_age=None)
    assert settings == NamespaceSettings(2, None, VectorPrecision.FLOAT16)
    revision = client.add(namespace, "version 1", id="a").revision
    for number in (2, 3, 4):
        client.update(namespace, "a", content=f"version {number}")
    shared_cluster.wait_settled()
    stats = client.stats(namespace).namespace
    assert (stats.versions, stats.pruned_versions, stats.settings) == (2, 2, settings)
    page = client.history(namespace, "a")
    assert [version.memory.version for version in page.versions] == [4, 3]
    assert page.pruned
    with pytest.raises(HistoryPruned) as caught:
        client.get(namespace, "a", as_of=revision)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("HISTORY_PRUNED", "as_of")


def test_stats(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    client.add_many(
        namespace, [NewMemory("text", id="a", embedding=[1, 0]), NewMemory("text", id="b", embedding=[0, 1])]
    )
    revision = client.delete(namespace, "a").revision
    shared_cluster.wait_searchable(revision)
    stats = client.stats(namespace)
    space, store = stats.namespace, stats.store
    assert (space.memories, space.vectors, space.versions, space.dimension) == (1, 1, 3, 2)
    assert (space.pruned_versions, space.history_start_revision, space.embedding_model) == (0, 0, "")
    assert stats.applied_revision == store.log_last_revision >= revision
    assert store.namespaces >= 1
    assert 0 < store.used_bytes <= store.file_bytes <= store.max_bytes
    assert store.log_bytes > 0
    assert (stats.breakdown, stats.indexes) == (None, None)


def test_a_breakdown_comes_from_a_replica(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    assert client.stats(namespace, breakdown=True).breakdown == Breakdown(
        searchable_revision=ANY,
        memories=0,
        types={},
        users=OwnerCounts(0, {}),
        agents=OwnerCounts(0, {}),
        sessions=OwnerCounts(0, {}),
        oldest_event_time=None,
        newest_event_time=None,
    )
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    memories = [
        NewMemory("one", user_id="ana", event_time=noon),
        NewMemory("two", user_id="ben", session_id="s", type=MemoryType.WORKING, event_time=noon),
        NewMemory("three", user_id="ben", event_time=noon + timedelta(days=1)),
    ]
    added = client.add_many(namespace, memories)
    for consistency in (at_least(added), STRONG):
        stats = client.stats(namespace, breakdown=True, consistency=consistency)
        assert stats.breakdown == Breakdown(
            searchable_revision=ANY,
            memories=3,
            types={MemoryType.EPISODIC: 2, MemoryType.WORKING: 1},
            users=OwnerCounts(2, {"ben": 2, "ana": 1}),
            agents=OwnerCounts(0, {}),
            sessions=OwnerCounts(1, {"s": 1}),
            oldest_event_time=noon,
            newest_event_time=noon + timedelta(days=1),
        )
        assert stats.breakdown is not None
        assert list(stats.breakdown.users.largest) == ["ben", "ana"]
        assert stats.indexes is not None
        assert stats.indexes.searchable_revision >= added.revision
        assert (stats.indexes.facet_rows, stats.indexes.tail_rows, stats.indexes.segments) == (3, 3, 0)


def test_nanoseconds_of_others_survive_a_client(client: Client, namespace: str, writer: Stubs) -> None:
    exact = NanosecondDatetime.of(datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC), 789)
    revision = client.add(namespace, "text", id="a", event_time=exact).revision
    read = client.get(namespace, "a", as_of=revision)
    assert read is not None
    assert isinstance(read.event_time, NanosecondDatetime)
    client.update(namespace, "a", event_time=read.event_time)
    stored = writer.reader.GetMemories(
        reader_pb2.GetMemoriesRequest(namespace=namespace, ids=["a"])
    ).memories[0]
    assert stored.event_time.nanos == 123456789


def test_the_asynchronous_client_has_the_same_calls(shared_cluster: Cluster, namespace: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(shared_cluster.writer.address, timeout_s=30) as client:
            await client.update_namespace(namespace, max_versions=5)
            added = await client.add(namespace, "text", id="a", ttl=60, on_duplicate="merge")
            assert await client.get(namespace, "a", as_of=added.revision) is not None
            deleted = await client.delete_matching(namespace, filter=Field("id") == "a", purge=True)
            assert deleted.receipt is not None
            status = await client.purge_receipt(namespace, deleted.revision)
            assert status.receipt == deleted.receipt

    asyncio.run(scenario())


def test_a_wait_that_is_cut_off_ends_its_call_as_well() -> None:
    class CutOffError(Exception):
        pass

    def cut_off(signal_number: int, frame: object) -> None:
        raise CutOffError

    def calls(thread: ClientThread) -> set[str]:
        names = {task.get_name() for task in asyncio.all_tasks(thread._loop)}
        return names - {"agentmem topology watch"}

    before = signal.signal(signal.SIGALRM, cut_off)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=60.0) as client,
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(CutOffError):
                client.get("n", "m")
            wait_until(lambda: not calls(client._thread), "the call has ended", timeout_s=10.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_before_the_wake_of_the_event_loop_keeps_nobody_waiting() -> None:
    began = []

    async def call(number: int) -> int:
        began.append(number)
        return number

    with Client("127.0.0.1:1") as client:
        thread = client._thread
        wake = thread._loop.call_soon_threadsafe

        def interrupted(*arguments: Any) -> None:
            thread._loop.call_soon_threadsafe = wake  # type: ignore[method-assign]
            raise KeyboardInterrupt

        thread._loop.call_soon_threadsafe = interrupted  # type: ignore[method-assign, assignment]
        with pytest.raises(KeyboardInterrupt):
            thread.run(call(1))
        assert thread.run(call(2)) == 2
    assert began == [2]


def test_calls_that_begin_at_once_have_each_the_context_of_its_thread() -> None:
    mark: ContextVar[int] = ContextVar("mark")
    gate = threading.Event()

    async def marked() -> int:
        return mark.get()

    with Client("127.0.0.1:1") as client, ThreadPoolExecutor(4) as threads:
        thread = client._thread

        def ask(number: int) -> int:
            mark.set(number)
            return thread.run(marked())

        thread._loop.call_soon_threadsafe(gate.wait)
        asked = [threads.submit(ask, number) for number in range(4)]
        wait_until(lambda: len(thread._handed) == 4, "all have handed over their calls")
        gate.set()
        assert [each.result() for each in asked] == [0, 1, 2, 3]


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
