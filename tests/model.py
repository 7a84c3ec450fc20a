"""A model of the store: what the comments of the protos promise of each write, without a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from google.protobuf.message import Message
from model_state import (
    WRITTEN,
    Predicate,
    Refused,
    Space,
    State,
    Version,
    check_vector,
    copied,
    has_expired,
    in_order,
    serialized,
    stamp,
    with_expire_time,
)

from agentmem.core.records import FloatVector
from agentmem.v1 import memory_pb2, writer_pb2

DAY_US = 24 * 3600 * 1_000_000
# Of what embeds anew. The dimension is that of the most that callers bring.
COMING_MODELS = ("axes", "odd lengths")
COMING_DIMENSION = 3
# Nobody is promoted here.
EPOCH = 1

Stored: TypeAlias = tuple[memory_pb2.Memory, bytes | None]


@dataclass(slots=True)
class KnownAnswer:
    """What a request was answered; ``version`` is the one that an update wrote."""

    request: bytes
    answer: Message
    time_us: int
    version: Version | None = None


class Model(State):
    """The writer's store. A write that it refuses has changed nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[tuple[str, str], KnownAnswer] = {}
        self.receipts: dict[int, writer_pb2.PurgeReceipt] = {}

    # Requests that come again

    def known_answer(self, namespace: str, request_id: str, request: Message, time_us: int) -> Message | None:
        """The first answer to a request; None when it is new, or was forgotten."""
        known = self.answers.get((namespace, request_id)) if request_id else None
        if known is None or time_us - known.time_us > DAY_US:
            return None
        if known.request != _fingerprint(request):
            raise Refused("REQUEST_ID_REUSED")
        if known.version is None:
            return known.answer
        assert isinstance(known.answer, writer_pb2.UpdateMemoryResponse)
        if not known.version.is_gone:
            first = writer_pb2.UpdateMemoryResponse()
            first.CopyFrom(known.answer)
            _, first.memory.embedding_model = known.version.embedding()
            return first
        answer = writer_pb2.UpdateMemoryResponse(revision=known.answer.revision, epoch=EPOCH)
        memory = known.answer.memory
        answer.memory.CopyFrom(
            memory_pb2.Memory(id=memory.id, namespace=memory.namespace, version=memory.version)
        )
        return answer

    def remember(
        self, namespace: str, request_id: str, request: Message, time_us: int, answer: Message
    ) -> None:
        version = None
        if isinstance(answer, writer_pb2.UpdateMemoryResponse):
            version = self.spaces[namespace].memories[answer.memory.id][-1]
        self.answers[namespace, request_id] = KnownAnswer(_fingerprint(request), answer, time_us, version)

    # Adds and updates

    def add(
        self,
        request: writer_pb2.AddMemoriesRequest,
        vectors: Sequence[FloatVector | None],
        time_us: int,
    ) -> writer_pb2.AddMemoriesResponse:
        """``request`` has ids and types; ``vectors`` are of unit length."""
        batch = _Batch(self.space(request.namespace), request.on_duplicate, time_us)
        answer = writer_pb2.AddMemoriesResponse(
            memories=[batch.add(*pair) for pair in zip(request.memories, vectors, strict=True)]
        )
        for memory, vector in batch.written.values():
            self.write(request.namespace, memory, vector)
            self.keep_count(request.namespace, memory.id)
        self.end_entry(time_us, bool(batch.written or request.request_id))
        answer.revision, answer.epoch = self.revision, EPOCH
        return answer

    def update(
        self,
        request: writer_pb2.UpdateMemoryRequest,
        vector: FloatVector | None,
        time_us: int,
    ) -> writer_pb2.UpdateMemoryResponse:
        """Without an embedder: new content without an embedding has none."""
        given, fields = request.memory, frozenset(request.update_mask.paths)
        if "expire_time" in fields and has_expired(given, time_us):
            raise Refused("INVALID_FIELD")
        expected = request.expected_version if request.HasField("expected_version") else None
        known = self._expected(request.namespace, given.id, expected, time_us)
        memory, stored = known.now()
        for name in fields - {"ttl", "embedding", "embedding_model"}:
            memory.ClearField(name)
            memory.MergeFrom(_only(given, name))
        if "ttl" in fields:
            memory.ClearField("expire_time")
            if given.HasField("ttl"):
                memory.expire_time.FromMicroseconds(time_us + given.ttl.ToMicroseconds())
        if "event_time" in fields and not given.HasField("event_time"):
            memory.event_time.CopyFrom(memory.create_time)
        if vector is not None:
            memory.embedding_model = given.embedding_model
            space = self.space(request.namespace)
            check_vector(vector, given.embedding_model, (space.dimension, space.embedding_model))
            stored = _bytes(vector)
        elif "content" in fields:
            memory.embedding_model, stored = "", None
        stamp(memory, known.memory, time_us)
        self.write(request.namespace, memory, stored)
        self.keep_count(request.namespace, memory.id)
        self.end_entry(time_us)
        return writer_pb2.UpdateMemoryResponse(memory=memory, revision=self.revision, epoch=EPOCH)

    def _expected(
        self, namespace: str, memory_id: str, expected_version: int | None, time_us: int
    ) -> Version:
        live = self.space(namespace).live(time_us)
        if memory_id not in live:
            raise Refused("MEMORY_NOT_FOUND")
        if expected_version not in (None, live[memory_id].memory.version):
            raise Refused("VERSION_MISMATCH")
        return live[memory_id]

    # Deletes and purges

    def delete(
        self, request: writer_pb2.DeleteMemoriesRequest, time_us: int
    ) -> writer_pb2.DeleteMemoriesResponse:
        """By id."""
        namespace, is_purge = request.namespace, request.purge
        if request.HasField("expected_version"):
            self._expected(namespace, request.ids[0], request.expected_version, time_us)
        found, versions = self._end_memories(namespace, request.ids, None, time_us, is_purge=is_purge)
        answer = self._end_deletion(request, found, versions, time_us, has_changes=bool(found))
        answer.missing_ids.extend(memory_id for memory_id in request.ids if memory_id not in found)
        return answer

    def matching(self, namespace: str, matches: Predicate, time_us: int, *, is_purge: bool) -> list[str]:
        """What a deletion by filter finds, in the order of ids."""
        ids = in_order(self.space(namespace).memories)
        return [each for each in ids if self._is_meant(namespace, each, matches, time_us, is_purge)]

    def delete_matching(
        self, namespace: str, ids: Iterable[str], matches: Predicate, time_us: int, *, is_purge: bool
    ) -> tuple[list[str], int]:
        """One commit of a deletion by filter: what still matches, and how many versions were purged."""
        ended = self._end_memories(namespace, ids, matches, time_us, is_purge=is_purge)
        self.end_entry(time_us, bool(ended[0]))
        return ended

    def end_deletion(
        self,
        request: writer_pb2.DeleteMemoriesRequest,
        ids: Sequence[str],
        version_count: int,
        time_us: int,
    ) -> writer_pb2.DeleteMemoriesResponse:
        """The last commit of a deletion by filter."""
        return self._end_deletion(
            request, ids, version_count, time_us, has_changes=request.purge and bool(ids)
        )

    def _end_deletion(
        self,
        request: writer_pb2.DeleteMemoriesRequest,
        ids: Sequence[str],
        version_count: int,
        time_us: int,
        *,
        has_changes: bool,
    ) -> writer_pb2.DeleteMemoriesResponse:
        self.end_entry(time_us, has_changes or bool(request.request_id))
        answer = writer_pb2.DeleteMemoriesResponse(
            deleted_ids=ids, deleted_count=len(ids), revision=self.revision, epoch=EPOCH
        )
        if request.purge and ids:
            joined = b"".join(memory_id.encode() + b"\x00" for memory_id in in_order(ids))
            receipt = writer_pb2.PurgeReceipt(
                namespace=request.namespace,
                revision=self.revision,
                memory_count=len(ids),
                version_count=version_count,
                ids_sha256=hashlib.sha256(joined).digest(),
            )
            receipt.time.FromMicroseconds(time_us)
            self.receipts[self.revision] = receipt
            answer.receipt.CopyFrom(receipt)
        return answer

    def _is_meant(
        self, namespace: str, memory_id: str, matches: Predicate | None, time_us: int, is_purge: bool
    ) -> bool:
        space = self.space(namespace)
        if memory_id not in space.memories:
            return False
        if not is_purge:
            newest = space.memories[memory_id][-1]
            return newest.is_live(time_us) and (matches is None or matches(newest.memory))
        kept = space.kept(memory_id)
        # A deletion is compared when nothing else is kept.
        compared = [version for version in kept if version.kind == WRITTEN] or kept
        return matches is None or any(matches(version.memory) for version in compared)

    def _end_memories(
        self,
        namespace: str,
        ids: Iterable[str],
        matches: Predicate | None,
        time_us: int,
        *,
        is_purge: bool,
    ) -> tuple[list[str], int]:
        """The ids that it ends, and how many versions it purges."""
        found = [each for each in ids if self._is_meant(namespace, each, matches, time_us, is_purge)]
        purged = 0
        for memory_id in found:
            if is_purge:
                purged += len(self.spaces[namespace].kept(memory_id))
                self.forget(namespace, memory_id)
            else:
                self.bury(namespace, memory_id, time_us, memory_pb2.VERSION_KIND_DELETED)
        return found, purged

    # Namespaces and imports

    def update_namespace(
        self, request: writer_pb2.UpdateNamespaceRequest, time_us: int
    ) -> writer_pb2.UpdateNamespaceResponse:
        space = self.spaces.setdefault(request.namespace, Space())
        for name in request.update_mask.paths:
            if name == "max_versions":
                space.max_versions = request.settings.max_versions
            elif name == "max_version_age":
                space.max_version_age_us = request.settings.max_version_age.ToMicroseconds()
            else:
                space.precision = request.settings.vector_precision or writer_pb2.VECTOR_PRECISION_FLOAT32
        self.end_entry(time_us)
        settings = writer_pb2.NamespaceSettings(
            max_versions=space.max_versions, vector_precision=space.precision
        )
        if space.max_version_age_us:
            settings.max_version_age.FromMicroseconds(space.max_version_age_us)
        return writer_pb2.UpdateNamespaceResponse(settings=settings, revision=self.revision, epoch=EPOCH)

    def reembed(self, namespace: str, model: str, time_us: int) -> writer_pb2.ReembedNamespaceResponse:
        """With an embedder of that model; "" for none."""
        if namespace not in self.spaces:
            raise Refused("NAMESPACE_NOT_FOUND")
        space = self.spaces[namespace]
        present = space.embedding_model if space.dimension else ""
        before = space.coming_model
        if before and model in (present, ""):
            space.coming_model = ""
        elif model != present:
            if not model:
                raise Refused("INVALID_FIELD")
            if before not in ("", model):
                raise Refused("REEMBEDDING")
            space.coming_model = model
        self.end_entry(time_us, space.coming_model != before)
        return writer_pb2.ReembedNamespaceResponse(
            embedding_model=present, coming_model=space.coming_model, revision=self.revision, epoch=EPOCH
        )

    def switch_embeddings(self, namespace: str) -> None:
        """The coming embeddings take the place of those before, in the commit that ``end_entry`` ends."""
        space = self.spaces[namespace]
        space.dimension, space.embedding_model = COMING_DIMENSION, space.coming_model
        space.coming_model = ""
        for version in space.all_versions():
            if version.kind == WRITTEN:
                vector = coming_vector(space.embedding_model, version.memory.content)
                model = space.embedding_model if len(vector) else ""
                version.replaced.append((self.revision + 1, _bytes(vector) or None, model))

    def import_versions(
        self, namespace: str, versions: Sequence[memory_pb2.MemoryVersion], time_us: int, *, skips: bool
    ) -> tuple[int, int, int, int]:
        """How many were imported and left out, the revision and the epoch. Embeddings are of unit length."""
        space = self.space(namespace)
        known = (space.dimension, space.embedding_model)
        newest = {memory_id: stored[-1].memory for memory_id, stored in space.memories.items()}
        taken = []
        for version in versions:
            memory = version.memory
            before = newest.get(memory.id)
            if before is not None and memory.version <= before.version:
                if skips:
                    continue
                raise Refused("MEMORY_EXISTS")
            if before is not None and _update_us(memory) < _update_us(before):
                raise Refused("INVALID_FIELD")
            if memory.embedding:
                dimension = len(memory.embedding) // 4
                if known[0] and known[0] != dimension:
                    raise Refused("DIMENSION_MISMATCH")
                if known[0] and known[1] != memory.embedding_model:
                    raise Refused("MODEL_MISMATCH")
                known = (dimension, memory.embedding_model)
            newest[memory.id] = memory
            taken.append(version)
        for version in taken:
            memory = copied(version.memory)
            memory.ClearField("embedding")
            self.write(namespace, memory, version.memory.embedding or None, version.kind)
        self.end_entry(time_us, bool(taken))
        return len(taken), len(versions) - len(taken), self.revision, EPOCH


