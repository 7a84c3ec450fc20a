"""A real store and the model of it, given the same commands; every answer is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from drawn_requests import IDS, NAMESPACES, NamedFilter, WriteRequest
from google.protobuf.message import Message
from model import COMING_DIMENSION, Model, coming_vector
from model_state import Refused, Version, in_order

from agentmem.core.errors import AgentMemError
from agentmem.core.exporting import ExportPlace, ExportQuery, export_frame
from agentmem.core.filters import compile_filter
from agentmem.core.history import Moment
from agentmem.core.layout import NamespaceState
from agentmem.core.reading import get_history, get_memories, get_stats, list_memories
from agentmem.core.records import NO_VECTOR
from agentmem.core.store import Store, WriteTransaction
from agentmem.core.validation import decode_embedding
from agentmem.server.commands import AddMemories, Command, UpdateMemory
from agentmem.server.deletion import DeleteById, _DeleteMatching, _EndDeletion, _find_matching, _Tally
from agentmem.server.embedding import Made
from agentmem.server.importing import Imported, ImportVersions, _changes
from agentmem.server.namespaces import UpdateNamespace
from agentmem.server.reembedder import _of_no_use, _Place, _without_vector
from agentmem.server.reembedding import ClearVectors, EmbedVersions, ReembedNamespace, SwitchSpace
from agentmem.server.requests import request_key_of
from agentmem.server.retention import PruneByAge, PruneByCount, SweepExpired, TrimLog
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

MIB = 1024 * 1024
START_US = 1_800_000_000_000_000
PAGE_SIZE = 2

# What a command should answer; it changes the model, or raises Refused.
Expectation: TypeAlias = Callable[[], object]


def open_store(path: Path) -> Store:
    return Store(path, map_size_bytes=4 * MIB, max_map_size_bytes=64 * MIB)


class ModelledStore:
    """The writer's store. ``now_us`` is the time of its next commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = Model()
        self.now_us = START_US
        # Requests with a request_id, to be sent again.
        self.sent: list[WriteRequest] = []
        self._generated = 0
        self.store = open_store(path)
        self.store.found_cluster()

    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.path)

    # Writes

    def send(self, *requests: WriteRequest) -> None:
        """Carries out requests in one commit, as the writer does with those that wait together."""
        self.sent += [request for request in requests if request.request_id]
        self._commit(*(self._command(request) for request in requests))

    def _commit(self, *commands: tuple[Command[Any], Expectation]) -> None:
        def work(transaction: WriteTransaction) -> list[object]:
            outcomes: list[object] = []
            for command, _ in commands:
                try:
                    outcomes.append(command.run(transaction, self.now_us))
                except AgentMemError as error:
                    outcomes.append(error)
            return outcomes

        for outcome, (_, expected) in zip(self.store.commit(work), commands, strict=True):
            wanted = answer_or_reason(expected)
            if isinstance(outcome, AgentMemError):
                assert outcome.reason == wanted, outcome
            else:
                assert outcome == wanted

    def _command(self, request: WriteRequest) -> tuple[Command[Any], Expectation]:
        """The command that the writer's service makes of a request, and what the model says to it."""
        key = request_key_of(
            request.DESCRIPTOR.name.removesuffix("Request"), request.namespace, request.request_id, request
        )
        size = request.ByteSize()
        if isinstance(request, writer_pb2.AddMemoriesRequest):
            add, vectors = self._prepared(request)
            made = [self._made(request.namespace, memory) for memory in add.memories]
            policy = request.on_duplicate or writer_pb2.DUPLICATE_POLICY_ADD
            return (
                AddMemories(request.namespace, add.memories, vectors, policy, key, size, made),
                self._expectation(request, lambda: self.model.add(add, vectors, self.now_us)),
            )
        if isinstance(request, writer_pb2.UpdateMemoryRequest):
            return self._update(request)
        if isinstance(request, writer_pb2.DeleteMemoriesRequest):
            expected = request.expected_version if request.HasField("expected_version") else None
            return (
                DeleteById(request.namespace, list(request.ids), request.purge, expected, key, size),
                self._expectation(request, lambda: self.model.delete(request, self.now_us)),
            )
        fields = frozenset(request.update_mask.paths)
        return (
            UpdateNamespace(request.namespace, request.settings, fields, key),
            self._expectation(request, lambda: self.model.update_namespace(request, self.now_us)),
        )

    def _prepared(
        self, request: writer_pb2.AddMemoriesRequest
    ) -> tuple[writer_pb2.AddMemoriesRequest, list[Any]]:
        """With ids, and the embeddings as vectors."""
        prepared = writer_pb2.AddMemoriesRequest()
        prepared.CopyFrom(request)
        vectors = []
        for memory in prepared.memories:
            if not memory.id:
                self._generated += 1
                memory.id = f"00000000-0000-7000-8000-{self._generated:012}"
            memory.namespace = request.namespace
            vectors.append(decode_embedding(memory.embedding, "embedding") if memory.embedding else None)
            memory.ClearField("embedding")
        return prepared, vectors

    def _update(self, request: writer_pb2.UpdateMemoryRequest) -> tuple[Command[Any], Expectation]:
        fields = frozenset(request.update_mask.paths)
        prepared = writer_pb2.UpdateMemoryRequest()
        prepared.CopyFrom(request)
        memory, vector = prepared.memory, None
        if "embedding" in fields:
            vector = decode_embedding(memory.embedding, "embedding")
            if "embedding_model" not in fields:
                memory.embedding_model = self.model.space(request.namespace).embedding_model
        elif "content" in fields:
            memory.embedding_model = ""
        memory.ClearField("embedding")
        expected = request.expected_version if request.HasField("expected_version") else None
        key = request_key_of("UpdateMemory", request.namespace, request.request_id, request)
        made = self._made(request.namespace, memory)
        command = UpdateMemory(
            request.namespace, memory, fields, expected, vector, key, request.ByteSize(), [made]
        )
        return (
            command,
            self._expectation(request, lambda: self.model.update(prepared, vector, self.now_us)),
        )

    def _made(self, namespace: str, memory: memory_pb2.Memory) -> Made:
        """What an embedder of the coming embeddings makes beside a write; nothing when it is not there."""
        with self.store.read() as transaction:
            space = transaction.namespace(namespace) or NamespaceState(number=0)
        is_there = bool(space.coming_model) and not memory.tags
        vectors = {space.coming_model: coming_vector(space.coming_model, memory.content)} if is_there else {}
        return Made(vectors=vectors, space=space.space)

    def reembed(self, namespace: str, model: str) -> None:
        """Asks for the embeddings of a model."""
        dimension = COMING_DIMENSION if model else 0
        self._commit(
            (
                ReembedNamespace(namespace, model, dimension, None),
                lambda: self.model.reembed(namespace, model, self.now_us),
            )
        )

    def work_on_embeddings(self, namespace: str, most: int) -> None:
        """One step of the work in the background, on so many versions at the most."""
        with self.store.read() as transaction:
            space = transaction.namespace(namespace)
        command: Command[int]
        is_switch = False
        if space is not None and space.is_clearing:
            ordinals, _ = _of_no_use(self.store, namespace, _Place())
            command = ClearVectors(namespace, ordinals[:most])
        elif space is not None and space.coming_space:
            is_switch = space.coming_versions == space.versions
            found, _ = _without_vector(self.store, namespace, _Place())
            assert bool(found) != is_switch
            vectors = [
                (ordinal, NO_VECTOR if content is None else coming_vector(space.coming_model, content))
                for ordinal, content in found[:most]
            ]
            command = EmbedVersions(namespace, space.coming_space, vectors)
            if is_switch:
                command = SwitchSpace(namespace, space.coming_space, "")
        else:
            return
        self.store.commit(lambda transaction: command.run(transaction, self.now_us))
        if is_switch:
            self.model.switch_embeddings(namespace)
        self.model.end_entry(self.now_us)

    def _expectation(self, request: WriteRequest, act: Callable[[], Message]) -> Expectation:
        def expected() -> Message:
            namespace, request_id = request.namespace, request.request_id
            known = self.model.known_answer(namespace, request_id, request, self.now_us)
            if known is not None:
                return known
            answer = act()
            if request_id:
                self.model.remember(namespace, request_id, request, self.now_us, answer)
            return answer

        return expected

    def delete_by_filter(
        self,
        request: writer_pb2.DeleteMemoriesRequest,
        meaning: NamedFilter,
        meanwhile: Sequence[WriteRequest],
    ) -> None:
        """Search, delete, end; ``meanwhile`` is written between search and deletion."""
        name, is_purge = request.namespace, request.purge
        key = request_key_of("DeleteMemories", name, request.request_id, request)
        try:
            known = self.model.known_answer(name, request.request_id, request, self.now_us)
        except Refused:
            known = request
        if known is not None:
            # The writer answers these before it searches.
            tally = _Tally()
            self._commit(
                (_EndDeletion(name, tally, is_purge, key), self._expectation(request, lambda: request))
            )
            return
        self.sent += [request] if request.request_id else []
        matcher = compile_filter(request.filter)
        assert matcher is not None
        ids, after = _find_matching(self.store, name, matcher, is_purge, "", self.now_us)
        assert after is None
        assert ids == self.model.matching(name, meaning.matches, self.now_us, is_purge=is_purge)
        if meanwhile:
            self.send(*meanwhile)
        tally = _Tally()
        done: list[tuple[list[str], int]] = []

        def delete() -> tuple[list[str], int]:
            done.append(
                self.model.delete_matching(name, ids, meaning.matches, self.now_us, is_purge=is_purge)
            )
            return done[0]

        self._commit((_DeleteMatching(name, ids, matcher, is_purge), delete))
        tally.add(*done[0])
        self._commit(
            (
                _EndDeletion(name, tally, is_purge, key),
                self._expectation(request, lambda: self.model.end_deletion(request, *done[0], self.now_us)),
            )
        )

    def import_versions(
        self, namespace: str, versions: Sequence[memory_pb2.MemoryVersion], *, skips: bool
    ) -> None:
        def expected() -> Imported:
            return Imported(*self.model.import_versions(namespace, versions, self.now_us, skips=skips))

        self._commit((import_command(namespace, versions, skips=skips), expected))

    # What ends by itself

    def sweep(self) -> None:
        self._commit((SweepExpired(), lambda: self.model.sweep(self.now_us)))

    def prune_by_age(self, namespace: str) -> None:
        self._commit((PruneByAge(namespace), lambda: self.model.prune_by_age(namespace, self.now_us)))

    def prune_by_count(self, namespace: str, ids: Sequence[str]) -> None:
        self._commit(
            (
                PruneByCount(namespace, ids),
                lambda: self.model.prune_by_count(namespace, ids, self.now_us),
            )
        )

    def trim_log(self, max_bytes: int, max_age_us: int, keep_from_revision: int) -> None:
        """Entries go from the oldest on, while one is due; the newest stays."""
        with self.store.read() as transaction:
            sizes = {revision: len(value) for revision, value in transaction.log_values()}
        left = sorted(sizes)
        for revision in sorted(sizes):
            is_old = self.model.times_us[revision - 1] < self.now_us - max_age_us
            is_due = is_old or sum(sizes[each] for each in left) > max_bytes
            if not is_due or revision >= min(keep_from_revision, self.model.revision):
                break
            left.remove(revision)
        command = TrimLog(max_bytes, max_age_us, keep_from_revision)
        self._commit((command, lambda: len(sizes) - len(left)))
        with self.store.read() as transaction:
            assert [revision for revision, _ in transaction.log_values()] == left

    # Reads

    def check_reads(self) -> None:
        """All that can be read of now."""
        for namespace in NAMESPACES:
            space = self.model.space(namespace)
            live = list(space.live(self.now_us).values())
            assert listed(self.store, namespace, self.now_us) == [each.shown() for each in live]
            for memory_id in {*IDS, *space.memories}:
                self._check_history(namespace, memory_id)
            stats = get_stats(self.store, reader_pb2.GetStatsRequest(namespace=namespace)).namespace
            newest = [versions[-1] for versions in space.memories.values()]
            undeleted = [each for each in newest if each.kind == memory_pb2.VERSION_KIND_WRITTEN]
            assert stats.memories == len(undeleted)
            assert stats.vectors == sum(each.embedding()[0] is not None for each in undeleted)
            assert (stats.dimension, stats.embedding_model) == (space.dimension, space.embedding_model)
            assert stats.versions == sum(len(space.kept(memory_id)) for memory_id in space.memories)
            assert stats.pruned_versions == space.pruned_versions
            assert stats.history_start_revision == space.history_start
        with self.store.read() as transaction:
            for revision in range(1, self.model.revision + 1):
                assert transaction.receipt(revision) == self.model.receipts.get(revision)

    def _check_history(self, namespace: str, memory_id: str) -> None:
        space = self.model.space(namespace)
        if memory_id not in space.memories:
            with pytest.raises(AgentMemError, match="there is no memory"):
                history(self.store, namespace, memory_id)
            return
        kept = space.kept(memory_id)
        is_pruned = len(kept) < len(space.memories[memory_id])
        assert history(self.store, namespace, memory_id) == (
            [as_message(version) for version in reversed(kept)],
            is_pruned,
        )

    def check_as_of(
        self, namespace: str, as_of: reader_pb2.AsOf, ids: Sequence[str], meaning: NamedFilter | None
    ) -> None:
        """The memories of a moment by id and in a list, or that they cannot be known."""
        space = self.model.space(namespace)
        time_us = as_of.time.ToMicroseconds() if as_of.HasField("time") else None
        revision = None if as_of.HasField("time") else as_of.revision

        def get() -> list[memory_pb2.Memory]:
            request = reader_pb2.GetMemoriesRequest(
                namespace=namespace, ids=ids, as_of=as_of, include_embedding=True
            )
            found = get_memories(self.store, request, self.now_us)
            return list(reader_pb2.GetMemoriesResponse.FromString(found).memories)

        def expect(names: Sequence[str]) -> list[Version]:
            return list(space.as_of(names, revision=revision, time_us=time_us).values())

        _check(get, lambda: [each.shown() for each in expect(ids)])
        _check(
            lambda: listed(self.store, namespace, self.now_us, as_of, meaning),
            lambda: [
                each.shown()
                for each in expect(in_order(space.memories))
                if meaning is None or meaning.matches(each.memory)
            ],
        )

    def check_export(self, namespace: str, meaning: NamedFilter | None, *, newest_only: bool) -> None:
        space = self.model.space(namespace)
        expected = []
        for memory_id in in_order(space.memories):
            newest = space.memories[memory_id][-1]
            is_live = newest.is_live(self.now_us)
            if (newest_only or meaning is not None) and not is_live:
                continue
            if meaning is None or meaning.matches(newest.memory):
                expected += [newest] if newest_only else space.kept(memory_id)
        messages = [as_message(version) for version in expected]
        for message in messages:
            message.ClearField("revision")
        found = list(exported(self.store, namespace, self.now_us, meaning, newest_only=newest_only))
        assert found == messages

    def check_export_begun_at(self, namespace: str, revision: int) -> None:
        """What an export has yet to send that began at the revision, while the store went on."""
        space = self.model.space(namespace)
        kept = [version for memory_id in in_order(space.memories) for version in space.kept(memory_id)]
        found = list(exported(self.store, namespace, self.now_us, revision=revision))
        assert [(each.memory, each.kind) for each in found] == [
            (version.shown(), version.kind) for version in kept if version.revision <= revision
        ]


