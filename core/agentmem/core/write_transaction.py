"""What can be written in one commit: log entries and, in the same transaction, what they say.

The writer appends entries of its own making, a replica applies those it was sent. Both go through the same
operations, so that equal logs make equal stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentmem.core import records, wire
from agentmem.core.dictionaries import Dictionaries
from agentmem.core.entry_changes import LOOK_UP, AnyChange, Change, ClearedVectors, ComingVector, Removal
from agentmem.core.environment import StoreCorruptError, Transaction
from agentmem.core.errors import DataLoss, FailedPrecondition
from agentmem.core.layout import (
    COUNTERS,
    KEY,
    MAX_KNOWN_NAMESPACES,
    POSITION,
    NamespaceState,
    id_digest,
    seal,
    unseal,
)
from agentmem.core.log import (
    EMPTY_CHAIN_HASH,
    LOG_HEADER_BYTES,
    RECORD_KINDS,
    SHIPPED_KINDS,
    LogEntry,
    Operation,
    Position,
    decode_entry,
    encode_entry,
    next_chain_hash,
)
from agentmem.core.records import Record
from agentmem.core.shipping import AppliedEntry, checked_versions
from agentmem.core.times import timestamp_us
from agentmem.core.version_writer import VersionWriter, WrittenState
from agentmem.v1 import memory_pb2, replication_pb2, storage_pb2, writer_pb2

# How long, and how many, answers are kept for requests that come again.
REQUEST_MEMORY_US = 24 * 3600 * 1_000_000
MAX_REQUESTS = 1_000_000
# A new request makes room for itself and some more, so that what is over its time goes steadily.
MAX_FORGOTTEN_REQUESTS = 8
_ENTRY, _SHIPPED = replication_pb2.ShippedEntry, replication_pb2.ShippedRecord
_LOG_VALUE, _RECORDS = _ENTRY.LOG_VALUE_FIELD_NUMBER, _ENTRY.RECORDS_FIELD_NUMBER
_ORDINAL, _RECORD = _SHIPPED.ORDINAL_FIELD_NUMBER, _SHIPPED.RECORD_FIELD_NUMBER
_VECTOR, _COMING_VECTOR = _SHIPPED.VECTOR_FIELD_NUMBER, _SHIPPED.COMING_VECTOR_FIELD_NUMBER


class WriteTransaction(VersionWriter):
    """The one open write. Sees its own changes. Valid only inside ``Store.commit``."""

    def __init__(
        self, transaction: Transaction, dictionaries: Dictionaries, before: WrittenState | None = None
    ) -> None:
        super().__init__(transaction, dictionaries, before)
        self._position = super().position if before is None else before.position
        self._is_moved = False
        # The entries that were appended, each a ShippedEntry, serialized. None when one of them removes or
        # replaces what was written before, of which the store knows.
        self.shipped: list[bytes] | None = []
        # The time of the oldest request that is kept; None when it has to be looked up.
        self._oldest_request_us = None if before is None else before.oldest_request_us
        # How many there are; None when they have to be counted.
        self._requests = None if before is None else before.requests

    def finish(self) -> None:
        """Writes what every entry changes, once for all of them; the last thing before the commit."""
        self._write_namespaces()
        if self._is_moved:
            position = self._position
            value = POSITION.pack(position.epoch, position.revision, position.chain_hash)
            self._transaction.put(b"meta", b"position", seal(value))
            counters = COUNTERS.pack(self._next_ordinal, self._log_bytes)
            self._transaction.put(b"meta", b"counters", seal(counters))

    def left(self) -> WrittenState:
        """What it leaves to the next write, once it is committed."""
        known = self._namespaces if len(self._namespaces) <= MAX_KNOWN_NAMESPACES else {}
        return WrittenState(
            *(self.number, self._position, self._next_ordinal, self._log_bytes, known),
            *(self._requests, self._oldest_request_us),
        )

    @property
    def position(self) -> Position:
        return self._position

    @property
    def place(self) -> tuple[int, int]:
        return self._position.epoch, self._position.revision

    @property
    def log_bytes(self) -> int:
        return self._log_bytes

    @property
    def newest_ordinal(self) -> int:
        return self._next_ordinal - 1

    # Writing an entry

    def append(
        self,
        changes: Sequence[AnyChange],
        time_us: int,
        *,
        step: storage_pb2.NamespaceChange | None = None,
        settings: Mapping[str, writer_pb2.NamespaceSettings] | None = None,
        request: storage_pb2.RequestOutcome | None = None,
        receipt: writer_pb2.PurgeReceipt | None = None,
    ) -> int:
        """Writes the changes and the log entry that tells of them; returns its revision.

        Raises StoreCorruptError when what it finds contradicts the changes; some may have been written then.

        Args:
            step: towards other embeddings of a namespace, before anything else; its number is set, and its
                settings are those that the namespace has but for the embedder.
            settings: of namespaces, to be changed before the changes.
            request: the outcome of the request, for when it comes again; its revision and time are set.
            receipt: of the purge that ends here; its revision is set.
        """
        position = self.position
        revision = position.revision + 1
        entry = LogEntry(epoch=position.epoch, revision=revision, time_us=time_us)
        for name, wanted in (settings or {}).items():
            self._set_namespace(entry, name, wanted)
        # Of a ShippedEntry.
        sent: list[bytes] = []
        try:
            if step is not None:
                self._step(entry, step)
                self.shipped = None
            for change in changes:
                if isinstance(change, Change):
                    sent += self._write_change(entry, change)
                else:
                    entry.operations.append(self._write(change))
                    self.shipped = None
        except DataLoss as error:
            raise StoreCorruptError(error.message) from error
        if request is not None:
            request.revision, request.time_us = revision, time_us
            entry.request.CopyFrom(request)
        if receipt is not None:
            receipt.revision = revision
            entry.receipt.CopyFrom(receipt)
        value = encode_entry(entry, position.chain_hash)
        self._append_log(entry, value)
        if self.shipped is not None:
            self.shipped.append(b"".join((wire.head(_LOG_VALUE, len(value)), value, *sent)))
        return revision

    def _step(self, entry: LogEntry, step: storage_pb2.NamespaceChange) -> None:
        known = self._known_namespace(step.name)
        embedder = step.settings.embedder
        step.number = known.number
        step.settings.CopyFrom(known.settings())
        step.settings.embedder = embedder or known.embedder
        entry.namespaces.append(step)
        self._apply_namespace(step)

    def _write(self, change: Removal | ComingVector | ClearedVectors) -> Operation:
        if isinstance(change, ComingVector):
            space = self._known_namespace(change.namespace)
            vector = records.encode_vector(change.vector, space.precision)
            operation = Operation(
                kind=Operation.KIND_EMBED,
                ordinal=change.ordinal,
                namespace_number=space.number,
                coming_vector_crc32c=records.stored_checksum(vector),
                coming_space=space.coming_space,
            )
            self._embed(operation, vector)
            return operation
        if isinstance(change, ClearedVectors):
            space = self._known_namespace(change.namespace)
            operation = Operation(
                kind=Operation.KIND_CLEAR, namespace_number=space.number, cleared_ordinals=change.ordinals
            )
            self._clear(operation)
            return operation
        operation = self._removal_operation(change)
        self._remove(operation)
        return operation

    def _write_change(self, entry: LogEntry, change: Change) -> tuple[bytes, bytes]:
        """Returns what was written, as a field of a ShippedEntry."""
        space = self.namespace(change.memory.namespace)
        if space is None or (change.vector is not None and not space.dimension):
            settings = (space or NamespaceState(number=0)).settings()
            space = self._set_namespace(entry, change.memory.namespace, settings, change)
        previous = change.before
        if previous is LOOK_UP:
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
        coming = records.NO_VECTOR if change.is_tombstone else change.coming_vector
        coming_vector = b""
        if space.is_filling and coming is not None:
            coming_vector = records.encode_vector(coming, space.precision)
        operation = entry.operations.add(
            kind=Operation.KIND_DELETE if change.is_tombstone else Operation.KIND_PUT,
            ordinal=self._next_ordinal,
            record_crc32c=records.stored_checksum(record),
            vector_crc32c=records.stored_checksum(vector),
            namespace_number=space.number,
        )
        # Each field takes its time, and these are mostly 0.
        if previous and not previous.deleted:
            operation.replaced_ordinal = previous.ordinal
        if space.space:
            operation.space = space.space
        if coming_vector:
            operation.coming_vector_crc32c = records.stored_checksum(coming_vector)
            operation.coming_space = space.coming_space
        written = (record, vector, coming_vector)
        self._write_version(operation, change.memory, space, previous, *written, change.ended)
        fields = [wire.number(_ORDINAL, operation.ordinal), wire.head(_RECORD, len(record)), record]
        if vector:
            fields += wire.head(_VECTOR, len(vector)), vector
        if coming_vector:
            fields += wire.head(_COMING_VECTOR, len(coming_vector)), coming_vector
        sent = b"".join(fields)
        return wire.head(_RECORDS, len(sent)), sent

    def _removal_operation(self, removal: Removal) -> Operation:
        operation = Operation(
            kind=Operation.KIND_PURGE if removal.purged_id else Operation.KIND_PRUNE,
            namespace_number=self._known_namespace(removal.namespace).number,
            removed_ordinals=removal.ordinals,
        )
        if removal.purged_id:
            operation.purged_id_digest = id_digest(removal.namespace, removal.purged_id)
        if removal.forgotten is not None:
            operation.forgotten_before = removal.forgotten.revision
            operation.forgotten_before_us = timestamp_us(removal.forgotten.memory.update_time)
        return operation

    def _set_namespace(
        self,
        entry: LogEntry,
        name: str,
        settings: writer_pb2.NamespaceSettings,
        first: Change | None = None,
    ) -> NamespaceState:
        """``first`` is a version that is the first of its namespace, or the first with a vector."""
        known = self.namespace(name)
        number = known.number if known else self.namespace_count() + 1
        change = storage_pb2.NamespaceChange(name=name, number=number, settings=settings)
        if first is not None and first.vector is not None:
            change.dimension, change.embedding_model = len(first.vector), first.memory.embedding_model
        entry.namespaces.append(change)
        return self._apply_namespace(change)

    def begin_epoch(self, epoch: int, writer_id: str, time_us: int) -> int:
        """Writes the first entry of an epoch, of which this store has the writer; returns its revision."""
        position = self.position
        if epoch <= position.epoch:
            raise FailedPrecondition(
                "STALE_EPOCH",
                f"epoch {epoch} cannot follow epoch {position.epoch}",
                epoch=str(position.epoch),
            )
        revision = position.revision + 1
        entry = LogEntry(
            epoch=epoch,
            revision=revision,
            time_us=max(time_us, self.last_time_us),
            promotion=storage_pb2.Promotion(writer_id=writer_id),
        )
        self.shipped = None
        self._append_log(entry, encode_entry(entry, position.chain_hash))
        return revision

    # Applying an entry

    def apply(self, shipped: replication_pb2.ShippedEntry) -> AppliedEntry | None:
        """Applies the next entry of the writer's log and returns it, for who follows the log.

        An entry that is already there is ignored: None. Raises DataLoss, and changes nothing, when the entry
        leaves a gap, does not chain to the newest one, or comes with bytes that are not those the writer
        stored.
        """
        self.shipped = None
        position = self.position
        value = shipped.log_value
        entry, chain_hash = decode_entry(value, position.revision + 1)
        if entry.revision <= position.revision:
            return None
        if entry.revision != position.revision + 1:
            raise DataLoss(
                "LOG_GAP", f"entry {entry.revision} was shipped behind revision {position.revision}"
            )
        if chain_hash != next_chain_hash(position.chain_hash, value[LOG_HEADER_BYTES:]):
            raise DataLoss("CHAIN_MISMATCH", f"entry {entry.revision} does not chain to the one before it")
        is_later_epoch = entry.epoch > position.epoch
        if entry.epoch < position.epoch or is_later_epoch != entry.HasField("promotion"):
            raise DataLoss(
                "EPOCH_MISMATCH",
                f"entry {entry.revision} of epoch {entry.epoch} came behind {position.epoch}",
            )
        sent_versions = iter(checked_versions(entry, shipped))
        for change in entry.namespaces:
            self._apply_namespace(change)
        written: dict[int, tuple[memory_pb2.Memory, bytes]] = {}
        size_bytes = len(value)
        for operation in entry.operations:
            kind = operation.kind
            if kind == Operation.KIND_CLEAR:
                self._clear(operation)
                continue
            if kind not in SHIPPED_KINDS:
                self._remove(operation)
                continue
            sent = next(sent_versions)
            if sent is None:
                if kind in RECORD_KINDS:
                    self._skip_version(operation)
                continue
            memory, record, vector, coming_vector = sent
            if memory is None:
                self._embed(operation, coming_vector)
                continue
            before = self._state_before(memory, records.previous_ordinal(record))
            space = self._known_namespace(memory.namespace)
            self._write_version(operation, memory, space, before, record, vector, coming_vector)
            written[operation.ordinal] = memory, vector
            size_bytes += len(record) + len(vector)
        self._append_log(entry, value)
        return AppliedEntry(entry, written, size_bytes)

    def adopt_cluster(self, cluster_id: bytes) -> None:
        """Joins a store without entries to a cluster, at the start of its first epoch."""
        if self.revision:
            raise FailedPrecondition("NOT_EMPTY", "a store with entries belongs to its cluster for good")
        self.leave_for_cluster(cluster_id)
        self._move(Position(cluster_id, 1, 0, EMPTY_CHAIN_HASH))

    def leave_for_cluster(self, cluster_id: bytes) -> None:
        """Makes the store one of another cluster, which begins with what is in it."""
        self._transaction.put(b"meta", b"cluster_id", seal(cluster_id))
        self._position = self._position._replace(cluster_id=cluster_id)

    def _move(self, position: Position) -> None:
        self._position = position
        self._is_moved = True

    # The log

    def _append_log(self, entry: LogEntry, value: bytes) -> None:
        self._transaction.append(b"log", KEY.pack(entry.revision), value)
        chain_hash = value[records.CHECKSUM_BYTES : LOG_HEADER_BYTES]
        self._move(Position(self._position.cluster_id, entry.epoch, entry.revision, chain_hash))
        if entry.HasField("promotion"):
            self._transaction.append(b"epochs", KEY.pack(entry.epoch), seal(KEY.pack(entry.revision)))
        if entry.HasField("request"):
            self._remember(entry)
        if entry.HasField("receipt"):
            receipt = seal(entry.receipt.SerializeToString())
            self._transaction.append(b"receipts", KEY.pack(entry.revision), receipt)
        self._log_bytes += len(value)

    def _remember(self, entry: LogEntry) -> None:
        """Keeps the outcome of a request, and forgets some that are over their time or too many."""
        request = entry.request
        self._transaction.put(b"requests", request.key, seal(request.SerializeToString()))
        self._transaction.append(b"request_log", KEY.pack(entry.revision), seal(request.key))
        if self._requests is None:
            self._requests = self._transaction.count(b"request_log")
        else:
            self._requests += 1
        excess = self._requests - MAX_REQUESTS
        over_us = entry.time_us - REQUEST_MEMORY_US
        if excess <= 0 and self._oldest_request_us is not None and self._oldest_request_us >= over_us:
            return
        for _ in range(MAX_FORGOTTEN_REQUESTS):
            oldest = self._transaction.first_key(b"request_log")
            if oldest is None:
                return
            key = unseal(self._transaction.get(b"request_log", oldest) or b"", "the list of requests")
            outcome = self.request_outcome(key)
            is_old = outcome is None or outcome.time_us < over_us
            if outcome is not None and not is_old and excess <= 0:
                self._oldest_request_us = outcome.time_us
                return
            # A request_id that came again after its time has a newer row, which goes on.
            if outcome is not None and outcome.revision == KEY.unpack(oldest)[0]:
                self._transaction.delete(b"requests", key)
            self._transaction.delete(b"request_log", oldest)
            self._requests -= 1
            excess -= 1

    def trim_log(self, *, max_bytes: int, before_us: int, keep_from_revision: int, limit: int) -> int:
        """Removes the oldest entries: those over ``max_bytes`` and those before a time; returns how many.

        The newest entry stays, and so do those from ``keep_from_revision`` on. The log is not needed for what
        it told: records, history and position stay.

        Args:
            limit: how many at the most, to keep the transaction short.
        """
        newest = self.revision
        log_bytes = self._log_bytes
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
            self._log_bytes, self._is_moved = log_bytes, True
        return len(trimmed)
