"""Memories as JSON documents."""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from agentmem.cli import arguments
from agentmem.client import Memory, NewMemory
from agentmem.client.models import new_memory_to_proto

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
    if memory.embedding is not None:
        document["embedding"] = list(memory.embedding)
    return document


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
    if given.get("event_time") is not None:
        given["event_time"] = arguments.parse_time(given["event_time"], "event_time")
    if given.get("embedding") is None:
        # The server embeds the content, and names its own model.
        given.pop("embedding_model", None)
    memory = NewMemory(**given)
    # The client would say the same when it sends the memory, but then of a whole batch.
    new_memory_to_proto(memory)
    return memory


def _plain(value: Any) -> Any:
    """Numbers come back as floats; a whole one is written as it was most likely given."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def timestamp(moment: datetime) -> str:
    """A time in UTC as JSON has it."""
    return moment.isoformat().replace("+00:00", "Z")


def one_line(document: Mapping[str, Any]) -> str:
    """A JSON document on one line."""
    return json.dumps(document, ensure_ascii=False)
