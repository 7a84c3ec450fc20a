"""What the model of the store knows: versions, namespaces, and the commits that made them.

Nothing is taken out of the lists of versions while a memory is known: what retention removed is marked, so
that the model can say of each read whether the store may still know the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from google.protobuf.message import Message

from agentmem.core.records import FloatVector
from agentmem.v1 import memory_pb2, writer_pb2

Predicate: TypeAlias = Callable[[memory_pb2.Memory], bool]

WRITTEN = memory_pb2.VERSION_KIND_WRITTEN
_NEWEST = 2**64


class Refused(Exception):
    """The model's answer to what cannot be done; its reason is that of the API."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Version:
    """One version of a memory, or the tombstone that ended it.

    Attributes:
        vector: as it was written and a read gives it: little-endian float32; None without one.
        order: of all versions, in the order of their writing.
        is_gone: removed by retention or by a purge.
        replaced: the embeddings that took the place of ``vector``: each from a revision of the store on, with
            its model.
    """

    memory: memory_pb2.Memory
    kind: memory_pb2.VersionKind
    revision: int
    vector: bytes | None
    order: int
    is_gone: bool = False
    replaced: list[tuple[int, bytes | None, str]] = field(default_factory=list)

    @property
    def time_us(self) -> int:
        return self.memory.update_time.ToMicroseconds()

    def is_live(self, at_us: int) -> bool:
        """Whether a read sees it, if it is the newest."""
        return self.kind == WRITTEN and not has_expired(self.memory, at_us)

    def embedding(self, revision: int = _NEWEST) -> tuple[bytes | None, str]:
        """The vector and its model, in a store that is at a revision."""
        found = self.vector, self.memory.embedding_model
        for from_revision, vector, model in self.replaced:
            if from_revision <= revision:
                found = vector, model
        return found

    def now(self, revision: int = _NEWEST) -> tuple[memory_pb2.Memory, bytes | None]:
        """The memory with the model of its embedding, and that, in a store that is at a revision."""
        memory = copied(self.memory)
        vector, memory.embedding_model = self.embedding(revision)
        return memory, vector

    def shown(self, revision: int = _NEWEST) -> memory_pb2.Memory:
        """The memory as a read with include_embedding has it, in a store that is at a revision."""
        memory, vector = self.now(revision)
        if vector is not None:
            memory.embedding = vector
        return memory


@dataclass(slots=True, eq=False)
class Space:
    """A namespace: all versions of its memories, oldest first, and what it keeps.

    Attributes:
        coming_model: of the embeddings that are on their way; "" when there are none.
    """

    memories: dict[str, list[Version]] = field(default_factory=dict)
    max_versions: int = 0
    max_version_age_us: int = 0
    precision: writer_pb2.VectorPrecision = writer_pb2.VECTOR_PRECISION_FLOAT32
    dimension: int = 0
    embedding_model: str = ""
    coming_model: str = ""
    pruned_versions: int = 0
    history_start: int = 0
    history_start_us: int = -(2**63)

    def all_versions(self) -> list[Version]:
        return [version for versions in self.memories.values() for version in versions]

    def kept(self, memory_id: str) -> list[Version]:
        """The versions that the store still has, oldest first."""
        return [version for version in self.memories.get(memory_id, ()) if not version.is_gone]

    def undeleted(self) -> dict[str, Version]:
        """The newest versions of memories, those that have expired too."""
        newest = {memory_id: versions[-1] for memory_id, versions in self.memories.items()}
        return {memory_id: version for memory_id, version in newest.items() if version.kind == WRITTEN}

    def live(self, at_us: int) -> dict[str, Version]:
        """The memories that a read sees, in the order of ids."""
        undeleted = self.undeleted()
        return {each: undeleted[each] for each in in_order(undeleted) if undeleted[each].is_live(at_us)}

    def as_of(
        self, ids: Sequence[str], *, revision: int | None = None, time_us: int | None = None
    ) -> dict[str, Version]:
        """Those of the ids that were there after a commit, or after all commits up to a time.

        Raises Refused when the store cannot know: the version of then is gone, or a memory has lost its
        first versions and so the knowledge that it was not there before.
        """
        if revision is not None and revision < self.history_start:
            raise Refused("HISTORY_PRUNED")
        if time_us is not None and time_us < self.history_start_us:
            raise Refused("HISTORY_PRUNED")
        found = {}
        for memory_id in ids:
            versions = self.memories.get(memory_id, [])
            until_then = [
                version
                for version in versions
                if (revision is None or version.revision <= revision)
                and (time_us is None or version.time_us <= time_us)
            ]
            needed = (until_then[-1:] or versions[:1])[0] if versions else None
            if needed is not None and needed.is_gone:
                raise Refused("HISTORY_PRUNED")
            expired_us = -(2**63) if time_us is None else time_us
            if until_then and until_then[-1].is_live(expired_us):
                found[memory_id] = until_then[-1]
        return found


