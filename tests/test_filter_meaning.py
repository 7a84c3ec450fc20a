"""One meaning of a filter in every call that takes one: that of a plain loop over the memories."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import get_args

import grpc
import numpy as np
import pytest
from cluster import Cluster, Stubs
from drawn_filters import FILTERS, WORD, compiled, holds, memories
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import Replica, condition

from agentmem.core.changes import ChangeReader, Place, WatchQuery
from agentmem.core.exporting import ExportPlace, ExportQuery, export_frame
from agentmem.core.history import Moment
from agentmem.core.purged_ordinals import PurgedOrdinals
from agentmem.core.reading import list_memories
from agentmem.core.times import now_us
from agentmem.replica.search import Mode
from agentmem.server.deletion import _find_matching
from agentmem.v1 import consistency_pb2, filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory
MAX_TOP_K = 1000
VECTOR = np.array([1.0, 0.0, 0.0], dtype=np.float32)
SENTINEL = "the last one"


@st.composite
def lives(draw: st.DrawFn, max_size: int) -> tuple[list[Memory], list[Memory], list[str]]:
    """Memories with different ids, what some of them become, and the ids of some that are deleted."""
    first = draw(st.lists(memories(), min_size=1, max_size=max_size, unique_by=lambda memory: memory.id))
    ids = [memory.id for memory in first]
    later = draw(st.lists(memories(), max_size=3, unique_by=lambda memory: memory.id))
    updates = [memory for memory in later if memory.id in ids]
    deleted = draw(st.lists(st.sampled_from(ids), max_size=2, unique=True))
    return first, updates, deleted


def matching(stored: Sequence[Memory], message: filter_pb2.Filter) -> list[str]:
    return sorted((memory.id for memory in stored if holds(message, memory)), key=str.encode)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with Replica(tmp_path_factory.mktemp("replica")) as replica:
        yield replica


class TestInProcess:
    """On one store with its indexer; each example has a namespace of its own."""

    @settings(max_examples=40)
    @given(lives(max_size=9), st.lists(FILTERS, min_size=1, max_size=6))
    def test_all_find_the_same(
        self,
        replica: Replica,
        given_lives: tuple[list[Memory], list[Memory], list[str]],
        filters: list[filter_pb2.Filter],
    ) -> None:
        namespace = uuid.uuid4().hex
        first, updates, deleted = given_lives
        for memory in (*first, *updates):
            memory.namespace = namespace
        began = replica.store.position().revision
        replica.put(first, np.tile(VECTOR, (len(first), 1)))
        if updates:
            replica.put(updates, np.tile(VECTOR, (len(updates), 1)))
        if deleted:
            replica.delete(deleted, namespace)
        newest = {memory.id: memory for memory in (*first, *updates)}
        live = [memory for memory in newest.values() if memory.id not in deleted]

        for message in filters:
            expected = matching(live, message)
            assert self.listed(replica, namespace, message) == expected
            assert self.exported(replica, namespace, message) == expected
            found, _ = _find_matching(
                replica.store, namespace, compiled(message), False, after="", time_us=now_us()
            )
            assert found == expected
            self.compare_searches(replica, namespace, message, expected)
            self.compare_changes(replica, namespace, message, began, (first, updates, deleted))

    def listed(self, replica: Replica, namespace: str, message: filter_pb2.Filter) -> list[str]:
        request = reader_pb2.ListMemoriesRequest(namespace=namespace, filter=message)
        return [memory.id for memory in list_memories(replica.store, request, now_us()).memories]

    def exported(self, replica: Replica, namespace: str, message: filter_pb2.Filter) -> list[str]:
        moment = Moment(now_us(), revision=replica.store.position().revision)
        query = ExportQuery(namespace, moment, compiled(message), newest_only=True)
        frame, _ = export_frame(replica.store, query, ExportPlace())
        return [version.memory.id for version in frame.versions]

    def compare_searches(
        self, replica: Replica, namespace: str, message: filter_pb2.Filter, expected: list[str]
    ) -> None:
        view = replica.wait_for_revision(replica.store.position().revision)
        for mode in get_args(Mode):
            found = replica.search(
                view,
                WORD,
                VECTOR,
                mode=mode,
                node=compiled(message),
                top_k=MAX_TOP_K,
                namespace=namespace,
            )
            assert sorted(found, key=str.encode) == expected, mode

    def compare_changes(
        self,
        replica: Replica,
        namespace: str,
        message: filter_pb2.Filter,
        began: int,
        given_lives: tuple[list[Memory], list[Memory], list[str]],
    ) -> None:
        """A watch tells a change when the memory matched after it or before it."""
        first, updates, deleted = given_lives
        known: dict[str, Memory] = {}
        expected = []
        for memory in (*first, *updates):
            before = memory.id in known and holds(message, known[memory.id])
            known[memory.id] = memory
            if holds(message, memory) or before:
                expected.append((memory.id, holds(message, memory)))
        expected += [(memory_id, False) for memory_id in deleted if holds(message, known[memory_id])]
        place = Place(replica.store.position().epoch, began)
        query = WatchQuery(namespace, compiled(message))
        step = ChangeReader(replica.store, query, place, PurgedOrdinals()).step()
        assert step.is_level
        assert [(change.memory.id, change.matches) for change in step.changes] == expected


def served_modes(replica: Stubs) -> list[int]:
    """The modes that replicas serve: with the ones that come later, too."""
    # Of a namespace that is not there, so that it finds nothing; a mode that is not served is refused.
    modes = []
    for mode in reader_pb2.SearchMode.values()[1:]:
        request = reader_pb2.SearchMemoriesRequest(namespace="none", text=WORD, mode=mode)  # type: ignore[arg-type]
        try:
            replica.reader.SearchMemories(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
        else:
            modes.append(mode)
    assert len(modes) >= 3
    return modes


@settings(max_examples=8)
@given(lives(max_size=8), st.lists(FILTERS, min_size=2, max_size=5))
def test_a_cluster_finds_the_same_in_every_call(
    shared_cluster: Cluster,
    writer: Stubs,
    given_lives: tuple[list[Memory], list[Memory], list[str]],
    filters: list[filter_pb2.Filter],
) -> None:
    namespace = uuid.uuid4().hex
    began = write(writer, namespace, given_lives)
    # It ends what is watched, and is not found by its word.
    revision = add(writer, namespace, [Memory(id=SENTINEL, content="x")])
    stored = listed(writer, namespace, filter_pb2.Filter(), revision)
    worded = [memory.id for memory in stored if memory.id != SENTINEL]
    with Stubs(shared_cluster.replicas[0].address) as node:
        modes = served_modes(node)
        for message in filters:
            expected = matching(stored, message)
            for stubs in (writer, node):
                assert [memory.id for memory in listed(stubs, namespace, message, revision)] == expected
                assert exported(stubs, namespace, message, revision) == expected
                check_watched(stubs, namespace, message, began, expected)
            for mode in modes:
                found = set(searched(node, namespace, message, mode, revision)) - {SENTINEL}
                assert found == set(expected).intersection(worded), mode
        for message in filters:
            expected = matching(stored, message)
            request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, filter=message)
            response = writer.writer.DeleteMemories(request, timeout=10)
            assert list(response.deleted_ids) == expected
            stored = [memory for memory in stored if memory.id not in expected]
        left = listed(node, namespace, filter_pb2.Filter(), response.revision)
        assert [memory.id for memory in left] == [memory.id for memory in stored]


def write(writer: Stubs, namespace: str, given_lives: tuple[list[Memory], list[Memory], list[str]]) -> int:
    """Adds, updates and deletes; returns the revision before all of it."""
    first, updates, deleted = given_lives
    for memory in (*first, *updates):
        for field in ("create_time", "update_time", "version", "namespace", "embedding_model"):
            memory.ClearField(field)
        if memory.type > memory_pb2.MEMORY_TYPE_WORKING:
            memory.ClearField("type")
    began = add(writer, namespace, first) - 1
    for memory in updates:
        request = writer_pb2.UpdateMemoryRequest(namespace=namespace, memory=memory)
        request.update_mask.paths.extend(["user_id", "tags", "metadata", "importance", "event_time"])
        writer.writer.UpdateMemory(request, timeout=10)
    if deleted:
        gone = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=deleted)
        writer.writer.DeleteMemories(gone, timeout=10)
    return began


def add(writer: Stubs, namespace: str, given: Sequence[Memory]) -> int:
    request = writer_pb2.AddMemoriesRequest(namespace=namespace, memories=given)
    return writer.writer.AddMemories(request, timeout=10).revision


def at_least(revision: int) -> consistency_pb2.Consistency:
    return consistency_pb2.Consistency(min_revision=revision)


def listed(stubs: Stubs, namespace: str, message: filter_pb2.Filter, revision: int) -> list[Memory]:
    request = reader_pb2.ListMemoriesRequest(
        namespace=namespace, filter=message, consistency=at_least(revision)
    )
    return list(stubs.reader.ListMemories(request, timeout=10).memories)


def exported(stubs: Stubs, namespace: str, message: filter_pb2.Filter, revision: int) -> list[str]:
    request = reader_pb2.ExportMemoriesRequest(
        namespace=namespace, filter=message, newest_only=True, consistency=at_least(revision)
    )
    frames = stubs.reader.ExportMemories(request, timeout=10)
    return [version.memory.id for frame in frames for version in frame.versions]


def searched(stubs: Stubs, namespace: str, message: filter_pb2.Filter, mode: int, revision: int) -> list[str]:
    request = reader_pb2.SearchMemoriesRequest(
        namespace=namespace,
        text=WORD,
        mode=mode,  # type: ignore[arg-type]
        filter=message,
        top_k=MAX_TOP_K,
        consistency=at_least(revision),
    )
    return [hit.memory.id for hit in stubs.reader.SearchMemories(request, timeout=10).hits]


def check_watched(
    stubs: Stubs, namespace: str, message: filter_pb2.Filter, began: int, expected: Sequence[str]
) -> None:
    """The last change of each memory says whether it matches; of those that match all is told."""
    or_last = filter_pb2.FilterList(filters=[message, condition("id", filter_pb2.OPERATOR_EQ, SENTINEL)])
    request = reader_pb2.WatchMemoriesRequest(
        namespace=namespace, filter=filter_pb2.Filter(any_of=or_last), after={"revision": began}
    )
    stream = stubs.reader.WatchMemories(request, timeout=10)
    matches: dict[str, bool] = {}
    for response in stream:
        matches |= {change.memory.id: change.matches for change in response.changes}
        if SENTINEL in matches:
            break
    stream.cancel()
    del matches[SENTINEL]
    assert sorted(name for name, does in matches.items() if does) == sorted(set(expected) - {SENTINEL})
