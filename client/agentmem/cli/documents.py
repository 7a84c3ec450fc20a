"""Memories, and what else the client returns, as JSON documents."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from agentmem.cli import arguments, terminal
from agentmem.client import (
    Acknowledged,
    AddResult,
    Backup,
    Breakdown,
    ChangeKind,
    DeleteResult,
    IndexStats,
    Memory,
    MemoryChange,
    MemoryVersion,
    NamespaceSettings,
    NewMemory,
    PurgeReceipt,
    PurgeStatus,
    SearchResult,
    Stats,
    UpdatedMemory,
    VersionKind,
)
from agentmem.client.models import new_memory_to_proto
from agentmem.client.times import iso_text
from agentmem.client.values import MAX_EXACT_INTEGER

# A listed memory has these too, so that it can be imported as it is; the server sets them anew.
_SET_BY_SERVER = {"namespace", "create_time", "update_time", "version"}
_FIELDS = {field.name for field in fields(NewMemory)}


def from_memory(memory: Memory) -> dict[str, Any]:
    """All fields of a memory; its embedding only if it has come along."""
    document: dict[str, Any] = {
        "id": memory.id,
        "namespace": memory.namespace,
        "content": memory.content,
        "type": str(memory.type),
        "user_id": memory.user_id,
        "agent_id": memory.agent_id,
        "session_id": memory.session_id,
        "importance": memory.importance,
        "tags": list(memory.tags),
        "metadata": {key: _plain(value) for key, value in memory.metadata.items()},
        "event_time": timestamp(memory.event_time),
        "create_time": timestamp(memory.create_time),
        "update_time": timestamp(memory.update_time),
        "version": memory.version,
        "embedding_model": memory.embedding_model,
    }
    if memory.expire_time is not None:
        document["expire_time"] = timestamp(memory.expire_time)
    if memory.embedding is not None:
        document["embedding"] = list(memory.embedding)
    return document


def from_search(result: SearchResult) -> dict[str, Any]:
    """The answer to a search; signals and explanation when they were asked for."""
    hits = []
    for hit in result.hits:
        document: dict[str, Any] = {"score": hit.score, "memory": from_memory(hit.memory)}
        if hit.signals is not None:
            document["signals"] = {
                name: value for name, value in asdict(hit.signals).items() if value is not None
            }
        hits.append(document)
    whole: dict[str, Any] = {
        "hits": hits,
        "applied_revision": result.applied_revision,
        "epoch": result.epoch,
    }
    if result.explanation is not None:
        whole["explanation"] = asdict(result.explanation)
    return whole


def from_version(version: MemoryVersion) -> dict[str, Any]:
    """One version of a history. Of one that was written the whole memory, else what there is."""
    is_written = version.kind is VersionKind.WRITTEN
    memory = from_memory(version.memory) if is_written else _from_ended(version.memory)
    return {"kind": str(version.kind), "revision": version.revision, "memory": memory}


def _from_ended(memory: Memory) -> dict[str, Any]:
    """What there is of a memory that was deleted, or has expired."""
    ended: dict[str, Any] = {"id": memory.id, "namespace": memory.namespace, "version": memory.version}
    ended["update_time"] = timestamp(memory.update_time)
    if memory.expire_time is not None:
        ended["expire_time"] = timestamp(memory.expire_time)
    return ended


def from_change(change: MemoryChange) -> dict[str, Any]:
    """One change of a watch. Its position is what --after takes."""
    document: dict[str, Any] = {
        "kind": str(change.kind),
        "revision": change.position.revision,
        "position": change.position.token,
    }
    if change.memory is None:
        return document | {"id_digest": change.id_digest.hex()}
    if change.kind not in (ChangeKind.ADDED, ChangeKind.UPDATED):
        return document | {"memory": _from_ended(change.memory)}
    return document | {"matches": change.matches, "memory": from_memory(change.memory)}


def from_acknowledged(acknowledged: Acknowledged | None) -> dict[str, Any] | None:
    """How far a write was when it was answered; null when it was to be on the writer's disk alone."""
    return None if acknowledged is None else asdict(acknowledged)


def from_addition(result: AddResult) -> dict[str, Any]:
    """What became of the one memory of an add."""
    (added,) = result.memories
    return {
        "id": added.id,
        "version": added.version,
        "outcome": str(added.outcome),
        "revision": result.revision,
        "epoch": result.epoch,
        "acknowledged": from_acknowledged(result.acknowledged),
    }


