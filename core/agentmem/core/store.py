"""The store: one LMDB environment, the same in the writer and in every replica.

The layout of keys and values is in layout.py. Log and data change in one LMDB transaction, which LMDB syncs
to disk before ``commit`` returns.
"""

from __future__ import annotations

import shutil
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agentmem.core.data_directory import STORE_FILE, sync
from agentmem.core.dictionaries import Dictionaries
from agentmem.core.entry_changes import AnyChange, Change, ClearedVectors, ComingVector, Removal
from agentmem.core.environment import (
    Environment,
    FileUse,
    Reading,
    StoreCorruptError,
    StoreFormatError,
    Transaction,
)
from agentmem.core.layout import (
    COUNTERS,
    DATABASES,
    FORMAT_VERSION,
    POSITION,
    UPGRADABLE_FORMAT,
    seal,
    upgraded_namespace,
)
from agentmem.core.log import EMPTY_CHAIN_HASH, Position
from agentmem.core.measurements import Labels
from agentmem.core.memory_cache import DEFAULT_CACHED_BYTES, MemoryCache
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.recent_entries import RecentEntries
from agentmem.core.version_writer import WrittenState
from agentmem.core.write_transaction import WriteTransaction

__all__ = [
    "AnyChange",
    "Change",
    "ClearedVectors",
    "ComingVector",
    "ReadTransaction",
    "Removal",
    "Store",
    "StoreCorruptError",
    "StoreFormatError",
    "WriteTransaction",
]

LOCK_FILE = "lock.mdb"

T = TypeVar("T")


class Store:
    """One open store. One process may have it open, once.

    Reads may run in any thread and do not wait for writes; of writes one runs at a time.

    Attributes:
        dictionaries: what new records are compressed with.
        memories: that were read not long ago.
        recent: the entries that were appended last, as they are shipped.
    """

    def __init__(
        self,
        path: Path,
        *,
        map_size_bytes: int,
        max_map_size_bytes: int,
        memory_cache_bytes: int = DEFAULT_CACHED_BYTES,
        read_only: bool = False,
    ) -> None:
        """Opens the store in the folder, or creates one unless ``read_only``.

        Raises:
            StoreFormatError: the folder holds a store of another layout, or files that are not a store.
        """
        if not read_only and not (path / STORE_FILE).exists():
            _create(path, map_size_bytes)
        self.memories = MemoryCache(memory_cache_bytes)
        self._environment = Environment(
            path,
            max_databases=len(DATABASES),
            map_size_bytes=map_size_bytes,
            max_map_size_bytes=max_map_size_bytes,
            read_only=read_only,
        )
        try:
            # Before anything is created in files that are of another layout.
            is_upgradable = _check_format(self._environment, path, read_only=read_only)
            self._environment.open_databases(DATABASES)
            if is_upgradable:
                self._environment.commit(_upgrade)
            self.dictionaries = Dictionaries()
            with self._environment.read(_as_it_is) as transaction:
                self.dictionaries.load(transaction)
        except BaseException:
            self._environment.close()
            raise
        self.recent = RecentEntries()
        self._written: WrittenState | None = None

    def found_cluster(self) -> None:
        """Makes an empty store the start of a new cluster, in epoch 1; leaves another as it is."""

        def found(transaction: WriteTransaction) -> None:
            if not transaction.position.cluster_id:
                transaction.adopt_cluster(uuid.uuid4().bytes)

        self.commit(found)

    def position(self) -> Position:
        """The newest position."""
        with self.read() as transaction:
            return transaction.position

    def read(self) -> Reading[ReadTransaction]:
        """A snapshot for the length of the ``with`` block, which must not wait for anything."""
        return self._environment.read(self._read_transaction)

    def _read_transaction(self, transaction: Transaction) -> ReadTransaction:
        return ReadTransaction(transaction, self.dictionaries)

    def commit(self, work: Callable[[WriteTransaction], T]) -> T:
        """Runs ``work`` in a write transaction and returns its answer once the commit is on disk.

        When the map is full, the map is doubled and ``work`` runs once more from the start. An error that
        ``work`` raises undoes its changes and is raised again.

        Raises:
            ResourceExhausted: ``STORE_FULL``, the map may not grow any more or the disk is full. Nothing was
                changed, and a later commit may succeed.
            lmdb.Error: the commit failed; nothing can be said of the disk any more.
        """

        def run(transaction: Transaction) -> tuple[T, WriteTransaction, WrittenState]:
            # Taken away: it changes from here on, and nobody is to have it when this is undone.
            before, self._written = self._written, None
            if before is not None and before.number + 1 != transaction.number:
                before = None  # another thread has written since
            write = WriteTransaction(transaction, self.dictionaries, before)
            answer = work(write)
            write.finish()
            return answer, write, write.left()

        answer, write, left = self._environment.commit(run)
        self._written = left
        if write.removed_ordinals:
            self.memories.drop(write.removed_ordinals, left.number)
        if write.shipped is None:
            self.recent.clear()
        elif write.shipped:
            self.recent.extend(write.revision, write.shipped)
        return answer

    def lookups(self) -> dict[Labels, float]:
        """Of its caches, as values of ``agentmem.cache.lookups``."""
        return self.dictionaries.lookups.values("dictionaries") | self.memories.lookups.values("memories")

    @property
    def map_size_bytes(self) -> int:
        return self._environment.map_size_bytes

    def file_use(self) -> FileUse:
        """What the store takes on disk."""
        return self._environment.file_use()

    def copy(self, target: Path) -> None:
        """Writes a compact copy of the newest snapshot into an empty folder.

        Holds a read transaction all the while, so it belongs into a process of its own.
        """
        self._environment.copy(target)

    def clear_stale_readers(self) -> int:
        """Frees the reader slots of processes that died; returns how many."""
        return self._environment.clear_stale_readers()

    def close(self) -> None:
        """Lets nobody begin a transaction, waits for the open ones, and closes the environment."""
        self._environment.close()


