"""Reads all of a store and compares whatever can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
from ledger import Stored

from agentmem.core.environment import page_problems
from agentmem.core.errors import AgentMemError
from agentmem.core.store import ReadTransaction, Store, StoreFormatError
from agentmem.core.verification import verify

MAP_SIZE_BYTES = 1024**3


class Damaged(Exception):
    """The store is not sound; says where."""


def audit(folder: Path, namespaces: Sequence[str]) -> dict[str, dict[str, Stored]]:
    """The undeleted memories of each of the namespaces, after everything in the store was read.

    Raises:
        Damaged: pages, checksums, log or the names of memories do not fit together.
    """
    problems = page_problems(folder)
    if problems:
        raise Damaged(f"{len(problems)} structural problems, first: {problems[0]}")
    _read_databases(folder)
    try:
        store = Store(folder, map_size_bytes=MAP_SIZE_BYTES, max_map_size_bytes=MAP_SIZE_BYTES)
    except StoreFormatError as error:
        raise Damaged(str(error)) from error
    try:
        report = verify(store)
        if report.problems:
            raise Damaged(f"{report.problem_count} problems, first: {report.problems[0]}")
        with store.read() as transaction:
            return {name: _live_memories(transaction, name) for name in namespaces}
    except (AgentMemError, lmdb.Error) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    finally:
        store.close()


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


def _live_memories(transaction: ReadTransaction, namespace: str) -> dict[str, Stored]:
    live = {}
    for memory_id, state in transaction.live_ids(namespace):
        memory = transaction.named_record(state.ordinal).memory
        if (memory.namespace, memory.id, memory.version) != (namespace, memory_id, state.version):
            raise Damaged(f"{memory_id} names the record of {memory.id} at version {memory.version}")
        live[memory_id] = Stored(state.version, memory.content)
    return live
