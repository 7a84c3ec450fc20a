"""The store: one LMDB environment, the same in the writer and in every replica.

The layout of keys and values is in layout.py. Log and data change in one LMDB transaction, which LMDB syncs
to disk before ``commit`` returns. This is the only module that imports lmdb.
"""

from __future__ import annotations

import struct
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lmdb

from agentmem.core import records
from agentmem.core.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from agentmem.core.layout import (
    COUNTER,
    DATABASES,
    FORMAT_VERSION,
    KEY,
    POSITION,
    IdState,
    NamespaceState,
    decode_id_state,
    decode_namespace,
    encode_id_state,
    encode_namespace,
    id_key,
)
from agentmem.core.log import (
    EMPTY_CHAIN_HASH,
    LOG_HEADER_BYTES,
    LogEntry,
    Operation,
    Position,
    decode_entry,
    encode_entry,
    next_chain_hash,
)
from agentmem.core.records import FloatVector, Record
from agentmem.v1 import memory_pb2, replication_pb2

MAX_READERS = 512

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """A version to be written, or with ``memory`` reduced to its id, a tombstone.

    ``state`` is the id's state that the change was decided on; None for an id never used.
    """

    memory: memory_pb2.Memory
    vector: FloatVector | None
    state: IdState | None
    is_tombstone: bool = False


class StoreFormatError(Exception):
    """The files are not a store that this release can open."""


class StoreCorruptError(Exception):
    """The store contradicts itself. No request is at fault: the write is undone, and the process ends."""


