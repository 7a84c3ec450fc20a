"""Reads all of a store and compares whatever can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
from ledger import Stored
from lmdb.verify import VerifyError, verify

from agentmem.core.errors import AgentMemError
from agentmem.core.log import EMPTY_CHAIN_HASH, LOG_HEADER_BYTES, decode_entry, next_chain_hash
from agentmem.core.store import ReadTransaction, Store, StoreFormatError

MAP_SIZE_BYTES = 1024**3


class Damaged(Exception):
    """The store is not sound; says where."""


def audit(folder: Path, namespaces: Sequence[str]) -> dict[str, dict[str, Stored]]:
    """The undeleted memories of each of the namespaces, after everything in the store was read.

    Raises:
        Damaged: pages, checksums, log or the names of memories do not fit together.
    """
    _check_pages(folder)
    _read_databases(folder)
    try:
        store = Store(folder, map_size_bytes=MAP_SIZE_BYTES, max_map_size_bytes=MAP_SIZE_BYTES)
    except StoreFormatError as error:
        raise Damaged(str(error)) from error
    try:
        with store.read() as transaction:
            _check_log(transaction)
            return {name: _live_memories(transaction, name) for name in namespaces}
    except (AgentMemError, lmdb.Error) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    finally:
        store.close()


def _check_pages(folder: Path) -> None:
    """Every page is reached once or free, keys are in order: py-lmdb's own check, which runs none of LMDB."""
    try:
        problems = verify(str(folder))  # type: ignore[no-untyped-call]
    except VerifyError as error:
        raise Damaged(str(error)) from error
    if problems:
        raise Damaged(f"{len(problems)} structural problems, first: {problems[0]}")


def _read_databases(folder: Path) -> None:
    """Every value of every database, through LMDB."""
    try:
        with lmdb.open(
            str(folder), map_size=MAP_SIZE_BYTES, max_dbs=64, readonly=True, lock=False
        ) as environment:
            with environment.begin() as transaction:
                names = [bytes(key) for key, _ in transaction.cursor()]
            for name in names:
                database = environment.open_db(name, create=False)
                with environment.begin(db=database) as transaction:
                    entries = sum(1 for _ in transaction.cursor())
                    if entries != transaction.stat(database)["entries"]:
                        raise Damaged(f"{name.decode()} has {entries} entries, and counts others")
    except lmdb.Error as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _check_log(transaction: ReadTransaction) -> None:
    """Each entry chains to the one before, up to the position, and each record it names is sound."""
    chain_hash = EMPTY_CHAIN_HASH
    for revision in range(1, transaction.revision + 1):
        value = transaction.log_value(revision)
        if value is None:
            raise Damaged(f"the log has no entry {revision}")
        entry, stored_hash = decode_entry(value, revision)
        chain_hash = next_chain_hash(chain_hash, value[LOG_HEADER_BYTES:])
        if entry.revision != revision or stored_hash != chain_hash:
            raise Damaged(f"entry {revision} does not chain to the one before it")
        for operation in entry.operations:
            transaction.named_record(operation.ordinal)
            if operation.vector_crc32c and transaction.vector(operation.ordinal) is None:
                raise Damaged(f"the vector at ordinal {operation.ordinal} is missing")
    if transaction.position.chain_hash != chain_hash:
        raise Damaged("the position does not have the chain hash of the newest entry")


def _live_memories(transaction: ReadTransaction, namespace: str) -> dict[str, Stored]:
    live = {}
    for memory_id, state in transaction.live_ids(namespace):
        memory = transaction.named_record(state.ordinal).memory
        if (memory.namespace, memory.id, memory.version) != (namespace, memory_id, state.version):
            raise Damaged(f"{memory_id} names the record of {memory.id} at version {memory.version}")
        live[memory_id] = Stored(state.version, memory.content)
    return live