def from_update(updated: UpdatedMemory) -> dict[str, Any]:
    """The new version of a memory, and the commit that made it."""
    return from_memory(updated) | {
        "revision": updated.revision,
        "epoch": updated.epoch,
        "acknowledged": from_acknowledged(updated.acknowledged),
    }


def from_deletion(result: DeleteResult) -> dict[str, Any]:
    """What a deletion or a purge came to."""
    return {
        "deleted_ids": list(result.deleted_ids),
        "missing_ids": list(result.missing_ids),
        "deleted_count": result.deleted_count,
        "revision": result.revision,
        "epoch": result.epoch,
        "acknowledged": from_acknowledged(result.acknowledged),
        "receipt": None if result.receipt is None else _from_receipt(result.receipt),
    }


def from_purge_status(status: PurgeStatus) -> dict[str, Any]:
    """A receipt, and who has carried it out."""
    return {"receipt": _from_receipt(status.receipt), "nodes": [asdict(node) for node in status.nodes]}


def _from_receipt(receipt: PurgeReceipt) -> dict[str, Any]:
    return asdict(receipt) | {"time": timestamp(receipt.time), "ids_sha256": receipt.ids_sha256.hex()}


def from_settings(settings: NamespaceSettings) -> dict[str, Any]:
    """What a namespace keeps; lengths of time in seconds."""
    age = settings.max_version_age
    return {
        "max_versions": settings.max_versions,
        "max_version_age_s": None if age is None else age.total_seconds(),
        "vector_precision": str(settings.vector_precision),
        "embedder": settings.embedder or None,
    }


def from_stats(stats: Stats) -> dict[str, Any]:
    """What a namespace and a store hold."""
    space = asdict(stats.namespace)
    space.pop("settings")
    space.pop("reembedding")
    coming = stats.namespace.reembedding
    space["coming_embedding_model"] = coming.embedding_model if coming else ""
    space["coming_versions"] = coming.done_versions if coming else 0
    document = {
        "namespace": space | from_settings(stats.namespace.settings),
        "store": asdict(stats.store),
        "applied_revision": stats.applied_revision,
        "epoch": stats.epoch,
    }
    if stats.breakdown is not None:
        document["breakdown"] = _from_breakdown(stats.breakdown)
    if stats.indexes is not None:
        document["indexes"] = _from_index_stats(stats.indexes)
    return document


def _from_breakdown(breakdown: Breakdown) -> dict[str, Any]:
    document = asdict(breakdown) | {"types": {str(kind): n for kind, n in breakdown.types.items()}}
    for name in ("oldest_event_time", "newest_event_time"):
        document[name] = None if document[name] is None else timestamp(document[name])
    return document


def _from_index_stats(indexes: IndexStats) -> dict[str, Any]:
    """Staleness in seconds."""
    document = asdict(indexes)
    return {
        f"{name}_s" if name.endswith("staleness") else name: (
            value.total_seconds() if isinstance(value, timedelta) else value
        )
        for name, value in document.items()
    }


def from_backup(backup: Backup) -> dict[str, Any]:
    """What a backup holds, as its manifest has it."""
    return asdict(backup)


def to_memory(document: Any) -> NewMemory:
    """The memory that one JSON document asks for; raises ValueError or InvalidArgument naming the field."""
    if not isinstance(document, dict):
        raise ValueError("must be a JSON object with at least a content")
    given = {name: value for name, value in document.items() if name not in _SET_BY_SERVER}
    for name in given:
        if name not in _FIELDS:
            raise ValueError(f"{name}: no such field of a memory")
    if not given.get("content"):
        raise ValueError("content: missing or empty")
    for name in ("event_time", "expire_time"):
        if given.get(name) is not None:
            given[name] = arguments.parse_time(given[name], name)
    if given.get("embedding") is None:
        # The server embeds the content, and names its own model.
        given.pop("embedding_model", None)
    memory = NewMemory(**given)
    # The client would say the same when it sends the memory, but then of a whole batch.
    new_memory_to_proto(memory)
    return memory


def _plain(value: Any) -> Any:
    """Numbers come back as floats; a whole one is written as it was most likely given.

    Beyond 2**53 a float would look like an integer with digits that nobody gave.
    """
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_INTEGER:
        return int(value)
    return value


def timestamp(moment: datetime) -> str:
    """A time in UTC as JSON has it, exact."""
    return iso_text(moment)


def one_line(document: Mapping[str, Any]) -> str:
    """A JSON document on one line."""
    return json.dumps(document, ensure_ascii=False)


def print_line(document: Mapping[str, Any]) -> None:
    """Prints a document for programs."""
    print(terminal.printable_json(one_line(document)))