def import_command(
    namespace: str, versions: Sequence[memory_pb2.MemoryVersion], *, skips: bool = False
) -> ImportVersions:
    """Of versions as an export gave them, of whatever namespace."""
    request = writer_pb2.ImportMemoriesRequest(namespace=namespace, versions=versions)
    for version in request.versions:
        version.memory.namespace = namespace
    return ImportVersions(namespace, _changes(namespace, request), skips, request.ByteSize())


def answer_or_reason(expect: Callable[[], object]) -> object:
    """What the model says, or why it refuses."""
    try:
        return expect()
    except Refused as refused:
        return refused.reason


def _check(read: Callable[[], object], expect: Callable[[], object]) -> None:
    try:
        found = read()
    except AgentMemError as error:
        found = error.reason
    assert found == answer_or_reason(expect)


def as_message(version: Version) -> memory_pb2.MemoryVersion:
    return memory_pb2.MemoryVersion(memory=version.shown(), kind=version.kind, revision=version.revision)


def listed(
    store: Store,
    namespace: str,
    now_us: int,
    as_of: reader_pb2.AsOf | None = None,
    meaning: NamedFilter | None = None,
) -> list[memory_pb2.Memory]:
    """All pages of a list, with embeddings."""
    request = reader_pb2.ListMemoriesRequest(
        namespace=namespace,
        page_size=PAGE_SIZE,
        include_embedding=True,
        filter=None if meaning is None else meaning.message,
        as_of=as_of,
    )
    found: list[memory_pb2.Memory] = []
    while True:
        page = list_memories(store, request, now_us)
        found += page.memories
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def history(store: Store, namespace: str, memory_id: str) -> tuple[list[memory_pb2.MemoryVersion], bool]:
    """All pages of a history, with embeddings, and whether older versions were pruned."""
    request = reader_pb2.GetMemoryHistoryRequest(
        namespace=namespace, id=memory_id, page_size=PAGE_SIZE, include_embedding=True
    )
    found: list[memory_pb2.MemoryVersion] = []
    while True:
        page = get_history(store, request)
        found += page.versions
        request.page_token = page.next_page_token
        if not request.page_token:
            return found, page.pruned


def exported(
    store: Store,
    namespace: str,
    now_us: int,
    meaning: NamedFilter | None = None,
    *,
    newest_only: bool = False,
    revision: int | None = None,
) -> Iterator[memory_pb2.MemoryVersion]:
    """What an export of now sends, or the rest of one that began at an earlier revision."""
    matcher = None if meaning is None else compile_filter(meaning.message)
    moment = Moment(now_us, revision=store.position().revision if revision is None else revision)
    place: ExportPlace | None = ExportPlace()
    while place is not None:
        frame, place = export_frame(store, ExportQuery(namespace, moment, matcher, newest_only), place)
        yield from frame.versions
