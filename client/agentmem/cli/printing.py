"""Memories, hits and nodes as people read them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agentmem.cli import documents, terminal
from agentmem.client import Hit, Memory, NodeRole, Topology


def print_memory(memory: Memory) -> None:
    """One memory, field by field; fields without a value are left out."""
    document = documents.from_memory(memory)
    content = document.pop("content")
    rows = [(name, _text(value)) for name, value in document.items() if value not in ("", 0, [], {})]
    terminal.table(rows)
    terminal.say()
    terminal.say(content)


def print_memories(memories: Sequence[Memory]) -> None:
    """Memories in a list: id, time, owner, content."""
    terminal.table(
        [(memory.id, _minute(memory.event_time), _owner(memory), memory.content) for memory in memories]
    )


def print_hits(hits: Sequence[Hit]) -> None:
    """Hits of a search: score, time, owner, id, content."""
    terminal.table(
        [
            (
                f"{hit.score:.3f}",
                _minute(hit.memory.event_time),
                _owner(hit.memory),
                hit.memory.id,
                hit.memory.content,
            )
            for hit in hits
        ]
    )


def print_topology(topology: Topology) -> None:
    """The nodes of a cluster, with how far each is behind the writer."""
    head = topology.writer.applied_revision if topology.writer else None
    rows = []
    for node in topology.nodes:
        lag = "?" if head is None else str(max(0, head - node.applied_revision))
        is_writer = node.role is NodeRole.WRITER
        rows.append(
            (
                node.id,
                node.role,
                node.address,
                node.state,
                str(node.applied_revision),
                "-" if is_writer else lag,
            )
        )
    terminal.table(rows, header=("NODE", "ROLE", "ADDRESS", "STATE", "REVISION", "LAG"))
    if head is None:
        terminal.note("there is no writer now: reads go on, writes fail")


def topology_document(topology: Topology) -> dict[str, Any]:
    """The same for programs."""
    head = topology.writer.applied_revision if topology.writer else None
    return {
        "cluster_id": topology.cluster_id,
        "epoch": topology.epoch,
        "answered_by": topology.answered_by,
        "nodes": [
            {
                "id": node.id,
                "role": str(node.role),
                "address": node.address,
                "state": str(node.state),
                "applied_revision": node.applied_revision,
                "searchable_revision": node.searchable_revision,
                "lag_revisions": None if head is None else max(0, head - node.applied_revision),
            }
            for node in topology.nodes
        ],
    }


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _owner(memory: Memory) -> str:
    return memory.user_id or memory.agent_id or memory.session_id or "-"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return documents.one_line(value)
    return str(value)