class State:
    """All namespaces after some commits.

    Attributes:
        times_us: of the log entries; that of revision 1 first.
        live_at: for each revision the undeleted memories after it, by namespace and id.
    """

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.times_us: list[int] = []
        self.live_at: list[dict[tuple[str, str], Version]] = [{}]
        self._order = 0

    @property
    def revision(self) -> int:
        return len(self.times_us)

    def space(self, namespace: str) -> Space:
        """An empty one for a namespace that has not begun."""
        return self.spaces.get(namespace, Space())

    def all_times_us(self) -> list[int]:
        """When there were commits, and when versions that were imported were written where they come from."""
        versions = [version for space in self.spaces.values() for version in space.all_versions()]
        return sorted({*self.times_us, *(version.time_us for version in versions)})

    def expire_times(self) -> list[int]:
        """When undeleted memories end."""
        ending = [version.memory for version in self.live_at[-1].values()]
        return [memory.expire_time.ToMicroseconds() for memory in ending if memory.HasField("expire_time")]

    def write(
        self,
        namespace: str,
        memory: memory_pb2.Memory,
        vector: bytes | None = None,
        kind: memory_pb2.VersionKind = WRITTEN,
    ) -> Version:
        """A new version, of the commit that ``end_entry`` ends."""
        space = self.spaces.setdefault(namespace, Space())
        if vector is not None and space.precision == writer_pb2.VECTOR_PRECISION_FLOAT16:
            vector = np.frombuffer(vector, "<f4").astype("<f2").astype("<f4").tobytes()
        if vector is not None and not space.dimension:
            space.dimension, space.embedding_model = len(vector) // 4, memory.embedding_model
        self._order += 1
        memory = copied(memory)
        memory.namespace = namespace
        version = Version(memory, kind, self.revision + 1, vector, self._order)
        space.memories.setdefault(memory.id, []).append(version)
        return version

    def bury(self, namespace: str, memory_id: str, time_us: int, kind: memory_pb2.VersionKind) -> None:
        """Writes the tombstone of a memory."""
        newest = self.spaces[namespace].memories[memory_id][-1].memory
        tombstone = memory_pb2.Memory(id=memory_id)
        stamp(tombstone, newest, time_us)
        if kind == memory_pb2.VERSION_KIND_EXPIRED:
            tombstone.expire_time.CopyFrom(newest.expire_time)
        self.write(namespace, tombstone, kind=kind)
        self.keep_count(namespace, memory_id)

    def end_entry(self, time_us: int, is_written: bool = True) -> None:
        """The end of a commit; ``is_written`` says whether there was anything to write."""
        if not is_written:
            return
        self.times_us.append(time_us)
        self.live_at.append(
            {
                (namespace, memory_id): version
                for namespace, space in self.spaces.items()
                for memory_id, version in space.undeleted().items()
            }
        )

    # What ends by itself

    def keep_count(self, namespace: str, memory_id: str) -> int:
        """Removes the versions of a memory that are too many; returns how many."""
        space = self.spaces[namespace]
        kept = space.kept(memory_id)
        excess = kept[: -space.max_versions] if space.max_versions else []
        for version in excess:
            version.is_gone = True
        space.pruned_versions += len(excess)
        return len(excess)

    def prune_by_count(self, namespace: str, ids: Sequence[str], time_us: int) -> int:
        known = [memory_id for memory_id in ids if memory_id in self.space(namespace).memories]
        removed = sum(self.keep_count(namespace, memory_id) for memory_id in known)
        self.end_entry(time_us, bool(removed))
        return removed

    def prune_by_age(self, namespace: str, time_us: int) -> int:
        space = self.space(namespace)
        if not space.max_version_age_us:
            return 0
        until_us = time_us - space.max_version_age_us
        removed = 0
        for memory_id, versions in list(space.memories.items()):
            newest = versions[-1]
            if newest.kind != WRITTEN and newest.time_us <= until_us:
                removed += len(space.kept(memory_id))
                space.history_start = max(space.history_start, newest.revision)
                space.history_start_us = max(space.history_start_us, newest.time_us)
                self.forget(namespace, memory_id)
                continue
            for version, successor in pairwise(versions):
                ended_us = successor.time_us if version.kind == WRITTEN else version.time_us
                if ended_us <= until_us and not version.is_gone:
                    version.is_gone = True
                    removed += 1
        space.pruned_versions += removed
        self.end_entry(time_us, bool(removed))
        return removed

    def sweep(self, time_us: int) -> int:
        over = [
            (namespace, memory_id)
            for namespace, space in self.spaces.items()
            for memory_id, (*_, newest) in space.memories.items()
            if newest.kind == WRITTEN and has_expired(newest.memory, time_us)
        ]
        for namespace, memory_id in over:
            self.bury(namespace, memory_id, time_us, memory_pb2.VERSION_KIND_EXPIRED)
        self.end_entry(time_us, bool(over))
        return len(over)

    def forget(self, namespace: str, memory_id: str) -> None:
        """Takes a memory out for good, and its id with it."""
        for version in self.spaces[namespace].memories.pop(memory_id):
            version.is_gone = True


