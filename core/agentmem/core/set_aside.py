"""What a promotion left behind: entries that a node had, and that are not in the log that goes on.

They were acknowledged, so they are kept for people to look at, in a file of JSON lines in the data directory:
``set-aside/epoch-<epoch>-revisions-<first>-<last>.jsonl``. The first line says where it comes from:

    {"cluster_id", "epoch", "common_revision", "last_revision"}

The others, in the order of the log, are one of

    {"revision", "kind": "put" | "delete", "memory": {...}}      the version as in the API, bytes in base64
    {"revision", "kind": "purge", "namespace", "versions", "id_digest"}
    {"revision", "kind": "settings", "namespace", "settings"}
    {"revision", "kind": "reembed", "namespace", "embedding_model"}      embeddings began to be replaced

What retention removed is not among them: nobody asked for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from agentmem.core.data_directory import sync
from agentmem.core.log import LogEntry, Operation
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import add_embedding
from agentmem.core.store import Store
from agentmem.v1 import storage_pb2

FOLDER = "set-aside"
_NAME = re.compile(r"epoch-[0-9]+-revisions-([0-9]+)-([0-9]+)\.jsonl")


def set_aside_entries(data_dir: Path) -> int:
    """How many entries the files in a data directory have."""
    folder = data_dir / FOLDER
    names = os.listdir(folder) if folder.is_dir() else []
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    return sum(int(match[2]) - int(match[1]) + 1 for match in found)


def set_aside(store: Store, data_dir: Path, common_revision: int) -> Path | None:
    """Writes what the store has behind a revision to a file, on disk when this returns.

    Returns None, and writes nothing, when there is nothing in it that anybody asked for.

    Raises:
        DataLoss: an entry cannot be read.
    """
    folder = data_dir / FOLDER
    folder.mkdir(exist_ok=True)
    with store.read() as transaction:
        position = transaction.position
        header = {
            "cluster_id": position.cluster_id.hex(),
            "epoch": position.epoch,
            "common_revision": common_revision,
            "last_revision": position.revision,
        }
        path = folder / f"epoch-{position.epoch}-revisions-{common_revision + 1}-{position.revision}.jsonl"
        partial = path.with_suffix(".partial")
        count = 0
        with open(partial, "w", encoding="utf-8") as file:
            file.write(json.dumps(header) + "\n")
            for line in _lines_behind(transaction, common_revision):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    if not count:
        partial.unlink()
        return None
    sync(partial)
    partial.rename(path)
    sync(folder)
    sync(data_dir)
    return path


def _lines_behind(transaction: ReadTransaction, common_revision: int) -> Iterator[dict[str, Any]]:
    newest = transaction.revision
    first = max(common_revision + 1, transaction.first_log_revision)
    if first > common_revision + 1:
        # The log does not reach back so far any more, but the versions are there.
        yield from _versions_between(transaction, common_revision, first)
    for revision in range(first, newest + 1):
        yield from _lines(transaction, transaction.log_entry(revision))


def _lines(transaction: ReadTransaction, entry: LogEntry) -> Iterator[dict[str, Any]]:
    for change in entry.namespaces:
        if change.reembedding:
            if change.reembedding == storage_pb2.REEMBEDDING_STEP_BEGUN:
                yield {
                    "revision": entry.revision,
                    "kind": "reembed",
                    "namespace": change.name,
                    "embedding_model": change.embedding_model,
                }
            continue
        settings = MessageToDict(change.settings, preserving_proto_field_name=True)
        yield {
            "revision": entry.revision,
            "kind": "settings",
            "namespace": change.name,
            "settings": settings,
        }
    for operation in entry.operations:
        if operation.kind in (Operation.KIND_PUT, Operation.KIND_DELETE):
            yield from _version(transaction, operation.ordinal)
        elif operation.kind == Operation.KIND_PURGE:
            yield {
                "revision": entry.revision,
                "kind": "purge",
                "namespace": transaction.namespace_name(operation.namespace_number),
                "versions": len(operation.removed_ordinals),
                "id_digest": operation.purged_id_digest.hex(),
            }


def _version(transaction: ReadTransaction, ordinal: int) -> Iterator[dict[str, Any]]:
    record = transaction.record(ordinal)
    if record is None:
        return  # removed since
    add_embedding(transaction, ordinal, record.memory)
    yield {
        "revision": record.revision,
        "kind": "delete" if record.is_tombstone else "put",
        "memory": MessageToDict(record.memory, preserving_proto_field_name=True),
    }


def _versions_between(
    transaction: ReadTransaction, common_revision: int, before_revision: int
) -> Iterator[dict[str, Any]]:
    """Of entries that are in the log no more. Ordinals ascend with revisions."""
    newest = first = transaction.newest_ordinal
    while first > 0:
        record = transaction.record(first)
        if record is not None and record.revision <= common_revision:
            break
        first -= 1
    for ordinal in range(first + 1, newest + 1):
        for line in _version(transaction, ordinal):
            if line["revision"] >= before_revision:
                return
            yield line