class ReadTransaction:
    """A consistent snapshot of the store. Valid only inside ``Store.read()``."""

    def __init__(self, transaction: lmdb.Transaction[bytes], databases: dict[bytes, lmdb._Database]) -> None:
        self._transaction = transaction
        self._databases = databases

    def _get(self, database: bytes, key: bytes) -> bytes | None:
        return self._transaction.get(key, db=self._databases[database])

    @property
    def position(self) -> Position:
        epoch, revision, chain_hash = POSITION.unpack(self._meta(b"position"))
        return Position(self._meta(b"cluster_id"), epoch, revision, chain_hash)

    @property
    def revision(self) -> int:
        """The newest revision; 0 in an empty store."""
        return self.position.revision

    @property
    def last_time_us(self) -> int:
        """The time of the newest entry, microseconds since 1970; 0 in an empty log."""
        revision = self.revision
        return self.log_entry(revision).time_us if revision else 0

    @property
    def newest_ordinal(self) -> int:
        """The last ordinal assigned; 0 in an empty store."""
        return int(COUNTER.unpack(self._meta(b"next_ordinal"))[0]) - 1

    def _meta(self, key: bytes) -> bytes:
        value = self._get(b"meta", key)
        if value is None:
            raise DataLoss("CORRUPT_META", f"the store has no {key.decode()}")
        return value

    def namespace(self, namespace: str) -> NamespaceState | None:
        value = self._get(b"namespaces", namespace.encode())
        return None if value is None else decode_namespace(value)

    def namespaces(self) -> Iterator[tuple[str, NamespaceState]]:
        with self._transaction.cursor(db=self._databases[b"namespaces"]) as cursor:
            for key, value in cursor:
                yield key.decode(), decode_namespace(value)

    def id_state(self, namespace: str, memory_id: str) -> IdState | None:
        value = self._get(b"ids", id_key(namespace, memory_id))
        return None if value is None else decode_id_state(value)

    def live_ids(self, namespace: str, after: str = "") -> Iterator[tuple[str, IdState]]:
        """The undeleted ids behind ``after``, in the order of their UTF-8 bytes."""
        prefix = id_key(namespace, "")
        start = prefix + after.encode() + (b"\x00" if after else b"")
        with self._transaction.cursor(db=self._databases[b"ids"]) as cursor:
            if not cursor.set_range(start):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                state = decode_id_state(value)
                if not state.deleted:
                    yield key[len(prefix) :].decode(), state

    def record(self, ordinal: int) -> Record | None:
        """Raises DataLoss when the stored bytes fail their checksum."""
        value = self._get(b"docs", KEY.pack(ordinal))
        return None if value is None else records.decode_record(value, ordinal)

    def named_record(self, ordinal: int) -> Record:
        """The record at an ordinal that the store itself names. Raises DataLoss when it is missing."""
        record = self.record(ordinal)
        if record is None:
            raise DataLoss("MISSING_RECORD", f"the store has no record at ordinal {ordinal}")
        return record

    def vector(self, ordinal: int) -> FloatVector | None:
        """float32 [dimension], unit length. Raises DataLoss when the stored bytes fail their checksum."""
        value = self._get(b"vectors", KEY.pack(ordinal))
        return None if value is None else records.decode_vector(value, ordinal)

    def live_ordinals(self) -> Iterator[int]:
        """The ordinals of all undeleted newest versions, in no particular order."""
        with self._transaction.cursor(db=self._databases[b"ids"]) as cursor:
            for _, value in cursor:
                state = decode_id_state(value)
                if not state.deleted:
                    yield state.ordinal

    def log_value(self, revision: int) -> bytes | None:
        return self._get(b"log", KEY.pack(revision))

    def log_entry(self, revision: int) -> LogEntry:
        """Raises DataLoss when the entry is missing or fails its checksum."""
        value = self.log_value(revision)
        if value is None:
            raise DataLoss("CORRUPT_LOG", f"the log has no entry at revision {revision}")
        return decode_entry(value, revision)[0]

    def shipped_entries(self, after_revision: int, max_bytes: int) -> list[replication_pb2.ShippedEntry]:
        """Entries behind ``after_revision`` with their records: at most ``max_bytes``, at least one."""
        shipped: list[replication_pb2.ShippedEntry] = []
        size_bytes = 0
        with self._transaction.cursor(db=self._databases[b"log"]) as cursor:
            if not cursor.set_range(KEY.pack(after_revision + 1)):
                return shipped
            for key, value in cursor:
                entry = self._ship(KEY.unpack(key)[0], value)
                size_bytes += entry.ByteSize()
                if shipped and size_bytes > max_bytes:
                    break
                shipped.append(entry)
        return shipped

    def _ship(self, revision: int, value: bytes) -> replication_pb2.ShippedEntry:
        shipped = replication_pb2.ShippedEntry(log_value=value)
        for operation in decode_entry(value, revision)[0].operations:
            key = KEY.pack(operation.ordinal)
            record = self._get(b"docs", key) or b""
            vector = self._get(b"vectors", key) or b""
            # Damage is named where it is, and not by each replica.
            records.check_record(record, operation.ordinal)
            if operation.vector_crc32c:
                records.check_vector(vector, operation.ordinal)
            shipped.records.append(
                replication_pb2.ShippedRecord(ordinal=operation.ordinal, record=record, vector=vector)
            )
        return shipped