def in_order(ids: Iterable[str]) -> list[str]:
    """In the order of their bytes."""
    return sorted(ids, key=str.encode)


def copied(memory: memory_pb2.Memory) -> memory_pb2.Memory:
    copy = memory_pb2.Memory()
    copy.CopyFrom(memory)
    return copy


def has_expired(memory: memory_pb2.Memory, at_us: int) -> bool:
    """Not there any more, from the microsecond of its expire_time on."""
    return memory.HasField("expire_time") and memory.expire_time.ToMicroseconds() <= at_us


def stamp(memory: memory_pb2.Memory, before: memory_pb2.Memory | None, time_us: int) -> None:
    """Version and update_time of the version behind ``before``, whose time is never later."""
    memory.version = before.version + 1 if before else 1
    memory.update_time.FromMicroseconds(
        max(time_us, before.update_time.ToMicroseconds()) if before else time_us
    )


def with_expire_time(memory: memory_pb2.Memory, time_us: int) -> memory_pb2.Memory:
    """The memory with its ttl, if it has one, as the time that it means."""
    memory = copied(memory)
    if memory.HasField("ttl"):
        memory.expire_time.FromMicroseconds(time_us + memory.ttl.ToMicroseconds())
        memory.ClearField("ttl")
    return memory


def check_vector(vector: FloatVector | None, embedding_model: str, space: tuple[int, str]) -> None:
    """``space`` is the dimension and the model of the namespace; 0 before its first embedding."""
    if vector is None or not space[0]:
        return
    if len(vector) != space[0]:
        raise Refused("DIMENSION_MISMATCH")
    if embedding_model != space[1]:
        raise Refused("MODEL_MISMATCH")


def serialized(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
