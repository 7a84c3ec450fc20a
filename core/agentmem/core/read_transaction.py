"""What can be read from one snapshot of the store. The layout of keys and values is in layout.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from agentmem.core import records
from agentmem.core.compression import Dictionary
from agentmem.core.dictionaries import Dictionaries
from agentmem.core.environment import Transaction
from agentmem.core.errors import DataLoss
from agentmem.core.layout import (
    COUNTERS,
    KEY,
    POSITION,
    VECTORS,
    IdState,
    NamespaceState,
    decode_expiry_key,
    decode_hash_key,
    decode_id_state,
    decode_live_ordinal,
    decode_namespace,
    decode_superseded_key,
    hash_prefix,
    id_key,
    number_prefix,
    superseded_key,
    unseal,
)
from agentmem.core.log import (
    FIRST_EPOCH,
    RECORD_KINDS,
    SHIPPED_KINDS,
    LogEntry,
    Operation,
    Position,
    decode_entry,
)
from agentmem.core.records import FloatVector, Record
from agentmem.core.shipping import VectorsReplacedError
from agentmem.v1 import replication_pb2, storage_pb2, writer_pb2


class ReadTransaction:
    """A consistent snapshot of the store. Valid only inside ``Store.read()``.

    Every method raises DataLoss when stored bytes fail their checksum; nothing damaged is returned.
    """

    def __init__(self, transaction: Transaction, dictionaries: Dictionaries) -> None:
        self._transaction = transaction
        self._dictionaries = dictionaries
        # Asked for with every record.
        self._used_dictionaries: dict[int, Dictionary | None] = {}
        self._read_namespaces: dict[str, NamespaceState | None] = {}
        self._names: dict[int, str] = {}

    def dictionary(self, dictionary_id: int) -> Dictionary | None:
        """None when the store does not have it."""
        if dictionary_id not in self._used_dictionaries:
            found = self._dictionaries.find(self._transaction, dictionary_id)
            self._used_dictionaries[dictionary_id] = found
        return self._used_dictionaries[dictionary_id]

    @property
    def number(self) -> int:
        """Of a write its own, of a snapshot that of the last write that it shows."""
        return self._transaction.number

    # Meta

    @property
    def position(self) -> Position:
        epoch, revision, chain_hash = POSITION.unpack(self._meta(b"position"))
        return Position(self._meta(b"cluster_id"), epoch, revision, chain_hash)

    @property
    def place(self) -> tuple[int, int]:
        """Epoch and revision of the position."""
        epoch, revision, _ = POSITION.unpack(self._meta(b"position"))
        return epoch, revision

    @property
    def revision(self) -> int:
        """The newest revision; 0 in an empty store."""
        return self.place[1]

    @property
    def newest_ordinal(self) -> int:
        """The last ordinal assigned; 0 in an empty store."""
        return self._counters()[0] - 1

    @property
    def log_bytes(self) -> int:
        """The size of all entries in the log."""
        return self._counters()[1]

    def _counters(self) -> tuple[int, int]:
        next_ordinal, log_bytes = COUNTERS.unpack(self._meta(b"counters"))
        return next_ordinal, log_bytes

    def _meta(self, key: bytes) -> bytes:
        value = self._transaction.get(b"meta", key)
        if value is None:
            raise DataLoss("CORRUPT_META", f"the store has no {key.decode()}")
        return unseal(value, key.decode())

    # Epochs

    def epochs(self) -> Iterator[tuple[int, int]]:
        """Each epoch that began with a promotion, ascending, with the revision of its first entry."""
        for key, value in self._transaction.scan(b"epochs"):
            (epoch,) = KEY.unpack(key)
            yield epoch, KEY.unpack(unseal(value, f"the start of epoch {epoch}"))[0]

    def common_revision(self, epoch: int, revision: int) -> int | None:
        """The last revision that a log with this newest entry can have in common with the store's.

        None when no promotion parted them: all of it is in the store's log, or will be.
        """
        starts = dict(self.epochs())
        first_revision = next((first for later, first in starts.items() if later > epoch), None)
        if first_revision is None:
            return None
        common = min(first_revision - 1, revision)
        if epoch > FIRST_EPOCH and epoch not in starts:
            # A later promotion left the whole epoch behind, and the entry is of it.
            common = min(common, revision - 1)
        return common if common < revision else None

    # Raw, for verification

    def keys(self, database: bytes) -> Iterator[bytes]:
        return (key for key, _ in self._transaction.scan(database))

    def has(self, database: bytes, key: bytes) -> bool:
        return self._transaction.get(database, key) is not None

    def count(self, database: bytes) -> int:
        return self._transaction.count(database)

    def stored_record(self, ordinal: int) -> bytes | None:
        """A record as it is stored, its checksum not compared; None when there is no record."""
        return self._transaction.get(b"docs", KEY.pack(ordinal))

    def record_checksum(self, ordinal: int) -> int | None:
        """The checksum that a record is stored with; None when there is no record."""
        value = self.stored_record(ordinal)
        return None if value is None else records.stored_checksum(value)

    # Namespaces and ids

    def namespace(self, namespace: str) -> NamespaceState | None:
        if namespace not in self._read_namespaces:
            value = self._transaction.get(b"namespaces", namespace.encode())
            state = None if value is None else decode_namespace(value, namespace)
            self._read_namespaces[namespace] = state
        return self._read_namespaces[namespace]

    def namespaces(self) -> Iterator[tuple[str, NamespaceState]]:
        for key, value in self._transaction.scan(b"namespaces"):
            name = key.decode()
            yield name, decode_namespace(value, name)

    def namespace_name(self, number: int) -> str:
        """Raises DataLoss when there is no such namespace."""
        name = self._names.get(number)
        if name is None:
            value = self._transaction.get(b"numbers", number_prefix(number))
            if value is None:
                raise DataLoss("CORRUPT_NAMESPACES", f"the store has no namespace number {number}")
            name = self._names[number] = unseal(value, f"the name of namespace number {number}").decode()
        return name

    def namespace_count(self) -> int:
        return self._transaction.count(b"namespaces")

    def id_state(self, namespace: str, memory_id: str) -> IdState | None:
        value = self._transaction.get(b"ids", id_key(namespace, memory_id))
        return None if value is None else decode_id_state(value, memory_id)

    def live_ordinals_of(self, namespace: str, memory_ids: Iterable[str]) -> list[int]:
        """The ordinal of the newest version of each; 0 where it is deleted, or never was."""
        prefix, get = id_key(namespace, ""), self._transaction.get
        values = [(memory_id, get(b"ids", prefix + memory_id.encode())) for memory_id in memory_ids]
        return [0 if value is None else decode_live_ordinal(value, memory_id) for memory_id, value in values]

    def ids(self, namespace: str, after: str = "") -> Iterator[tuple[str, IdState]]:
        """The ids behind ``after``, deleted ones too, in the order of their UTF-8 bytes."""
        prefix = id_key(namespace, "")
        start = prefix + after.encode() + (b"\x00" if after else b"")
        for key, value in self._transaction.scan(b"ids", start, prefix):
            memory_id = key[len(prefix) :].decode()
            yield memory_id, decode_id_state(value, memory_id)

    def live_ids(self, namespace: str, after: str = "") -> Iterator[tuple[str, IdState]]:
        """The undeleted among ``ids``."""
        return ((memory_id, state) for memory_id, state in self.ids(namespace, after) if not state.deleted)

    def live_ordinals(self) -> Iterator[int]:
        """The ordinals of all undeleted newest versions, in no particular order."""
        for key, value in self._transaction.scan(b"ids"):
            state = decode_id_state(value, key.rpartition(b"\x00")[2].decode())
            if not state.deleted:
                yield state.ordinal

    # Versions

    def record(self, ordinal: int) -> Record | None:
        """The record; its memory's embedding_model is that of the embedding that it has now."""
        value = self._transaction.get(b"docs", KEY.pack(ordinal))
        if value is None:
            return None
        record = records.decode_record(value, ordinal, self.dictionary)
        space = self.namespace(record.memory.namespace)
        if space is not None and space.space and not record.is_tombstone:
            record.memory.embedding_model = space.model if self.has_vector(space, ordinal) else ""
        return record

    def next_record(self, from_ordinal: int) -> tuple[int, Record] | None:
        """The first record at an ordinal or behind it, with its ordinal; None when there is none."""
        for key, value in self._transaction.scan(b"docs", KEY.pack(from_ordinal)):
            (ordinal,) = KEY.unpack(key)
            return ordinal, records.decode_record(value, ordinal, self.dictionary)
        return None

    def record_body(self, ordinal: int) -> bytes:
        """The uncompressed Memory of a record that the store itself names, serialized."""
        value = self._transaction.get(b"docs", KEY.pack(ordinal))
        if value is None:
            raise missing_record(ordinal)
        return records.expand_record(value, ordinal, self.dictionary)[records.RECORD_HEADER.size :]

    def compressed_with(self, dictionary_id: int, from_ordinal: int) -> Iterator[int]:
        """The ordinals of records that need a dictionary, ascending."""
        for key, value in self._transaction.scan(b"docs", KEY.pack(from_ordinal)):
            if records.used_dictionary(value) == dictionary_id:
                yield KEY.unpack(key)[0]

    def named_record(self, ordinal: int) -> Record:
        """The record at an ordinal that the store itself names. Raises DataLoss when it is missing."""
        record = self.record(ordinal)
        if record is None:
            raise missing_record(ordinal)
        return record

    def versions(self, ordinal: int) -> Iterator[tuple[int, Record]]:
        """The version at an ordinal and those before it, newest first, as far as they are kept.

        It ends behind a record with a previous ordinal when retention has removed what was there.
        """
        while ordinal:
            record = self.record(ordinal)
            if record is None:
                return
            yield ordinal, record
            ordinal = record.previous_ordinal

    def vector(self, space: NamespaceState, ordinal: int) -> FloatVector | None:
        """The embedding of a version of the namespace, float32 [dimension], None when it has none.

        Of unit length: to the bit what is stored, of half precision only about.
        """
        vector = self.stored_vector(space.vectors, ordinal)
        return vector if vector is not None and len(vector) else None

    def has_vector(self, space: NamespaceState, ordinal: int) -> bool:
        """Whether a version of the namespace has an embedding."""
        return records.has_components(self._transaction.get(space.vectors, KEY.pack(ordinal)))

    def coming_vector(self, space: NamespaceState, ordinal: int) -> FloatVector | None:
        """As ``vector``, in the coming space: None when the version lacks it, empty when it gets none."""
        return self.stored_vector(space.other_vectors, ordinal) if space.is_filling else None

    def vector_of_space(self, name: str, number: int, ordinal: int) -> FloatVector | None:
        """As ``coming_vector``, in the embedding space with this number; None when that is gone, too."""
        state = self.namespace(name)
        database = None if state is None else state.database_of(number)
        return None if database is None else self.stored_vector(database, ordinal)

    def has_other_vector(self, space: NamespaceState, ordinal: int) -> bool:
        """Whether there is anything in the database that the namespace's embeddings are not in."""
        return self._transaction.get(space.other_vectors, KEY.pack(ordinal)) is not None

    def stored_vector(self, database: bytes, ordinal: int) -> FloatVector | None:
        """What one of VECTORS has at an ordinal."""
        value = self._transaction.get(database, KEY.pack(ordinal))
        return None if value is None else records.decode_vector(value, ordinal)

    def duplicates(self, number: int, digest: bytes) -> Iterator[int]:
        """The ordinals of the live memories of a namespace with this owner and content, oldest first."""
        for key, _ in self._transaction.scan(b"hashes", prefix=hash_prefix(number, digest)):
            yield decode_hash_key(key)

    def expired(self, now_us: int, limit: int) -> list[int]:
        """The ordinals of at most ``limit`` live memories whose time is over, the first to expire first."""
        ordinals = []
        for key, _ in islice(self._transaction.scan(b"expiry"), limit):
            expire_us, ordinal = decode_expiry_key(key)
            if expire_us > now_us:
                break
            ordinals.append(ordinal)
        return ordinals

    def has_ended_since(self, number: int, time_us: int) -> bool:
        """Whether versions of a namespace ended later than a time, deletions among them."""
        start = superseded_key(number, time_us + 1, 0)
        return any(True for _ in self._transaction.scan(b"superseded", start, number_prefix(number)))

    def superseded(self, number: int, until_us: int, limit: int) -> list[int]:
        """The ordinals of at most ``limit`` versions that ended up to a time, the first to end first."""
        ordinals = []
        for key, _ in islice(self._transaction.scan(b"superseded", prefix=number_prefix(number)), limit):
            ended_us, ordinal = decode_superseded_key(key)
            if ended_us > until_us:
                break
            ordinals.append(ordinal)
        return ordinals

    # Requests and receipts

    def request_keys(self) -> Iterator[tuple[int, bytes]]:
        """The revisions that carried out requests, and the keys of these, oldest first."""
        for key, value in self._transaction.scan(b"request_log"):
            yield KEY.unpack(key)[0], unseal(value, "the list of requests")

    def request_outcome(self, key: bytes) -> storage_pb2.RequestOutcome | None:
        value = self._transaction.get(b"requests", key)
        if value is None:
            return None
        return storage_pb2.RequestOutcome.FromString(unseal(value, "the answer to a request"))

    def receipt(self, revision: int) -> writer_pb2.PurgeReceipt | None:
        value = self._transaction.get(b"receipts", KEY.pack(revision))
        if value is None:
            return None
        return writer_pb2.PurgeReceipt.FromString(unseal(value, f"the receipt of revision {revision}"))

    # Log

    @property
    def first_log_revision(self) -> int:
        """The oldest revision in the log; 0 when it is empty."""
        key = self._transaction.first_key(b"log")
        return int(KEY.unpack(key)[0]) if key else 0

    @property
    def last_time_us(self) -> int:
        """The time of the newest entry, microseconds since 1970; 0 in an empty log."""
        revision = self.revision
        return self.log_entry(revision).time_us if revision else 0

    def log_value(self, revision: int) -> bytes | None:
        return self._transaction.get(b"log", KEY.pack(revision))

    def log_values(self, from_revision: int = 0) -> Iterator[tuple[int, bytes]]:
        """Revisions and encoded entries, in order."""
        for key, value in self._transaction.scan(b"log", KEY.pack(from_revision)):
            yield KEY.unpack(key)[0], value

    def log_entry(self, revision: int) -> LogEntry:
        """Raises DataLoss when the entry is missing."""
        value = self.log_value(revision)
        if value is None:
            raise DataLoss("CORRUPT_LOG", f"the log has no entry at revision {revision}")
        return decode_entry(value, revision)[0]

    def shipped_entries(self, after_revision: int, max_bytes: int) -> list[replication_pb2.ShippedEntry]:
        """Entries behind ``after_revision`` with their records: at most ``max_bytes``, at least one.

        Raises VectorsReplacedError when the first of them cannot be shipped any more.
        """
        shipped: list[replication_pb2.ShippedEntry] = []
        size_bytes = entry_bytes = 0
        for revision, value in self.log_values(after_revision + 1):
            if shipped and size_bytes + entry_bytes > max_bytes:
                break  # the next is about as large as the last, and would be read in vain
            try:
                entry = self._ship(revision, value)
            except VectorsReplacedError:
                if shipped:
                    break
                raise
            entry_bytes = entry.ByteSize()
            size_bytes += entry_bytes
            if shipped and size_bytes > max_bytes:
                break
            shipped.append(entry)
        return shipped

    def _ship(self, revision: int, value: bytes) -> replication_pb2.ShippedEntry:
        shipped = replication_pb2.ShippedEntry(log_value=value)
        for operation in decode_entry(value, revision)[0].operations:
            if operation.kind not in SHIPPED_KINDS:
                continue
            record = self._transaction.get(b"docs", KEY.pack(operation.ordinal))
            if record is None:
                shipped.records.add(ordinal=operation.ordinal, removed=True)
                continue
            # Damage is named where it is, and not by each replica.
            record = records.expand_record(record, operation.ordinal, self.dictionary)
            sent = shipped.records.add(ordinal=operation.ordinal)
            if operation.kind in RECORD_KINDS:
                sent.record = record
                sent.vector = self._named_vector(operation, operation.space, operation.vector_crc32c)
            sent.coming_vector = self._named_vector(
                operation, operation.coming_space, operation.coming_vector_crc32c
            )
        return shipped

    def _named_vector(self, operation: Operation, number: int, checksum: int) -> bytes:
        """A vector that an operation names, as stored.

        Args:
            number: of its embedding space.
            checksum: 0 when it has none.

        Raises:
            DataLoss: it is damaged, or missing.
            VectorsReplacedError: it is gone with its embedding space.
        """
        if not checksum:
            return b""
        state = self.namespace(self.namespace_name(operation.namespace_number))
        databases = VECTORS if state is None else (state.vectors, state.other_vectors)
        for database in databases:
            # Those that are being cleared are good as long as they are there.
            value = self._transaction.get(database, KEY.pack(operation.ordinal))
            if value is not None and records.stored_checksum(value) == checksum:
                records.check_vector(value, operation.ordinal)
                return value
        if state is not None and state.database_of(number) is None:
            raise VectorsReplacedError(
                f"the embeddings of namespace number {operation.namespace_number} were replaced"
            )
        raise DataLoss("CORRUPT_VECTOR", f"the vector at ordinal {operation.ordinal} fails its checksum")


def missing_record(ordinal: int) -> DataLoss:
    """The error when there is no record where the store itself says that one is."""
    return DataLoss("MISSING_RECORD", f"the store has no record at ordinal {ordinal}")
