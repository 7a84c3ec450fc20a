"""Verification: reads everything that a store has, and compares what it says in different places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agentmem.core.errors import DataLoss
from agentmem.core.layout import (
    KEY,
    VECTORS,
    IdState,
    NamespaceState,
    content_digest,
    decode_number_key,
    expiry_key,
    hash_key,
    superseded_key,
)
from agentmem.core.log import LOG_HEADER_BYTES, RECORD_KINDS, Operation, decode_entry, next_chain_hash
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.records import Record
from agentmem.core.store import Store
from agentmem.core.times import timestamp_us

MAX_PROBLEMS = 100
PROGRESS_STEP = 10_000


@dataclass(slots=True)
class Report:
    """What a verification found. A store is good when there is no problem.

    Attributes:
        counts: of what was read, by its name.
        problems: the first MAX_PROBLEMS of them; ``problem_count`` counts all.
    """

    cluster_id: str = ""
    epoch: int = 0
    revision: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def add(self, problem: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def verify(store: Store, on_progress: Callable[[str, int], None] = lambda name, count: None) -> Report:
    """Reads the whole store in one snapshot.

    Args:
        on_progress: called now and then with what is being read and how much of it was.
    """
    report = Report()
    try:
        with store.read() as transaction:
            _Verification(transaction, report, on_progress).run()
    except DataLoss as error:
        report.add(error.message)  # pages that cannot be read; there is no going on behind them
    return report


class _Verification:
    def __init__(
        self, transaction: ReadTransaction, report: Report, on_progress: Callable[[str, int], None]
    ) -> None:
        self._transaction = transaction
        self._report = report
        self._on_progress = on_progress

    def run(self) -> None:
        with self._noted():
            position = self._transaction.position
            self._report.cluster_id = position.cluster_id.hex()
            self._report.epoch, self._report.revision = position.epoch, position.revision
        for step in (
            self._check_log,
            self._check_records,
            self._check_vectors,
            self._check_memories,
            self._check_requests,
            self._check_dictionaries,
        ):
            with self._noted():
                step()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Takes damage down, and goes on with what comes next."""
        try:
            yield
        except DataLoss as error:
            self._report.add(error.message)

    def _count(self, name: str) -> None:
        self._report.counts[name] += 1
        if not self._report.counts[name] % PROGRESS_STEP:
            self._on_progress(name, self._report.counts[name])

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self._report.add(problem)

    # The log

    def _check_log(self) -> None:
        position = self._transaction.position
        expected, chain_hash, time_us = 0, b"", 0
        absent: set[int] = set()
        epochs = dict(self._transaction.epochs())
        for revision, value in self._transaction.log_values():
            self._count("log entries")
            entry, own_hash = decode_entry(value, revision)
            self._expect(not expected or revision == expected, f"the log has a gap before {revision}")
            self._expect(
                not chain_hash or own_hash == next_chain_hash(chain_hash, value[LOG_HEADER_BYTES:]),
                f"log entry {revision} does not chain to the one before it",
            )
            self._expect(entry.revision == revision, f"log entry {revision} says that it is {entry.revision}")
            self._expect(
                not entry.HasField("promotion") or epochs.get(entry.epoch) == revision,
                f"epoch {entry.epoch} is not known to begin at revision {revision}",
            )
            self._expect(entry.time_us >= time_us, f"log entry {revision} is before the one before it")
            expected, chain_hash, time_us = revision + 1, own_hash, entry.time_us
            for operation in entry.operations:
                self._check_operation(operation, revision, absent)
        for ordinal in sorted(absent):
            self._report.add(f"the record at ordinal {ordinal} is missing, and no entry removed it")
        if position.revision:
            self._expect(
                expected == position.revision + 1 and chain_hash == position.chain_hash,
                f"the log ends at revision {expected - 1}, the store is at {position.revision}",
            )

    def _check_operation(self, operation: Operation, revision: int, absent: set[int]) -> None:
        absent.difference_update(operation.removed_ordinals)
        if operation.kind not in RECORD_KINDS:
            return
        checksum = self._transaction.record_checksum(operation.ordinal)
        if checksum is None:
            absent.add(operation.ordinal)
        elif checksum != operation.record_crc32c:
            self._report.add(f"the record at ordinal {operation.ordinal} is not that of entry {revision}")

    # Versions

    def _check_records(self) -> None:
        newest = self._transaction.newest_ordinal
        for key in self._transaction.keys(b"docs"):
            ordinal = KEY.unpack(key)[0]
            self._count("records")
            self._expect(ordinal <= newest, f"ordinal {ordinal} was not assigned")
            with self._noted():
                self._transaction.named_record(ordinal)

    def _check_vectors(self) -> None:
        for database in VECTORS:
            for key in self._transaction.keys(database):
                ordinal = KEY.unpack(key)[0]
                self._count("vectors")
                with self._noted():
                    self._transaction.stored_vector(database, ordinal)
                with self._noted():
                    self._expect(
                        self._transaction.record_checksum(ordinal) is not None,
                        f"the vector at ordinal {ordinal} has no record",
                    )

    def _check_memories(self) -> None:
        """Ids, and what is kept by owner, expiry and end, against the records."""
        for name, space in self._transaction.namespaces():
            self._count("namespaces")
            with self._noted():
                found = self._transaction.namespace_name(space.number)
                self._expect(found == name, f"namespace {name!r} has the number of {found!r}")
            counts: Counter[str] = Counter()
            for memory_id, state in self._transaction.ids(name):
                self._count("ids")
                with self._noted():
                    self._check_memory(name, space, memory_id, state, counts)
            for what, stored in (
                ("versions", space.versions),
                ("live memories", space.live_memories),
                ("live vectors", space.live_vectors),
                ("versions with a coming vector", space.coming_versions),
                ("live coming vectors", space.coming_vectors),
            ):
                self._expect(
                    counts[what] == stored,
                    f"namespace {name!r} counts {stored} {what} and has {counts[what]}",
                )
            self._report.counts.update(counts)
        # Everything was reached from an id; anything more belongs to nothing.
        for database, what in (
            (b"docs", "versions"),
            (b"hashes", "live memories"),
            (b"expiry", "expiring memories"),
            (b"superseded", "ended versions"),
        ):
            stored = self._transaction.count(database)
            self._expect(
                stored == self._report.counts[what],
                f"{database.decode()} has {stored} keys for {self._report.counts[what]} {what}",
            )

    def _check_memory(
        self, name: str, space: NamespaceState, memory_id: str, state: IdState, counts: Counter[str]
    ) -> None:
        version, ended_us = state.version + 1, 0
        for ordinal, record in self._transaction.versions(state.ordinal):
            memory = record.memory
            self._expect(
                (memory.namespace, memory.id) == (name, memory_id) and memory.version < version,
                f"the record at ordinal {ordinal} is not version {version - 1} of {memory_id!r}",
            )
            counts["versions"] += 1
            if ordinal == state.ordinal:
                self._expect(
                    (memory.version, record.is_tombstone) == (state.version, state.deleted),
                    f"the newest version of {memory_id!r} is not the one at ordinal {ordinal}",
                )
                if not record.is_tombstone:
                    self._check_live(space, ordinal, record, counts)
            is_live = ordinal == state.ordinal and not record.is_tombstone
            self._check_coming(space, ordinal, counts, is_live=is_live)
            if record.is_tombstone:
                ended_us = timestamp_us(memory.update_time)
            if record.is_tombstone or ordinal != state.ordinal:
                counts["ended versions"] += 1
                self._expect_key(b"superseded", superseded_key(space.number, ended_us, ordinal), ordinal)
            version, ended_us = memory.version, timestamp_us(memory.update_time)
        if version == state.version + 1:
            self._report.add(f"{memory_id!r} names ordinal {state.ordinal}, which has no record")

    def _check_coming(
        self, space: NamespaceState, ordinal: int, counts: Counter[str], *, is_live: bool
    ) -> None:
        coming = self._transaction.coming_vector(space, ordinal)
        if coming is not None:
            counts["versions with a coming vector"] += 1
            counts["live coming vectors"] += is_live and bool(len(coming))
            self._expect(
                len(coming) in (0, space.coming_dimension),
                f"the coming vector at ordinal {ordinal} has {len(coming)} dimensions, "
                f"not {space.coming_dimension}",
            )
        elif not space.is_clearing and self._transaction.has_other_vector(space, ordinal):
            self._report.add(f"ordinal {ordinal} has a vector that is of no embedding space")

    def _check_live(self, space: NamespaceState, ordinal: int, record: Record, counts: Counter[str]) -> None:
        counts["live memories"] += 1
        self._expect_key(b"hashes", hash_key(space.number, content_digest(record.memory), ordinal), ordinal)
        if record.memory.HasField("expire_time"):
            counts["expiring memories"] += 1
            key = expiry_key(timestamp_us(record.memory.expire_time), ordinal)
            self._expect_key(b"expiry", key, ordinal)
        vector = self._transaction.vector(space, ordinal)
        if vector is not None:
            counts["live vectors"] += 1
            self._expect(
                len(vector) == space.dimension,
                f"the vector at ordinal {ordinal} has {len(vector)} dimensions, not {space.dimension}",
            )

    def _expect_key(self, database: bytes, key: bytes, ordinal: int) -> None:
        self._expect(
            self._transaction.has(database, key),
            f"{database.decode()} lacks the key of the record at ordinal {ordinal}",
        )

    # The rest

    def _check_requests(self) -> None:
        for revision, key in self._transaction.request_keys():
            self._count("requests")
            outcome = self._transaction.request_outcome(key)
            # A request_id that came again after its time stands under its newer revision.
            self._expect(
                outcome is not None and outcome.revision >= revision,
                f"the request of revision {revision} has no outcome",
            )
        for key in self._transaction.keys(b"receipts"):
            self._count("receipts")
            self._transaction.receipt(KEY.unpack(key)[0])

    def _check_dictionaries(self) -> None:
        for key in self._transaction.keys(b"dictionaries"):
            self._count("dictionaries")
            dictionary_id = decode_number_key(key)
            self._expect(
                self._transaction.dictionary(dictionary_id) is not None,
                f"dictionary {dictionary_id} is unusable",
            )