def coming_vector(model: str, content: str) -> FloatVector:
    """What an embedder makes of a content; empty when that means nothing to it."""
    place = len(content) % 2 if model == COMING_MODELS[0] else 2 * (len(content) % 2)
    vector = np.zeros(COMING_DIMENSION, dtype=np.float32)
    vector[place] = 1.0
    return vector if place or model == COMING_MODELS[0] else vector[:0]


class _Batch:
    """The memories of one AddMemories."""

    def __init__(self, space: Space, policy: writer_pb2.DuplicatePolicy, time_us: int) -> None:
        self.written: dict[str, Stored] = {}
        self._space = space
        self._policy = policy
        self._time_us = time_us
        self._known = (space.dimension, space.embedding_model)
        live = sorted(space.live(time_us).values(), key=lambda version: version.order)
        self._live: dict[str, Stored] = {each.memory.id: each.now() for each in live}

    def add(self, memory: memory_pb2.Memory, vector: FloatVector | None) -> writer_pb2.AddedMemory:
        if has_expired(memory, self._time_us):
            raise Refused("INVALID_FIELD")
        check_vector(vector, memory.embedding_model, self._known)
        brought = with_expire_time(memory, self._time_us), None if vector is None else _bytes(vector)
        known = self._duplicate(memory)
        if known is None:
            if memory.id in self._live:
                raise Refused("MEMORY_EXISTS")
            self._write(memory.id, self._new(brought))
            outcome, known = writer_pb2.ADD_OUTCOME_ADDED, memory.id
        elif self._policy == writer_pb2.DUPLICATE_POLICY_SKIP:
            outcome = writer_pb2.ADD_OUTCOME_SKIPPED
        else:
            outcome = writer_pb2.ADD_OUTCOME_MERGED
            before = self._live[known]
            merged = _merged(before, brought)
            if merged != before:
                if known not in self.written:
                    stamp(merged[0], before[0], self._time_us)
                self._write(known, merged)
        return writer_pb2.AddedMemory(id=known, version=self._live[known][0].version, outcome=outcome)

    def _duplicate(self, memory: memory_pb2.Memory) -> str | None:
        """Of several the one that this batch wrote, else the one with this id, else the oldest."""
        if self._policy in (writer_pb2.DUPLICATE_POLICY_UNSPECIFIED, writer_pb2.DUPLICATE_POLICY_ADD):
            return None
        own = [memory.id] if memory.id in self._live else []
        for memory_id in (*self.written, *own, *self._live):
            other = self._live[memory_id][0]
            if all(
                getattr(other, name) == getattr(memory, name) for name in ("user_id", "agent_id", "content")
            ):
                return memory_id
        return None

    def _write(self, memory_id: str, stored: Stored) -> None:
        self.written[memory_id] = self._live[memory_id] = stored
        if stored[1] is not None and not self._known[0]:
            self._known = (len(stored[1]) // 4, stored[0].embedding_model)

    def _new(self, brought: Stored) -> Stored:
        memory, vector = brought
        versions = self._space.memories.get(memory.id)
        stamp(memory, versions[-1].memory if versions else None, self._time_us)
        memory.create_time.CopyFrom(memory.update_time)
        if not memory.HasField("event_time"):
            memory.event_time.FromMicroseconds(self._time_us)
        return memory, vector


def _merged(known: Stored, added: Stored) -> Stored:
    memory, new = copied(known[0]), added[0]
    memory.tags.extend(tag for tag in new.tags if tag not in memory.tags)
    for key in new.metadata:
        memory.metadata[key].CopyFrom(new.metadata[key])
    memory.importance = max(memory.importance, new.importance)
    expire_us = [each.expire_time.ToMicroseconds() for each in (memory, new) if each.HasField("expire_time")]
    memory.ClearField("expire_time")
    if len(expire_us) == 2:
        memory.expire_time.FromMicroseconds(max(expire_us))
    memory.session_id = memory.session_id or new.session_id
    if known[1] is None and added[1] is not None:
        memory.embedding_model = new.embedding_model
        return memory, added[1]
    return memory, known[1]


def _only(memory: memory_pb2.Memory, name: str) -> memory_pb2.Memory:
    """The memory with one field."""
    part = copied(memory)
    for descriptor, _ in memory.ListFields():
        if descriptor.name != name:
            part.ClearField(descriptor.name)
    return part


def _update_us(memory: memory_pb2.Memory) -> int:
    return memory.update_time.ToMicroseconds()


def _bytes(vector: FloatVector) -> bytes:
    return bytes(vector.astype("<f4").tobytes())


def _fingerprint(request: Message) -> bytes:
    """The method and the request: they are of one type."""
    return request.DESCRIPTOR.name.encode() + serialized(request)