def _as_it_is(transaction: Transaction) -> Transaction:
    return transaction


def _create(path: Path, map_size_bytes: int) -> None:
    """Makes an empty store, which is there whole or not at all.

    LMDB does not sync the first pages of a new file; so it is made beside its place and moved when it is on
    the disk.

    Raises:
        StoreFormatError: the folder holds other files.
    """
    partial = path.with_name(f"{path.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    environment = Environment(
        partial,
        max_databases=len(DATABASES),
        map_size_bytes=map_size_bytes,
        max_map_size_bytes=map_size_bytes,
    )
    try:
        environment.open_databases(DATABASES)
        environment.commit(_initialise)
    finally:
        environment.close()
    (partial / LOCK_FILE).unlink()
    sync(partial / STORE_FILE)
    sync(partial)
    (path / LOCK_FILE).unlink(missing_ok=True)
    try:
        # Takes the place of an empty folder.
        partial.rename(path)
    except OSError as error:
        raise StoreFormatError(f"{path} holds files that are not a store") from error
    sync(path.parent)


def _check_format(environment: Environment, path: Path, *, read_only: bool) -> bool:
    """Whether the store has to be upgraded first.

    Raises StoreFormatError when there is not a store that this release can open, or make one of its own.
    """
    if b"meta" not in environment.database_names():
        raise StoreFormatError(f"{path} holds an LMDB environment that is not a store")
    environment.open_databases((b"meta",))
    with environment.read(_as_it_is) as transaction:
        found = int.from_bytes(transaction.get(b"meta", b"format") or b"", "little")
    if found == UPGRADABLE_FORMAT and not read_only:
        return True
    if found != FORMAT_VERSION:
        age = "a later" if found > FORMAT_VERSION else "an earlier"
        raise StoreFormatError(
            f"{path} has store format {found}, of {age} release; this release reads and writes format "
            f"{FORMAT_VERSION}"
            + (", and upgrades such a store when a server opens it" if found == UPGRADABLE_FORMAT else "")
        )
    return False


def _upgrade(transaction: Transaction) -> None:
    """Makes a store of UPGRADABLE_FORMAT one of FORMAT_VERSION. Raises DataLoss when it is damaged."""
    for key, value in list(transaction.scan(b"namespaces")):
        transaction.put(b"namespaces", key, upgraded_namespace(value, key.decode()))
    transaction.put(b"meta", b"format", struct.pack("<I", FORMAT_VERSION))


def _initialise(transaction: Transaction) -> None:
    transaction.put(b"meta", b"format", struct.pack("<I", FORMAT_VERSION))
    transaction.put(b"meta", b"cluster_id", seal(b""))
    transaction.put(b"meta", b"position", seal(POSITION.pack(0, 0, EMPTY_CHAIN_HASH)))
    transaction.put(b"meta", b"counters", seal(COUNTERS.pack(1, 0)))
