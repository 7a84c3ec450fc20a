"""The LMDB environment under the store: transactions over bytes, a map that grows, faults by their name.

This is the only module that imports lmdb (engine 0.9, default durability: a commit is synced before it
returns). What is in the databases is not its business.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import lmdb
import lmdb.verify

from agentmem.core.errors import DataLoss, ResourceExhausted, Unavailable

MAX_READERS = 512
# A failed write is put down to a full disk when less than this is free: more than a group of writes takes.
FULL_BELOW_BYTES = 64 * 1024**2
# What LMDB raises when it finds its own pages damaged.
_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)

T = TypeVar("T")


class StoreFormatError(Exception):
    """The files are not a store that this release can open."""


class StoreCorruptError(Exception):
    """The store contradicts itself. No request is at fault: the write is undone, and the process ends."""


def _raise_named(error: BaseException) -> None:
    """Raises what LMDB says of a read as an AgentMemError; returns when it is something else."""
    if isinstance(error, _DAMAGE):
        raise DataLoss("CORRUPT_PAGES", f"the pages of the store are damaged: {error}") from error
    if isinstance(error, lmdb.PanicError):
        raise Unavailable("SHUTTING_DOWN", "a commit failed, and the store is closed") from error


@dataclass(frozen=True, slots=True)
class FileUse:
    """Bytes of the store's file: what holds data, how long it is, how long it may become."""

    used_bytes: int
    file_bytes: int
    max_bytes: int


