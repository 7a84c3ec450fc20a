"""The file of an export: JSON lines that say no more than the versions themselves, and all of them.

The first line is ``{"agentmem_export": 1}``. Each other one is a version, its keys in the order of the
alphabet, what is empty left out: equal histories make equal files, in whatever store and namespace they are.
Times are exact to the nanosecond, embeddings are the base64 of their little-endian float32 values.
"""

import base64
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from agentmem.cli import arguments, documents
from agentmem.cli.failures import usage_error
from agentmem.client import Memory, MemoryVersion, ServerError, VersionKind, values, versions
from agentmem.client.models import memory_type

HEADER_KEY = "agentmem_export"
FORMAT = 1
_TIMES = ("event_time", "create_time", "update_time", "expire_time")
_TEXTS = ("content", "user_id", "agent_id", "session_id", "embedding_model")
_FIELDS = {"id", "version", "kind", "type", "importance", "tags", "metadata", "embedding", *_TIMES, *_TEXTS}


def write(found: Iterable[MemoryVersion], output: BinaryIO, on_progress: Callable[[int], None]) -> int:
    """Writes the header and the versions; returns how many those were."""
    output.write(_line({HEADER_KEY: FORMAT}))
    count = 0
    for version in found:
        output.write(_line(to_document(version)))
        count += 1
        on_progress(1)
    output.flush()
    return count


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, allow_nan=False).encode() + b"\n"


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of the one at the path when it is complete, and is gone when it fails."""
    if path.exists() and not path.is_file():
        # A pipe or a device is written to, and a folder says what it is.
        with _opened(path, "wb", path) as output:
            yield output
        return
    # What a link points to is replaced, and not the link.
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _opened(partial, "xb", path) as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _opened(file: Path, mode: str, asked: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, file.open(mode))
    except OSError as error:
        raise usage_error(f"cannot write {asked}: {error.strerror}") from error


def to_document(version: MemoryVersion) -> dict[str, Any]:
    """A version as its line has it."""
    memory = version.memory
    document: dict[str, Any] = {"id": memory.id, "version": memory.version, "kind": str(version.kind)}
    document["update_time"] = documents.timestamp(memory.update_time)
    if memory.expire_time is not None:
        document["expire_time"] = documents.timestamp(memory.expire_time)
    if version.kind is not VersionKind.WRITTEN:
        return document
    document |= {
        "type": str(memory.type),
        "event_time": documents.timestamp(memory.event_time),
        "create_time": documents.timestamp(memory.create_time),
    }
    given = {name: getattr(memory, name) for name in _TEXTS}
    given |= {"importance": memory.importance, "tags": list(memory.tags), "metadata": dict(memory.metadata)}
    if memory.embedding is not None:
        packed = values.embedding("embedding", memory.embedding)
        given["embedding"] = base64.b64encode(packed).decode()
    return document | {name: value for name, value in given.items() if value not in ("", 0, [], {})}


def check_header(document: dict[str, Any]) -> None:
    """Raises ValueError when the export is of a format that this release does not know."""
    if document != {HEADER_KEY: FORMAT}:
        raise ValueError(f"{HEADER_KEY}: this release reads exports of format {FORMAT} alone")


def to_version(document: Any) -> MemoryVersion:
    """The version that a line is; raises ValueError or InvalidArgument naming the field."""
    if not isinstance(document, dict):
        raise ValueError("must be a JSON object")
    for name in document:
        if name not in _FIELDS:
            raise ValueError(f"{name}: no such field of a version")
    for name in ("id", "version", "kind", "update_time"):
        if name not in document:
            raise ValueError(f"{name}: missing")
    times = {name: arguments.parse_time(document[name], name) for name in _TIMES if name in document}
    kind = values.choice("kind", document["kind"], VersionKind)
    if kind is VersionKind.WRITTEN:
        memory = _written(document, times)
    else:
        extra = document.keys() - {"id", "version", "kind", "update_time", "expire_time"}
        if extra or (kind is VersionKind.EXPIRED) != ("expire_time" in times):
            raise ValueError(f"kind: a version that is {kind} has id, version, times and nothing else")
        memory = versions.ended_memory(
            document["id"], document["version"], times["update_time"], times.get("expire_time")
        )
    version = MemoryVersion(memory, kind)
    # The client would say the same when it sends the version, but then of a whole import.
    versions.version_to_proto(version)
    return version


def _written(document: dict[str, Any], times: dict[str, datetime]) -> Memory:
    for name in ("content", "type", "event_time", "create_time"):
        if name not in document:
            raise ValueError(f"{name}: missing")
    embedding = None
    if "embedding" in document:
        try:
            embedding = values.to_embedding(base64.b64decode(document["embedding"], validate=True))
        except (ValueError, TypeError, ServerError) as error:
            raise ValueError("embedding: is not the base64 of float32 values") from error
    return Memory(
        id=document["id"],
        namespace="",
        content=document["content"],
        type=memory_type("type", document["type"]),
        user_id=document.get("user_id", ""),
        agent_id=document.get("agent_id", ""),
        session_id=document.get("session_id", ""),
        importance=document.get("importance", 0.0),
        tags=tuple(values.texts("tags", document.get("tags", ()))),
        metadata=document.get("metadata", {}),
        embedding=embedding,
        embedding_model=document.get("embedding_model", ""),
        event_time=times["event_time"],
        create_time=times["create_time"],
        update_time=times["update_time"],
        version=document["version"],
        expire_time=times.get("expire_time"),
    )