class WriteTransaction(ReadTransaction):
    """The one open write. Sees its own changes. Valid only inside ``Store.commit``."""

    def _put(self, database: bytes, key: bytes, value: bytes, *, append: bool = False) -> None:
        if not self._transaction.put(key, value, db=self._databases[database], append=append):
            raise StoreCorruptError(f"{database.decode()} has the key {key.hex()} or a later one already")

    def append(self, changes: Sequence[Change], time_us: int) -> int:
        """Writes the changes and the log entry that tells of them; returns its revision."""
        position = self.position
        revision = position.revision + 1
        ordinal = COUNTER.unpack(self._meta(b"next_ordinal"))[0]
        entry = LogEntry(epoch=position.epoch, revision=revision, time_us=time_us)
        for change in changes:
            previous = change.state
            record = records.encode_record(
                Record(
                    revision=revision,
                    previous_ordinal=previous.ordinal if previous else 0,
                    is_tombstone=change.is_tombstone,
                    memory=change.memory,
                )
            )
            vector = b"" if change.vector is None else records.encode_vector(change.vector)
            operation = Operation(
                kind=Operation.KIND_DELETE if change.is_tombstone else Operation.KIND_PUT,
                ordinal=ordinal,
                replaced_ordinal=previous.ordinal if previous and not previous.deleted else 0,
                record_crc32c=records.stored_checksum(record),
                vector_crc32c=records.stored_checksum(vector),
            )
            self._apply_operation(operation, change.memory, record, vector)
            entry.operations.append(operation)
            ordinal += 1
        self._append_log(revision, encode_entry(entry, position.chain_hash), position.epoch)
        return revision

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
        if len(shipped.records) != len(entry.operations):
            raise DataLoss("RECORDS_MISSING", f"entry {entry.revision} came without all of its records")
        decoded = []
        for operation, sent in zip(entry.operations, shipped.records, strict=True):
            memory = records.decode_record(sent.record, operation.ordinal).memory
            if sent.vector:
                records.decode_vector(sent.vector, operation.ordinal)
            if (
                sent.ordinal != operation.ordinal
                or records.stored_checksum(sent.record) != operation.record_crc32c
                or records.stored_checksum(sent.vector) != operation.vector_crc32c
            ):
                raise DataLoss(
                    "RECORD_MISMATCH",
                    f"the record at ordinal {operation.ordinal} is not the one entry {entry.revision} names",
                )
            decoded.append((operation, memory, sent))
        for operation, memory, sent in decoded:
            self._apply_operation(operation, memory, sent.record, sent.vector)
        self._append_log(entry.revision, value, entry.epoch)

    def adopt_cluster(self, cluster_id: bytes, epoch: int) -> None:
        """Joins a store without entries to a cluster."""
        if self.revision:
            raise FailedPrecondition("NOT_EMPTY", "a store with entries belongs to its cluster for good")
        self._put(b"meta", b"cluster_id", cluster_id)
        self._put(b"meta", b"position", POSITION.pack(epoch, 0, EMPTY_CHAIN_HASH))

    def _apply_operation(
        self, operation: Operation, memory: memory_pb2.Memory, record: bytes, vector: bytes
    ) -> None:
        deleted = operation.kind == Operation.KIND_DELETE
        key = KEY.pack(operation.ordinal)
        self._put(b"docs", key, record, append=True)
        if vector:
            self._put(b"vectors", key, vector, append=True)
        self._put(
            b"ids",
            id_key(memory.namespace, memory.id),
            encode_id_state(IdState(operation.ordinal, memory.version, deleted)),
        )
        self._count(operation, memory, vector, deleted)
        self._put(b"meta", b"next_ordinal", COUNTER.pack(operation.ordinal + 1))

    def _count(self, operation: Operation, memory: memory_pb2.Memory, vector: bytes, deleted: bool) -> None:
        state = self.namespace(memory.namespace)
        if state is None:
            state = NamespaceState(
                number=1 + self._transaction.stat(self._databases[b"namespaces"])["entries"]
            )
        replaced = operation.replaced_ordinal
        replaced_vector = replaced and self._get(b"vectors", KEY.pack(replaced)) is not None
        first_vector = vector and not state.dimension
        dimension = records.vector_dimension(vector) if first_vector else state.dimension
        model = memory.embedding_model if first_vector else state.model
        self._put(
            b"namespaces",
            memory.namespace.encode(),
            encode_namespace(
                NamespaceState(
                    number=state.number,
                    dimension=dimension,
                    live_memories=state.live_memories + (not deleted) - bool(replaced),
                    live_vectors=state.live_vectors + bool(vector) - bool(replaced_vector),
                    model=model,
                )
            ),
        )

    def _append_log(self, revision: int, value: bytes, epoch: int) -> None:
        self._put(b"log", KEY.pack(revision), value, append=True)
        chain_hash = value[records.CHECKSUM_BYTES : LOG_HEADER_BYTES]
        self._put(b"meta", b"position", POSITION.pack(epoch, revision, chain_hash))


