"""What the operations of the log do to the versions, and to everything that is kept about them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentmem.core import records
from agentmem.core.dictionaries import Dictionaries, StoredDictionary, encode_dictionary
from agentmem.core.embedding_spaces import after_step
from agentmem.core.environment import Transaction
from agentmem.core.errors import DataLoss
from agentmem.core.layout import (
    KEY,
    VECTORS,
    IdState,
    NamespaceState,
    content_digest,
    encode_id_state,
    encode_namespace,
    expiry_key,
    hash_key,
    id_key,
    number_prefix,
    seal,
    superseded_key,
)
from agentmem.core.log import Operation, Position
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.times import duration_us, timestamp_us
from agentmem.v1 import memory_pb2, storage_pb2


@dataclass(slots=True)
class WrittenState:
    """What nearly every write needs, as a committed one has left it: the next one need not read it again.

    Attributes:
        number: of that write.
        namespaces: those that it knew, by name.
        requests: how many are kept; None when nobody has counted.
        oldest_request_us: the time of the oldest of them; None when nobody has looked.
    """

    number: int
    position: Position
    next_ordinal: int
    log_bytes: int
    namespaces: dict[str, NamespaceState]
    requests: int | None
    oldest_request_us: int | None


class VersionWriter(ReadTransaction):
    """A write transaction as far as it is about versions; the log is in WriteTransaction.

    Attributes:
        removed_ordinals: of the versions that it has removed.
    """

    def __init__(
        self, transaction: Transaction, dictionaries: Dictionaries, before: WrittenState | None
    ) -> None:
        """``before``: what the last write of the store left, for this one to have and to change."""
        super().__init__(transaction, dictionaries)
        # Read and changed by nearly every operation, and so written once, before the commit.
        self._namespaces: dict[str, NamespaceState] = {} if before is None else before.namespaces
        self._changed_namespaces: set[str] = set()
        if before is None:
            self._next_ordinal, self._log_bytes = self._counters()
        else:
            self._next_ordinal, self._log_bytes = before.next_ordinal, before.log_bytes
        self.removed_ordinals: list[int] = []

    def namespace(self, namespace: str) -> NamespaceState | None:
        known = self._namespaces.get(namespace)
        if known is None:
            stored = super().namespace(namespace)
            if stored is not None:
                # What was decoded belongs to other transactions, too.
                known = self._namespaces[namespace] = copy.copy(stored)
        return known

    def _change_namespace(self, name: str, state: NamespaceState) -> None:
        """Takes a new state; one that was counted in is only to be written."""
        self._namespaces[name] = state
        self._changed_namespaces.add(name)

    def _apply_namespace(self, change: storage_pb2.NamespaceChange) -> NamespaceState:
        known = self.namespace(change.name)
        if known is None:
            known = NamespaceState(number=change.number)
            number = number_prefix(change.number)
            self._transaction.append(b"numbers", number, seal(change.name.encode()))
            # At once: the count of namespaces is what numbers the next one.
            self._transaction.put(b"namespaces", change.name.encode(), encode_namespace(known))
        changed = replace(
            known,
            max_versions=change.settings.max_versions,
            max_version_age_us=duration_us(change.settings.max_version_age),
            precision=change.settings.vector_precision,
            embedder=change.settings.embedder,
        )
        if change.reembedding:
            changed = after_step(changed, change)
        elif change.dimension:
            changed = replace(changed, dimension=change.dimension, model=change.embedding_model)
        self._change_namespace(change.name, changed)
        return changed

    def _write_version(
        self,
        operation: Operation,
        memory: memory_pb2.Memory,
        space: NamespaceState,
        before: IdState | None,
        record: bytes,
        vector: bytes,
        coming_vector: bytes,
        ended: memory_pb2.Memory | None = None,
    ) -> None:
        """PUT and DELETE.

        Args:
            space: the memory's namespace.
            before: the state of the id.
            vector: empty for none.
            coming_vector: empty when the version gets it later, or there is no coming space.
            ended: the version that it ends, if that has been read.
        """
        transaction, namespace = self._transaction, memory.namespace
        deleted = operation.kind == Operation.KIND_DELETE
        ordinal = operation.ordinal
        key = KEY.pack(ordinal)
        newest = self._dictionaries.newest_id(space.number)
        dictionary = None if newest is None else self.dictionary(newest)
        transaction.append(b"docs", key, records.compress_record(record, dictionary))
        if vector:
            transaction.append(space.vectors, key, vector)
        if coming_vector:
            transaction.append(space.other_vectors, key, coming_vector)
        if before is not None and not before.deleted:
            self._end_version(space, before.ordinal, ended)
            ended_key = superseded_key(space.number, timestamp_us(memory.update_time), before.ordinal)
            transaction.put(b"superseded", ended_key, b"")
        transaction.put(
            b"ids", id_key(namespace, memory.id), encode_id_state(ordinal, memory.version, deleted)
        )
        if deleted:
            ended_key = superseded_key(space.number, timestamp_us(memory.update_time), ordinal)
            transaction.put(b"superseded", ended_key, b"")
        else:
            transaction.put(b"hashes", hash_key(space.number, content_digest(memory), ordinal), b"")
            if memory.HasField("expire_time"):
                transaction.put(b"expiry", expiry_key(timestamp_us(memory.expire_time), ordinal), b"")
        space.live_memories += not deleted
        space.versions += 1
        if vector:
            space.live_vectors += records.has_components(vector)
        if coming_vector:
            space.coming_versions += 1
            space.coming_vectors += records.has_components(coming_vector)
        self._change_namespace(namespace, space)
        self._next_ordinal = ordinal + 1

    def _write_namespaces(self) -> None:
        """Writes the namespaces that operations have changed."""
        for name in self._changed_namespaces:
            state = self._namespaces[name]
            self._transaction.put(b"namespaces", name.encode(), encode_namespace(state))
            self._dictionaries.consider(state.number, state.live_memories)
        self._changed_namespaces.clear()

    def _known_namespace(self, name: str) -> NamespaceState:
        space = self.namespace(name)
        if space is None:
            raise DataLoss("CORRUPT_NAMESPACES", f"the log has no beginning of namespace {name!r}")
        return space

    def _end_version(
        self, space: NamespaceState, ordinal: int, memory: memory_pb2.Memory | None = None
    ) -> None:
        """Takes a live version out of everything that is about live ones, and out of the counts."""
        memory = self.named_record(ordinal).memory if memory is None else memory
        self._transaction.delete(b"hashes", hash_key(space.number, content_digest(memory), ordinal))
        if memory.HasField("expire_time"):
            self._transaction.delete(b"expiry", expiry_key(timestamp_us(memory.expire_time), ordinal))
        space.live_memories -= 1
        space.live_vectors -= self.has_vector(space, ordinal)
        space.coming_vectors -= self._has_coming_components(space, ordinal)

    def _has_coming_components(self, space: NamespaceState, ordinal: int) -> bool:
        coming = self.coming_vector(space, ordinal)
        return coming is not None and bool(len(coming))

    # Embeddings that are being replaced

    def _embed(self, operation: Operation, coming_vector: bytes) -> None:
        """EMBED. A version that this store does not have is passed over: a later entry removes it."""
        ordinal = operation.ordinal
        record = self.record(ordinal)
        if record is None:
            return
        memory = record.memory
        space = self._known_namespace(memory.namespace)
        if not space.is_filling or operation.coming_space != space.coming_space:
            raise DataLoss(
                "CORRUPT_NAMESPACES", f"the vector for ordinal {ordinal} is of no coming embedding space"
            )
        state = self.id_state(memory.namespace, memory.id)
        is_live = state is not None and state.ordinal == ordinal and not state.deleted
        self._transaction.put(space.other_vectors, KEY.pack(ordinal), coming_vector)
        changed = replace(
            space,
            coming_versions=space.coming_versions + 1,
            coming_vectors=space.coming_vectors + (is_live and records.has_components(coming_vector)),
        )
        self._change_namespace(memory.namespace, changed)

    def _clear(self, operation: Operation) -> None:
        """CLEAR."""
        space = self._known_namespace(self.namespace_name(operation.namespace_number))
        for ordinal in operation.cleared_ordinals:
            self._transaction.delete(space.other_vectors, KEY.pack(ordinal))

    def _remove(self, operation: Operation) -> None:
        """PRUNE and PURGE. Of what this store never had, nothing is removed."""
        if operation.kind == Operation.KIND_PRUNE:
            name = self.namespace_name(operation.namespace_number)
            space = self._known_namespace(name)
            changed = replace(
                space,
                pruned_versions=space.pruned_versions + len(operation.removed_ordinals),
                history_start=max(space.history_start, operation.forgotten_before),
                history_start_us=max(space.history_start_us, operation.forgotten_before_us),
            )
            self._change_namespace(name, changed)
        self._remove_versions(operation.removed_ordinals)

    def _skip_version(self, operation: Operation) -> None:
        """A version that the writer removed before this store could have it, and all before it with it."""
        self._next_ordinal = operation.ordinal + 1
        if operation.replaced_ordinal:
            before = [ordinal for ordinal, _ in self.versions(operation.replaced_ordinal)]
            self._remove_versions(before)

    def _state_before(self, memory: memory_pb2.Memory, previous_ordinal: int) -> IdState | None:
        """The state of an id that the next version of its memory comes to.

        When versions between them were skipped, those that are still here are removed: a later entry does so
        anyway, but could not tell then when they ended.
        """
        before = self.id_state(memory.namespace, memory.id)
        if before is None or before.ordinal == previous_ordinal:
            return before
        self._remove_versions([ordinal for ordinal, _ in self.versions(before.ordinal)])
        return None

    def _remove_versions(self, ordinals: Sequence[int]) -> None:
        """Removes versions of one memory, as far as they are there."""
        kept = {ordinal: record for ordinal in ordinals if (record := self.record(ordinal)) is not None}
        if not kept:
            return
        memory = next(iter(kept.values())).memory
        name = memory.namespace
        space = self._known_namespace(name)
        state = self.id_state(name, memory.id)
        ended_us = {} if state is None else self._end_times(state.ordinal)
        for ordinal in kept:
            if state is not None and ordinal == state.ordinal:
                if not state.deleted:
                    self._end_version(space, ordinal)
                self._transaction.delete(b"ids", id_key(name, memory.id))
            if ordinal in ended_us:
                ended = superseded_key(space.number, ended_us[ordinal], ordinal)
                self._transaction.delete(b"superseded", ended)
            if self.coming_vector(space, ordinal) is not None:
                space.coming_versions -= 1
            key = KEY.pack(ordinal)
            for database in (b"docs", *VECTORS):
                self._transaction.delete(database, key)
        self.removed_ordinals += kept
        space.versions -= len(kept)
        self._change_namespace(name, space)
        self._dictionaries.retire_trained_on(self._transaction, space.number, list(kept))

    def _end_times(self, newest_ordinal: int) -> dict[int, int]:
        """When the ended versions of a memory ended, by ordinal: a tombstone with its own time."""
        times = {}
        successor_us = None
        for ordinal, record in self.versions(newest_ordinal):
            time_us = timestamp_us(record.memory.update_time)
            if record.is_tombstone:
                times[ordinal] = time_us
            elif successor_us is not None:
                times[ordinal] = successor_us
            successor_us = time_us
        return times

    # Compression

    def add_dictionary(self, dictionary_id: int, stored: StoredDictionary) -> bool:
        """Stores a dictionary, unless a version that it was trained on is no longer there."""
        if any(self._transaction.get(b"docs", KEY.pack(ordinal)) is None for ordinal in stored.samples):
            return False
        key = number_prefix(dictionary_id)
        self._transaction.put(b"dictionaries", key, encode_dictionary(stored))
        return True

    def retire_dictionary(self, dictionary_id: int) -> None:
        """Sees to it that nothing new is compressed with a dictionary."""
        self._dictionaries.retire(self._transaction, dictionary_id)

    def delete_dictionary(self, dictionary_id: int) -> None:
        """Deletes a dictionary that no record needs any more."""
        self._transaction.delete(b"dictionaries", number_prefix(dictionary_id))

    def recompress(self, ordinal: int) -> None:
        """Writes a record again, with the newest dictionary of its namespace; what it says stays."""
        key = KEY.pack(ordinal)
        value = self._transaction.get(b"docs", key)
        if value is None:
            return  # removed since
        record = records.expand_record(value, ordinal, self.dictionary)
        name = records.decode_record(record, ordinal).memory.namespace
        dictionary = self._dictionaries.newest(self._transaction, self._known_namespace(name).number)
        self._transaction.put(b"docs", key, records.compress_record(record, dictionary))
