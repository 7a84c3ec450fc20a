"""What can be written in one commit: log entries and, in the same transaction, what they say.

The writer appends entries of its own making, a replica applies those it was sent. Both go through the same
operations, so that equal logs make equal stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentmem.core import records
from agentmem.core.environment import StoreCorruptError, Transaction
from agentmem.core.errors import DataLoss, FailedPrecondition
from agentmem.core.layout import (
    COUNTERS,
    KEY,
    POSITION,
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
    unseal,
)
from agentmem.core.log import (
    EMPTY_CHAIN_HASH,
    LOG_HEADER_BYTES,
    LogEntry,
    Operation,
    decode_entry,
    encode_entry,
    next_chain_hash,
)
from agentmem.core.read_transaction import RECORD_KINDS, Dictionaries, ReadTransaction
from agentmem.core.records import FloatVector, Record
from agentmem.core.times import duration_us, timestamp_us
from agentmem.v1 import memory_pb2, replication_pb2, storage_pb2, writer_pb2

# How long, and how many, answers are kept for requests that come again.
REQUEST_MEMORY_US = 24 * 3600 * 1_000_000
MAX_REQUESTS = 1_000_000
# A new request makes room for itself and some more, so that what is over its time goes steadily.
MAX_FORGOTTEN_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class Change:
    """The next version of a memory, or a tombstone that ends it."""

    memory: memory_pb2.Memory
    vector: FloatVector | None = None
    is_tombstone: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """Versions of one memory to be removed, newest first.

    Attributes:
        is_purge: all of them, for good; otherwise retention removes old ones.
        forgotten: the tombstone, when retention removes that and the id with it.
    """

    namespace: str
    ordinals: Sequence[int]
    is_purge: bool
    forgotten: Record | None = None


class WriteTransaction(ReadTransaction):
    """The one open write. Sees its own changes. Valid only inside ``Store.commit``."""

    def __init__(self, transaction: Transaction, dictionaries: Dictionaries) -> None:
        super().__init__(transaction, dictionaries)
        # Changed by nearly every operation of an entry, and so written once, at its end.
        self._changed_namespaces: dict[str, NamespaceState] = {}
        self._next_ordinal = self.newest_ordinal + 1

    def namespace(self, namespace: str) -> NamespaceState | None:
        return self._changed_namespaces.get(namespace) or super().namespace(namespace)

    # Writing an entry

    def append(
        self,
        changes: Sequence[Change | Removal],
        time_us: int,
        *,
        settings: Mapping[str, writer_pb2.NamespaceSettings] | None = None,
        request: storage_pb2.RequestOutcome | None = None,
        receipt: writer_pb2.PurgeReceipt | None = None,
    ) -> int:
        """Writes the changes and the log entry that tells of them; returns its revision.

        Raises StoreCorruptError when what it finds contradicts the changes; some may have been written then.

        Args:
            settings: of namespaces, to be changed before anything else.
            request: the outcome of the request, for when it comes again.
            receipt: of the purge that ends here; its revision is set.
        """
        position = self.position
        revision = position.revision + 1
        entry = LogEntry(epoch=position.epoch, revision=revision, time_us=time_us)
        for name, wanted in (settings or {}).items():
            self._set_namespace(entry, name, wanted)
        try:
            for change in changes:
                entry.operations.append(self._write(entry, change))
        except DataLoss as error:
            raise StoreCorruptError(error.message) from error
        if request is not None:
            entry.request.CopyFrom(request)
            entry.request.revision, entry.request.time_us = revision, time_us
        if receipt is not None:
            receipt.revision = revision
            entry.receipt.CopyFrom(receipt)
        self._append_log(entry, encode_entry(entry, position.chain_hash))
        return revision

    def _write(self, entry: LogEntry, change: Change | Removal) -> Operation:
        if isinstance(change, Change):
            return self._write_change(entry, change)
        operation = self._removal_operation(change)
        self._remove(operation)
        return operation

    def _write_change(self, entry: LogEntry, change: Change) -> Operation:
        space = self.namespace(change.memory.namespace)
        if space is None:
            settings = writer_pb2.NamespaceSettings(vector_precision=writer_pb2.VECTOR_PRECISION_FLOAT32)
            space = self._set_namespace(entry, change.memory.namespace, settings)
        previous = self.id_state(change.memory.namespace, change.memory.id)
        record = records.encode_record(
            Record(
                revision=entry.revision,
                previous_ordinal=previous.ordinal if previous else 0,
                is_tombstone=change.is_tombstone,
                memory=change.memory,
            )
        )
        vector = b"" if change.vector is None else records.encode_vector(change.vector, space.precision)
        operation = Operation(
            kind=Operation.KIND_DELETE if change.is_tombstone else Operation.KIND_PUT,
            ordinal=self._next_ordinal,
            replaced_ordinal=previous.ordinal if previous and not previous.deleted else 0,
            record_crc32c=records.stored_checksum(record),
            vector_crc32c=records.stored_checksum(vector),
            namespace_number=space.number,
        )
        self._write_version(operation, change.memory, record, vector)
        return operation

    def _removal_operation(self, removal: Removal) -> Operation:
        operation = Operation(
            kind=Operation.KIND_PURGE if removal.is_purge else Operation.KIND_PRUNE,
            namespace_number=self._known_namespace(removal.namespace).number,
            removed_ordinals=removal.ordinals,
        )
        if removal.forgotten is not None:
            operation.forgotten_before = removal.forgotten.revision
            operation.forgotten_before_us = timestamp_us(removal.forgotten.memory.update_time)
        return operation

    def _set_namespace(
        self, entry: LogEntry, name: str, settings: writer_pb2.NamespaceSettings
    ) -> NamespaceState:
        known = self.namespace(name)
        number = known.number if known else self.namespace_count() + 1
        change = storage_pb2.NamespaceChange(name=name, number=number, settings=settings)
        entry.namespaces.append(change)
        return self._apply_namespace(change)

    # Applying an entry

    def apply(self, shipped: replication_pb2.ShippedEntry) -> None:
        """Applies the next entry of the writer's log.

        An entry that is already there is ignored. Raises DataLoss, and changes nothing, when the entry leaves
        a gap, does not chain to the newest one, or comes with bytes that are not those the writer stored.
        """
        position = self.position
        value = shipped.log_value
        entry, chain_hash = decode_entry(value, position.revision + 1)
        if entry.revision <= position.revision:
            return
        if entry.revision != position.revision + 1:
            raise DataLoss(
                "LOG_GAP", f"entry {entry.revision} was shipped behind revision {position.revision}"
            )
        if chain_hash != next_chain_hash(position.chain_hash, value[LOG_HEADER_BYTES:]):
            raise DataLoss("CHAIN_MISMATCH", f"entry {entry.revision} does not chain to the one before it")
        memories = _checked_memories(entry, shipped)
        for change in entry.namespaces:
            self._apply_namespace(change)
        sent_records = iter(zip(shipped.records, memories, strict=True))
        for operation in entry.operations:
            if operation.kind not in RECORD_KINDS:
                self._remove(operation)
                continue
            sent, memory = next(sent_records)
            if memory is None:
                self._skip_version(operation)
            else:
                self._write_version(operation, memory, sent.record, sent.vector)
        self._append_log(entry, value)

    def adopt_cluster(self, cluster_id: bytes, epoch: int) -> None:
        """Joins a store without entries to a cluster."""
        if self.revision:
            raise FailedPrecondition("NOT_EMPTY", "a store with entries belongs to its cluster for good")
        self._transaction.put(b"meta", b"cluster_id", seal(cluster_id))
        self._transaction.put(b"meta", b"position", seal(POSITION.pack(epoch, 0, EMPTY_CHAIN_HASH)))

    # What operations do

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
        )
        self._changed_namespaces[change.name] = changed
        return changed

    def _write_version(
        self, operation: Operation, memory: memory_pb2.Memory, record: bytes, vector: bytes
    ) -> None:
        deleted = operation.kind == Operation.KIND_DELETE
        key, ordinal = KEY.pack(operation.ordinal), operation.ordinal
        space = self._known_namespace(memory.namespace)
        compressed = records.compress_record(record, self._dictionaries.newest(space.number))
        self._transaction.append(b"docs", key, compressed)
        if vector:
            self._transaction.append(b"vectors", key, vector)
        before = self.id_state(memory.namespace, memory.id)
        time_us = timestamp_us(memory.update_time)
        if before is not None and not before.deleted:
            space = self._end_version(space, before.ordinal)
            ended = superseded_key(space.number, time_us, before.ordinal)
            self._transaction.put(b"superseded", ended, b"")
        self._transaction.put(
            b"ids",
            id_key(memory.namespace, memory.id),
            encode_id_state(IdState(ordinal, memory.version, deleted)),
        )
        if deleted:
            self._transaction.put(b"superseded", superseded_key(space.number, time_us, ordinal), b"")
        else:
            self._transaction.put(b"hashes", hash_key(space.number, content_digest(memory), ordinal), b"")
            if memory.HasField("expire_time"):
                self._transaction.put(b"expiry", expiry_key(timestamp_us(memory.expire_time), ordinal), b"")
        first_vector = bool(vector) and not space.dimension
        self._changed_namespaces[memory.namespace] = replace(
            space,
            dimension=records.vector_dimension(vector) if first_vector else space.dimension,
            model=memory.embedding_model if first_vector else space.model,
            live_memories=space.live_memories + (not deleted),
            live_vectors=space.live_vectors + bool(vector),
            versions=space.versions + 1,
        )
        self._next_ordinal = ordinal + 1

    def _known_namespace(self, name: str) -> NamespaceState:
        space = self.namespace(name)
        if space is None:
            raise DataLoss("CORRUPT_NAMESPACES", f"the log has no beginning of namespace {name!r}")
        return space

    def _end_version(self, space: NamespaceState, ordinal: int) -> NamespaceState:
        """Takes a live version out of everything that is about live ones."""
        memory = self.named_record(ordinal).memory
        self._transaction.delete(b"hashes", hash_key(space.number, content_digest(memory), ordinal))
        if memory.HasField("expire_time"):
            self._transaction.delete(b"expiry", expiry_key(timestamp_us(memory.expire_time), ordinal))
        had_vector = self._transaction.get(b"vectors", KEY.pack(ordinal)) is not None
        return replace(
            space,
            live_memories=space.live_memories - 1,
            live_vectors=space.live_vectors - had_vector,
        )

    def _remove(self, operation: Operation) -> None:
        """PRUNE and PURGE. Of what this store never had, nothing is removed."""
        if operation.kind == Operation.KIND_PRUNE:
            name = self.namespace_name(operation.namespace_number)
            space = self._known_namespace(name)
            self._changed_namespaces[name] = replace(
                space,
                pruned_versions=space.pruned_versions + len(operation.removed_ordinals),
                history_start=max(space.history_start, operation.forgotten_before),
                history_start_us=max(space.history_start_us, operation.forgotten_before_us),
            )
        self._remove_versions(operation.removed_ordinals)

    def _skip_version(self, operation: Operation) -> None:
        """A version that the writer removed before this store could have it, and all before it with it."""
        self._next_ordinal = operation.ordinal + 1
        if operation.replaced_ordinal:
            before = [ordinal for ordinal, _ in self.versions(operation.replaced_ordinal)]
            self._remove_versions(before)

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
                    space = self._end_version(space, ordinal)
                self._transaction.delete(b"ids", id_key(name, memory.id))
            if ordinal in ended_us:
                ended = superseded_key(space.number, ended_us[ordinal], ordinal)
                self._transaction.delete(b"superseded", ended)
            key = KEY.pack(ordinal)
            self._transaction.delete(b"docs", key)
            self._transaction.delete(b"vectors", key)
        self._changed_namespaces[name] = replace(space, versions=space.versions - len(kept))

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

    # The log

    def _append_log(self, entry: LogEntry, value: bytes) -> None:
        self._transaction.append(b"log", KEY.pack(entry.revision), value)
        chain_hash = value[records.CHECKSUM_BYTES : LOG_HEADER_BYTES]
        position = POSITION.pack(entry.epoch, entry.revision, chain_hash)
        self._transaction.put(b"meta", b"position", seal(position))
        if entry.HasField("request"):
            self._remember(entry)
        if entry.HasField("receipt"):
            receipt = seal(entry.receipt.SerializeToString())
            self._transaction.append(b"receipts", KEY.pack(entry.revision), receipt)
        for name, state in self._changed_namespaces.items():
            self._transaction.put(b"namespaces", name.encode(), encode_namespace(state))
        self._changed_namespaces.clear()
        self._put_counters(self._next_ordinal, self.log_bytes + len(value))

    def _put_counters(self, next_ordinal: int, log_bytes: int) -> None:
        self._transaction.put(b"meta", b"counters", seal(COUNTERS.pack(next_ordinal, log_bytes)))

    def _remember(self, entry: LogEntry) -> None:
        """Keeps the outcome of a request, and forgets some that are over their time or too many."""
        request = entry.request
        self._transaction.put(b"requests", request.key, seal(request.SerializeToString()))
        self._transaction.append(b"request_log", KEY.pack(entry.revision), seal(request.key))
        excess = self._transaction.count(b"request_log") - MAX_REQUESTS
        for _ in range(MAX_FORGOTTEN_REQUESTS):
            oldest = self._transaction.first_key(b"request_log")
            if oldest is None:
                return
            key = unseal(self._transaction.get(b"request_log", oldest) or b"", "the list of requests")
            outcome = self.request_outcome(key)
            is_old = outcome is None or outcome.time_us < entry.time_us - REQUEST_MEMORY_US
            if not is_old and excess <= 0:
                return
            # A request_id that came again after its time has a newer row, which goes on.
            if outcome is not None and outcome.revision == KEY.unpack(oldest)[0]:
                self._transaction.delete(b"requests", key)
            self._transaction.delete(b"request_log", oldest)
            excess -= 1

    def trim_log(self, *, max_bytes: int, before_us: int, keep_from_revision: int, limit: int) -> int:
        """Removes the oldest entries: those over ``max_bytes`` and those before a time; returns how many.

        The newest entry stays, and so do those from ``keep_from_revision`` on. The log is not needed for what
        it told: records, history and position stay.

        Args:
            limit: how many at the most, to keep the transaction short.
        """
        newest = self.revision
        next_ordinal, log_bytes = self._counters()
        trimmed: list[int] = []
        for revision, value in self.log_values():
            entry = decode_entry(value, revision)[0]
            due = log_bytes > max_bytes or entry.time_us < before_us
            if not due or revision >= min(newest, keep_from_revision) or len(trimmed) == limit:
                break
            trimmed.append(revision)
            log_bytes -= len(value)
        for revision in trimmed:
            self._transaction.delete(b"log", KEY.pack(revision))
        if trimmed:
            self._put_counters(next_ordinal, log_bytes)
        return len(trimmed)


def _checked_memories(
    entry: LogEntry, shipped: replication_pb2.ShippedEntry
) -> list[memory_pb2.Memory | None]:
    """The memory of each shipped record; None for one that was removed since.

    Raises DataLoss unless the records are those that the entry names.
    """
    operations = [operation for operation in entry.operations if operation.kind in RECORD_KINDS]
    if len(shipped.records) != len(operations):
        raise DataLoss("RECORDS_MISSING", f"entry {entry.revision} came without all of its records")
    memories: list[memory_pb2.Memory | None] = []
    for operation, sent in zip(operations, shipped.records, strict=True):
        if sent.removed and sent.ordinal == operation.ordinal:
            memories.append(None)
            continue
        memories.append(records.decode_record(sent.record, operation.ordinal, {}).memory)
        if sent.vector:
            records.check_vector(sent.vector, operation.ordinal)
        if (
            sent.ordinal != operation.ordinal
            or records.stored_checksum(sent.record) != operation.record_crc32c
            or records.stored_checksum(sent.vector) != operation.vector_crc32c
        ):
            raise DataLoss(
                "RECORD_MISMATCH",
                f"the record at ordinal {operation.ordinal} is not the one entry {entry.revision} names",
            )
    return memories