class Store:
    """One open LMDB environment. One process may have it open, once.

    Reads may run in any thread and do not wait for writes; writes come from one thread at a time.
    """

    def __init__(self, path: Path, *, map_size_bytes: int, max_map_size_bytes: int) -> None:
        """Opens or creates the store in the folder.

        Raises:
            StoreFormatError: the folder holds a store of another layout, or files that are not a store.
        """
        path.mkdir(parents=True, exist_ok=True)
        self._max_map_size_bytes = max_map_size_bytes
        # Guards the map's size: LMDB may change it only while no transaction is open in the process.
        self._idle = threading.Condition()
        self._open_transactions = 0
        self._growing = False
        self._closed = False
        try:
            self._environment = lmdb.open(
                str(path), map_size=map_size_bytes, max_dbs=len(DATABASES), max_readers=MAX_READERS
            )
            self._databases = {name: self._environment.open_db(name) for name in DATABASES}
        except lmdb.Error as error:
            raise StoreFormatError(f"{path} cannot be opened as a store: {error}") from error
        self._initialise(path)

    def _initialise(self, path: Path) -> None:
        with self._environment.begin(db=self._databases[b"meta"], write=True) as transaction:
            stored = transaction.get(b"format")
            if stored is None:
                transaction.put(b"format", struct.pack("<I", FORMAT_VERSION))
                transaction.put(b"cluster_id", b"")
                transaction.put(b"position", POSITION.pack(0, 0, EMPTY_CHAIN_HASH))
                transaction.put(b"next_ordinal", COUNTER.pack(1))
                return
        found = int.from_bytes(stored, "little")
        if found != FORMAT_VERSION:
            raise StoreFormatError(
                f"{path} has store format {found}; this release reads and writes format {FORMAT_VERSION}"
            )

    def found_cluster(self) -> None:
        """Makes an empty store the start of a new cluster, with epoch 1; leaves another as it is."""

        def found(transaction: WriteTransaction) -> None:
            if not transaction.position.cluster_id:
                transaction.adopt_cluster(uuid.uuid4().bytes, epoch=1)

        self.commit(found)

    def position(self) -> Position:
        """The newest position."""
        with self.read() as transaction:
            return transaction.position

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        """A snapshot for the length of the ``with`` block, which must not wait for anything."""
        with self._counted_transaction(), self._environment.begin(buffers=False) as transaction:
            yield ReadTransaction(transaction, self._databases)

    def commit(self, work: Callable[[WriteTransaction], T]) -> T:
        """Runs ``work`` in a write transaction and returns its answer once the commit is on disk.

        When the map is full, the map is doubled and ``work`` runs once more from the start. An error that
        ``work`` raises undoes its changes and is raised again.

        Raises:
            ResourceExhausted: ``STORE_FULL``, the map may not grow any more.
            lmdb.Error: the commit failed; nothing can be said of the disk any more.
        """
        while True:
            try:
                with self._counted_transaction(), self._environment.begin(write=True) as transaction:
                    return work(WriteTransaction(transaction, self._databases))
            except lmdb.MapFullError:
                self._grow_map()

    @contextmanager
    def _counted_transaction(self) -> Iterator[None]:
        with self._idle:
            while self._growing:
                self._idle.wait()
            if self._closed:
                raise Unavailable("SHUTTING_DOWN", "the store is closed")
            self._open_transactions += 1
        try:
            yield
        finally:
            with self._idle:
                self._open_transactions -= 1
                if not self._open_transactions:
                    self._idle.notify_all()

    def _grow_map(self) -> None:
        size_bytes = self.map_size_bytes
        grown_bytes = min(size_bytes * 2, self._max_map_size_bytes)
        if grown_bytes <= size_bytes:
            raise ResourceExhausted(
                "STORE_FULL", f"the store has reached its limit of {self._max_map_size_bytes} bytes"
            )
        with self._idle:
            self._growing = True
            try:
                while self._open_transactions:
                    self._idle.wait()
                self._environment.set_mapsize(grown_bytes)
            finally:
                self._growing = False
                self._idle.notify_all()

    @property
    def map_size_bytes(self) -> int:
        return int(self._environment.info()["map_size"])

    def clear_stale_readers(self) -> int:
        """Frees the reader slots of processes that died; returns how many."""
        return self._environment.reader_check()

    def close(self) -> None:
        """Lets nobody begin a transaction, waits for the open ones, and closes the environment."""
        with self._idle:
            self._closed = True
            while self._open_transactions:
                self._idle.wait()
        self._environment.close()
