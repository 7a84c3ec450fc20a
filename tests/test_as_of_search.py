"""SearchMemories with as_of, as a caller sees it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import add, error_of, update
from cluster import Cluster, Stubs, wait_until
from memories import Replica, condition
from test_history import configure, delete, stats
from written_past import NAMESPACE, WORDS, WrittenPast

from agentmem.core.embedders import NO_EMBEDDER, Embedders
from agentmem.core.errors import AgentMemError
from agentmem.core.history import Moment, commit_time_us
from agentmem.core.watching import Watches
from agentmem.replica import past_namespace, past_views, searcher
from agentmem.replica.answer_cache import MAX_CACHED_BYTES
from agentmem.replica.consistent_reads import Part
from agentmem.replica.past_views import PastViews
from agentmem.replica.reader_service import ReplicaReader
from agentmem.replica.scopes import Scopes
from agentmem.replica.search import ScoredOrdinal, SearchQuery
from agentmem.replica.search import search as search_view
from agentmem.replica.trace import Trace
from agentmem.replica.view import View
from agentmem.server.deletion import DeleteById
from agentmem.server.retention import TrimLog
from agentmem.v1 import consistency_pb2, filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory
AsOf = reader_pb2.AsOf
SEMANTIC = reader_pb2.SEARCH_MODE_SEMANTIC
TEXT = reader_pb2.SEARCH_MODE_TEXT
HYBRID = reader_pb2.SEARCH_MODE_HYBRID
ANAS = condition("user_id", filter_pb2.OPERATOR_EQ, "ana")


def search(
    stubs: Stubs, namespace: str, as_of: AsOf | None = None, text: str = "boat", **fields: object
) -> reader_pb2.SearchMemoriesResponse:
    request = reader_pb2.SearchMemoriesRequest(
        namespace=namespace,
        text=text,
        as_of=as_of,
        **fields,  # type: ignore[arg-type]
    )
    return stubs.reader.SearchMemories(request)


def contents(response: reader_pb2.SearchMemoriesResponse) -> list[str]:
    return [hit.memory.content for hit in response.hits]


def ids(response: reader_pb2.SearchMemoriesResponse) -> list[str]:
    return [hit.memory.id for hit in response.hits]


def all_answers(stubs: Stubs, namespace: str, as_of: AsOf | None = None) -> list[object]:
    """Of every mode, with a filter and without, as far as it is the same on every replica."""
    found: list[object] = []
    for node in (None, ANAS):
        semantic = search(stubs, namespace, as_of, "the boat in the rain", mode=SEMANTIC, filter=node)
        # One product of all rows is rounded otherwise than one of some.
        found.append([(str(hit.memory), round(hit.score, 5)) for hit in semantic.hits])
        # The average length of a text is that of all namespaces, so that scores differ a little.
        found.append(set(contents(search(stubs, namespace, as_of, mode=TEXT, filter=node))))
        found.append(set(contents(search(stubs, namespace, as_of, mode=HYBRID, filter=node))))
    return found


def test_searches_of_each_revision_answer_as_they_did(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    steps: list[Callable[[], int]] = [
        lambda: add(writer, namespace, Memory(id="a", content="a red boat", user_id="ana")).revision,
        lambda: add(writer, namespace, Memory(id="b", content="rain on a boat", user_id="ben")).revision,
        lambda: update(writer, namespace, Memory(id="a", content="a blue boat"), "content").revision,
        lambda: update(writer, namespace, Memory(id="b", user_id="ana"), "user_id").revision,
        lambda: delete(writer, namespace, "a"),
        lambda: add(writer, namespace, Memory(id="a", content="no ship", user_id="ana")).revision,
    ]
    then = []
    for step in steps:
        revision = step()
        shared_cluster.wait_searchable(revision)
        listed = writer.reader.GetMemoryHistory(
            reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id="a")
        ).versions
        times = [each.memory.update_time for each in listed if each.revision == revision]
        then.append((AsOf(revision=revision), all_answers(replica, namespace)))
        then += [(AsOf(time=time), then[-1][1]) for time in times]
    assert len({str(answers) for _, answers in then}) == len(steps)
    with Stubs(shared_cluster.replicas[1].address) as other:
        for as_of, answers in then:
            assert all_answers(replica, namespace, as_of) == answers
            assert all_answers(other, namespace, as_of) == answers
    before = AsOf(revision=then[0][0].revision - 1)
    assert not search(replica, namespace, before).hits
    newest = search(replica, namespace, then[0][0])
    assert newest.applied_revision >= revision
    assert newest.epoch == search(replica, namespace).epoch


def test_an_expired_memory_is_there_for_a_revision_and_not_for_a_time(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    kept = Memory(id="kept", content="a boat")
    brief = Memory(id="brief", content="another boat", ttl=timedelta(seconds=1))
    revision = add(writer, namespace, kept, brief).revision
    shared_cluster.wait_searchable(revision)
    hits = search(replica, namespace, AsOf(revision=revision)).hits
    (expires,) = [hit.memory.expire_time for hit in hits if hit.memory.id == "brief"]
    wait_until(lambda: stats(replica, namespace).memories == 1, "the expired memory is swept")
    assert set(ids(search(replica, namespace, AsOf(revision=revision)))) == {"kept", "brief"}
    at = AsOf()
    for offset_us, found in ((-1, {"kept", "brief"}), (0, {"kept"})):
        at.time.FromMicroseconds(expires.ToMicroseconds() + offset_us)
        assert set(ids(search(replica, namespace, at))) == found


def test_what_was_purged_was_never_there(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    revision = add(
        writer, namespace, Memory(id="a", content="my boat"), Memory(id="b", content="your boat")
    ).revision
    later = update(writer, namespace, Memory(id="b", content="our boat"), "content").revision
    shared_cluster.wait_searchable(later)
    assert set(contents(search(replica, namespace, AsOf(revision=revision)))) == {"my boat", "your boat"}
    request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a"], purge=True)
    purged = writer.writer.DeleteMemories(request).revision
    shared_cluster.wait_searchable(purged)
    for mode in (SEMANTIC, TEXT, HYBRID):
        assert contents(search(replica, namespace, AsOf(revision=revision), mode=mode)) == ["your boat"]


def test_what_retention_removed_is_said_to_be_missing(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    revisions = [add(writer, namespace, Memory(id="a", content="boat 0")).revision]
    for number in range(1, 4):
        content = Memory(id="a", content=f"boat {number}")
        revisions.append(update(writer, namespace, content, "content").revision)
    shared_cluster.wait_searchable(revisions[-1])
    assert contents(search(replica, namespace, AsOf(revision=revisions[0]))) == ["boat 0"]
    configure(writer, namespace, "max_versions", max_versions=2)
    wait_until(lambda: stats(replica, namespace).versions == 2, "the replica has pruned")
    for revision in revisions[:2]:
        refused = error_of(lambda revision=revision: search(replica, namespace, AsOf(revision=revision)))  # type: ignore[misc]
        assert refused[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_PRUNED")
        assert refused[2]["field"] == "as_of"
    assert contents(search(replica, namespace, AsOf(revision=revisions[2]))) == ["boat 2"]


def test_what_retention_removes_from_the_newest_moment_is_refused_and_not_left_out(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    """The view may take itself for that moment for a while after the store has lost a version of it."""
    configure(writer, namespace, "max_versions", max_versions=1)
    memories = [Memory(id=f"m{number}", content=f"boat {number}") for number in range(10)]
    revision = add(writer, namespace, *memories).revision

    def refused() -> bool:
        try:
            assert len(search(replica, namespace, AsOf(revision=revision)).hits) == 10
        except grpc.RpcError as error:
            assert "as_of reaches too far back" in str(error)  # noqa: PT017
            return True
        return False

    for turn in range(20):
        shared_cluster.wait_searchable(revision)
        changed = Memory(id=f"m{turn % 10}", content=f"boat {turn}")
        newest = update(writer, namespace, changed, "content").revision
        wait_until(refused, "what was removed is noticed")
        revision = newest


def test_moments_that_cannot_be_are_refused(writer: Stubs, replica: Stubs, namespace: str) -> None:
    newest = add(writer, namespace, Memory(id="a", content="boat")).revision
    refused = error_of(lambda: search(replica, namespace, AsOf(revision=newest + 10**9)))
    # Not "ask another node": there is no node that has it.
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused[2]["field"] == "as_of.revision"
    never = AsOf()
    never.time.seconds = 10**12
    refused = error_of(lambda: search(replica, namespace, never))
    assert (refused[0], refused[2]["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "as_of.time")
    demanded = consistency_pb2.Consistency(min_revision=newest)
    replica.reader.GetStats(reader_pb2.GetStatsRequest(namespace=namespace, consistency=demanded))
    assert not search(replica, namespace + "-unknown", AsOf(revision=newest)).hits


def test_a_search_of_what_was_just_written_shows_it_or_says_that_it_cannot(
    writer: Stubs, replica: Stubs, namespace: str
) -> None:
    """Also when the store has it and the indexes do not show it yet."""
    add(writer, namespace, Memory(id="a", content="boat"))
    for number in range(10):
        content = Memory(id="a", content=f"boat {number}")
        as_of = AsOf(revision=update(writer, namespace, content, "content").revision)

        def shown(as_of: AsOf = as_of) -> list[str]:
            try:
                return contents(search(replica, namespace, as_of))
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                assert "as_of.revision" in str(error)  # noqa: PT017
                return []

        wait_until(lambda: bool(shown()), "the revision is shown")
        assert shown() == [f"boat {number}"]


def test_each_search_of_a_batch_has_its_own_moment_and_outcome(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    first = add(writer, namespace, Memory(id="a", content="boat 1")).revision
    second = update(writer, namespace, Memory(id="a", content="boat 2"), "content").revision
    shared_cluster.wait_searchable(second)

    def of(**fields: object) -> reader_pb2.SearchMemoriesRequest:
        return reader_pb2.SearchMemoriesRequest(
            namespace=namespace,
            text="boat",
            **fields,  # type: ignore[arg-type]
        )

    requests = [
        of(),
        of(as_of=AsOf(revision=first)),
        of(as_of=AsOf(revision=second)),
        of(as_of=AsOf(revision=first - 1)),
        of(as_of=AsOf(revision=second + 10**9)),
        of(as_of=AsOf(revision=first), top_k=-1),
        of(as_of=AsOf(revision=first), embedding=b"\x00\x00\x80\x3f"),
        reader_pb2.SearchMemoriesRequest(text="boat", as_of=AsOf(revision=first)),
        of(as_of=AsOf(revision=first), mode=TEXT),
    ]
    answer = replica.reader.BatchSearchMemories(reader_pb2.BatchSearchMemoriesRequest(requests=requests))
    outcomes = [
        result.failure.reason if result.HasField("failure") else contents(result.response)
        for result in answer.results
    ]
    assert outcomes == [
        ["boat 2"],
        ["boat 1"],
        ["boat 2"],
        [],
        "INVALID_FIELD",
        "INVALID_FIELD",
        "DIMENSION_MISMATCH",
        "NAMESPACE_REQUIRED",
        ["boat 1"],
    ]


class Past:
    """A store with memories that have all been changed since ``revision``, and views of its past."""

    def __init__(self, replica: Replica, count: int = 20) -> None:
        self.store = replica.store
        written = WrittenPast(replica.store, 1)
        self.memories = [written.memory(f"m{number}") for number in range(count)]
        for memory in self.memories:
            memory.ClearField("expire_time")
        self.revisions = [written.add(memory) for memory in self.memories]
        self.written = written
        self.views = PastViews(replica.store, lambda: replica.indexer.view)

    async def build(self, revision: int, *, wait_s: float = 30.0) -> past_views.PastView:
        return await self.views.build(NAMESPACE, Moment(0, revision=revision), needs_text=True, wait_s=wait_s)

    def find(self, revision: int) -> past_views.PastView | None:
        return self.views.find(NAMESPACE, Moment(0, revision=revision), needs_text=True)


def test_a_build_that_takes_too_long_goes_on_and_is_found_by_who_asks_again(tmp_path: Path) -> None:
    async def ask() -> None:
        with pytest.raises(AgentMemError) as refused:
            await past.build(revision, wait_s=0.0)
        assert (refused.value.reason, refused.value.code) == ("PAST_NOT_READY", grpc.StatusCode.UNAVAILABLE)
        assert refused.value.retry_after_s

    with Replica(tmp_path) as replica:
        past = Past(replica)
        revision = past.revisions[5]
        asyncio.run(ask())
        wait_until(lambda: past.find(revision) is not None, "the build has ended")
        found = past.find(revision)
        assert found is not None
        assert len(found.view.namespaces[NAMESPACE].live) == 6
        past.views.close()


def test_who_asks_for_the_same_moment_shares_one_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[past_views.PastView]:
        return list(await asyncio.gather(*(past.build(past.revisions[5]) for _ in range(5))))

    with Replica(tmp_path) as replica:
        past = Past(replica)
        monkeypatch.setattr(past_views, "MAX_WAITING_BUILDS", 1)
        sources = {id(view.source) for view in asyncio.run(ask())}
        assert len(sources) == 1
        found = past.find(past.revisions[5])
        assert found is not None
        assert id(found.source) in sources
        past.views.close()


def test_as_many_views_of_the_past_are_kept_as_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Replica(tmp_path) as replica:
        past = Past(replica)
        first, second, third = past.revisions[3:6]
        monkeypatch.setattr(past_views, "MAX_KEPT_NAMESPACES", 2)
        asyncio.run(past.build(first))
        asyncio.run(past.build(second))
        assert past.find(first) is not None  # used again
        asyncio.run(past.build(third))
        assert [past.find(revision) is not None for revision in (first, second, third)] == [True, False, True]
        monkeypatch.setattr(past_views, "MAX_KEPT_BYTES", 1)
        view = asyncio.run(past.build(second))
        assert len(view.view.namespaces[NAMESPACE].live) == 5
        assert [past.find(revision) for revision in (first, second, third)] == [None] * 3
        past.views.close()


@pytest.mark.parametrize(("bound", "most"), [("MAX_PAST_VERSIONS", 19), ("MAX_PAST_BYTES", 10_000)])
def test_a_past_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    with Replica(tmp_path) as replica:
        past = Past(replica)
        monkeypatch.setattr(past_namespace, bound, most)
        with pytest.raises(AgentMemError) as refused:
            asyncio.run(past.build(past.revisions[18]))
        assert refused.value.reason == "PAST_TOO_LARGE"
        assert str(most) in refused.value.message
        past.views.close()


def test_too_many_builds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[object]:
        held = threading.Event()
        past.views._executor.submit(held.wait)
        calls = [asyncio.create_task(past.build(revision)) for revision in past.revisions[:4]]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        held.set()
        return [
            each.reason if isinstance(each, AgentMemError) else type(each).__name__
            for each in await asyncio.gather(*calls, return_exceptions=True)
        ]

    with Replica(tmp_path) as replica:
        past = Past(replica)
        monkeypatch.setattr(past_views, "MAX_WAITING_BUILDS", 2)
        assert asyncio.run(ask()) == ["PastView", "PastView", "OVERLOADED", "OVERLOADED"]
        past.views.close()


def test_the_time_of_a_revision_is_known_without_its_entry(tmp_path: Path) -> None:
    """So that recency counts from the same time whether the log still has the entry or not."""
    with Replica(tmp_path) as replica:
        past = Past(replica)
        store = past.store

        def times() -> list[int]:
            with store.read() as transaction:
                return [commit_time_us(transaction, revision) for revision in range(revisions + 1)]

        revisions = past.revisions[-1]
        with_log = times()
        assert len(set(with_log)) > 5
        assert with_log[0] == 0
        past.written.run(TrimLog(max_bytes=0, max_age_us=0, keep_from_revision=revisions))
        with store.read() as transaction:
            assert transaction.first_log_revision == revisions
        assert times() == with_log
        past.views.close()


class Deadline:
    """What a call has left of its time, as gRPC's context tells it."""

    def __init__(self, seconds: float) -> None:
        self._ends_s = time.monotonic() + seconds

    def time_remaining(self) -> float:
        return self._ends_s - time.monotonic()