class Transaction:
    """A consistent snapshot; for a write, with its own changes in it."""

    def __init__(self, transaction: lmdb.Transaction[bytes], databases: dict[bytes, lmdb._Database]) -> None:
        self._transaction = transaction
        self._databases = databases

    def get(self, database: bytes, key: bytes) -> bytes | None:
        return self._transaction.get(key, db=self._databases[database])

    @property
    def number(self) -> int:
        """Of a write its own, of a snapshot that of the last write that it shows."""
        return self._transaction.id()

    def count(self, database: bytes) -> int:
        """How many keys the database has."""
        return int(self._transaction.stat(self._databases[database])["entries"])

    def first_key(self, database: bytes) -> bytes | None:
        """The least key of the database."""
        with self._transaction.cursor(db=self._databases[database]) as cursor:
            return cursor.key() if cursor.first() else None

    def scan(self, database: bytes, start: bytes = b"", prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from ``start`` on in the order of keys, as long as they begin with ``prefix``."""
        with self._transaction.cursor(db=self._databases[database]) as cursor:
            if not cursor.set_range(max(start, prefix)):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def put(self, database: bytes, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value, db=self._databases[database])

    def append(self, database: bytes, key: bytes, value: bytes) -> None:
        """Puts a key behind all others. Raises StoreCorruptError when it is not."""
        if not self._transaction.put(key, value, db=self._databases[database], append=True):
            raise StoreCorruptError(f"{database.decode()} has the key {key.hex()} or a later one already")

    def delete(self, database: bytes, key: bytes) -> bool:
        """Says whether the key was there."""
        return self._transaction.delete(key, db=self._databases[database])


class Environment:
    """One open LMDB environment. One process may have it open, once.

    Reads may run in any thread and do not wait for writes; of writes one runs at a time.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_databases: int,
        map_size_bytes: int,
        max_map_size_bytes: int,
        read_only: bool = False,
    ) -> None:
        """Opens or creates the environment in the folder. Its databases are opened one by one.

        Raises:
            StoreFormatError: the folder holds files that LMDB does not take.
        """
        self._max_map_size_bytes = max_map_size_bytes
        # Guards the map's size: LMDB may change it only while no transaction is open in the process.
        # The lock of the condition, which costs a fifth of it: each read takes it twice.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._open_transactions = 0
        self._growing = False
        self._closed = False
        self._path = path
        self._read_only = read_only
        self._databases: dict[bytes, lmdb._Database] = {}
        try:
            self._environment = lmdb.open(
                str(path),
                map_size=map_size_bytes,
                max_dbs=max_databases,
                max_readers=MAX_READERS,
                readonly=read_only,
                create=not read_only,
            )
        except lmdb.Error as error:
            raise StoreFormatError(f"{path} cannot be opened as a store: {error}") from error

    def database_names(self) -> list[bytes]:
        """The databases that are there."""
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            return [bytes(key) for key in cursor.iternext(values=False)]

    def open_databases(self, names: Sequence[bytes]) -> None:
        """Makes databases known to transactions; creates those that are missing, unless ``read_only``.

        Raises StoreFormatError when one cannot be opened.
        """
        try:
            for name in names:
                self._databases[name] = self._environment.open_db(name, create=not self._read_only)
        except lmdb.Error as error:
            raise StoreFormatError(
                f"{self._path} cannot be opened as a store: {name.decode()}: {error}"
            ) from error

    def read(self, view: Callable[[Transaction], T]) -> Reading[T]:
        """A snapshot for the length of the ``with`` block, which must not wait for anything.

        Args:
            view: what the block gets of it.
        """
        return Reading(self, view)

    def commit(self, work: Callable[[Transaction], T]) -> T:
        """Runs ``work`` in a write transaction and returns its answer once the commit is on disk.

        When the map is full, the map is doubled and ``work`` runs once more from the start. An error that
        ``work`` raises undoes its changes and is raised again.

        Raises:
            ResourceExhausted: ``STORE_FULL``, the map may not grow any more or the disk is full. Nothing was
                changed, and a later commit may succeed.
            lmdb.Error: the commit failed; nothing can be said of the disk any more.
        """
        while True:
            try:
                with self._counted_transaction(), self._environment.begin(write=True) as transaction:
                    return work(Transaction(transaction, self._databases))
            except lmdb.MapFullError:
                self._grow_map()
            except lmdb.Error as error:
                # A commit writes pages that nothing refers to yet, then the meta page that refers to them.
                # When the meta page failed, it may be on the disk, and LMDB lets nobody in again.
                if not self._is_disk_full(error) or self._is_unusable():
                    raise
                raise ResourceExhausted("STORE_FULL", f"the disk of {self._path} is full") from error

    def _is_disk_full(self, error: lmdb.Error) -> bool:
        """Whether a commit failed for want of space.

        The write that fills the disk is a short one, of which LMDB says EIO; so the disk is asked.
        """
        if isinstance(error, lmdb.DiskError):
            return True
        state = os.statvfs(self._path)
        return error.code == errno.EIO and state.f_bavail * state.f_frsize < FULL_BELOW_BYTES

    def _is_unusable(self) -> bool:
        """Whether LMDB has given the environment up, after which every transaction fails."""
        try:
            with self._counted_transaction(), self._environment.begin():
                return False
        except lmdb.PanicError:
            return True

    @contextmanager
    def _counted_transaction(self) -> Iterator[None]:
        self._count_transaction()
        try:
            yield
        finally:
            self._discount_transaction()

    def _count_transaction(self) -> None:
        with self._lock:
            while self._growing:
                self._idle.wait()
            if self._closed:
                raise Unavailable("SHUTTING_DOWN", "the store is closed")
            self._open_transactions += 1

    def _discount_transaction(self) -> None:
        with self._lock:
            self._open_transactions -= 1
            if not self._open_transactions and (self._growing or self._closed):
                self._idle.notify_all()

    def _begin_read(self) -> lmdb.Transaction[bytes]:
        """Pairs with ``_end_read``."""
        self._count_transaction()
        try:
            return self._environment.begin()
        except BaseException as error:
            self._discount_transaction()
            _raise_named(error)
            raise

    def _end_read(self, transaction: lmdb.Transaction[bytes]) -> None:
        try:
            transaction.abort()
        finally:
            self._discount_transaction()

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

    def file_use(self) -> FileUse:
        """What the file takes on disk now. ``used_bytes`` includes pages that are free again."""
        info = self._environment.info()
        page_bytes = int(self._environment.stat()["psize"])
        return FileUse(
            used_bytes=(int(info["last_pgno"]) + 1) * page_bytes,
            file_bytes=(self._path / "data.mdb").stat().st_size,
            max_bytes=self._max_map_size_bytes,
        )

    def copy(self, target: Path) -> None:
        """Writes a compact copy of the newest snapshot into an empty folder.

        Holds a read transaction all the while, so it belongs into a process of its own.
        """
        try:
            self._environment.copy(str(target), compact=True)
        except lmdb.Error as error:
            _raise_named(error)
            raise

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


class Reading(Generic[T]):
    """A read transaction as a context, which costs less than a generator for each of its layers."""

    __slots__ = ("_environment", "_transaction", "_view")

    def __init__(self, environment: Environment, view: Callable[[Transaction], T]) -> None:
        self._environment = environment
        self._view = view

    def __enter__(self) -> T:
        self._transaction = self._environment._begin_read()
        return self._view(Transaction(self._transaction, self._environment._databases))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._environment._end_read(self._transaction)
        if error is not None:
            _raise_named(error)


def page_problems(path: Path) -> list[str]:
    """What is wrong with the pages of an environment that nobody writes to; none when they are sound.

    py-lmdb's own check: every page is reached once or free, and keys are in order. It runs none of LMDB,
    which damaged pages might crash.
    """
    try:
        return list(lmdb.verify.verify(str(path)))  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        return [str(error)]