def reader_of(replica: Replica, embedders: Embedders | None = None) -> ReplicaReader:
    """The service over a store and its indexer, for searches that demand nothing."""
    unused: Any = None
    return ReplicaReader(
        replica.store,
        Watches(replica.store, unused, is_writer=False),
        embedders or Embedders([NO_EMBEDDER]),
        view=lambda: replica.indexer.view,
        consistent_reads=unused,
        store_part=Part("store", lambda: replica.store.position().revision, unused),
        view_part=unused,
        check_serving=lambda: None,
        search_threads=2,
        answer_cache_bytes=MAX_CACHED_BYTES,
        index_folder=replica.index_path,
    )


def test_what_is_purged_while_a_search_looks_at_it_is_not_in_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purge_then_search(
        view: View, query: SearchQuery, trace: Trace, scopes: Scopes | None
    ) -> list[ScoredOrdinal]:
        hits = search_view(view, query, trace, scopes)
        if purges:
            past.written.run(DeleteById(NAMESPACE, [purges.pop()], True, None, None, 0))
        return hits

    monkeypatch.setattr(searcher, "search", purge_then_search)
    with Replica(tmp_path) as replica:
        past = Past(replica)
        replica.indexer.notify()
        replica.wait_for_revision(past.revisions[-1])
        reader = reader_of(replica)
        no_deadline: Any = Deadline(60.0)
        gone = set()
        for revision, purges in ((past.revisions[9], ["m3"]), (past.revisions[-1], ["m5"])):
            gone |= {*purges}
            expected = {memory.id for memory in past.memories[: past.revisions.index(revision) + 1]} - gone
            request = reader_pb2.SearchMemoriesRequest(
                namespace=NAMESPACE,
                text=" ".join(WORDS),
                mode=TEXT,
                top_k=len(expected),
                as_of=AsOf(revision=revision),
            )
            answer = asyncio.run(reader.SearchMemories(request, no_deadline))
            hits = reader_pb2.SearchMemoriesResponse.FromString(answer).hits
            found = {hit.memory.id for hit in hits}
            assert not purges
            assert found == expected
        reader.close()
        past.views.close()


def test_a_search_that_waits_for_its_past_leaves_the_others_of_a_batch_their_answers(tmp_path: Path) -> None:
    async def ask() -> list[str]:
        requests = [
            reader_pb2.SearchMemoriesRequest(namespace=NAMESPACE, text=WORDS[0], mode=TEXT, as_of=as_of)
            for as_of in (None, AsOf(revision=past.revisions[5]), AsOf(revision=past.revisions[-1]))
        ]
        deadline: Any = Deadline(1.5)
        answer = await reader.BatchSearchMemories(
            reader_pb2.BatchSearchMemoriesRequest(requests=requests), deadline
        )
        assert deadline.time_remaining() > 0
        results = reader_pb2.BatchSearchMemoriesResponse.FromString(answer).results
        return [result.failure.reason or f"{len(result.response.hits) > 0}" for result in results]

    with Replica(tmp_path) as replica:
        past = Past(replica)
        replica.indexer.notify()
        replica.wait_for_revision(past.revisions[-1])
        reader = reader_of(replica)
        held = threading.Event()
        reader._past_views._executor.submit(held.wait)
        assert asyncio.run(ask()) == ["True", "PAST_NOT_READY", "True"]
        held.set()
        reader.close()
        past.views.close()
