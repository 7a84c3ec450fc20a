"""Memories, hits and nodes as people read them."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from agentmem.cli import documents, node_figures, terminal
from agentmem.client import (
    Acknowledged,
    ChangeKind,
    Hit,
    Memory,
    MemoryChange,
    MemoryVersion,
    NodeRole,
    PurgeStatus,
    SearchExplanation,
    SearchResult,
    SearchSignals,
    Topology,
    VersionKind,
)

# What only the node itself knows.
_OWN_FIELDS = ("epoch", "known_epoch", "set_aside_entries", *node_figures.SIZES)
_KIND_CELLS = max(map(len, ChangeKind))
_TIME_CELLS = len("2023-05-08 13:56:00")


def print_memory(memory: Memory) -> None:
    """One memory, field by field; fields without a value are left out."""
    document = documents.from_memory(memory)
    content = document.pop("content")
    print_fields({name: value for name, value in document.items() if value not in ("", 0, [], {})})
    terminal.say()
    terminal.say(content)


def print_fields(document: Mapping[str, Any]) -> None:
    """Names and values, in two columns."""
    terminal.table([(name, "-" if value is None else _text(value)) for name, value in document.items()])


def print_breakdown(document: Mapping[str, Any]) -> None:
    """The counts of a breakdown as a document: sums, then a table for types, users, agents and sessions."""
    owners = ("users", "agents", "sessions")
    sums = {name: value for name, value in document.items() if name not in ("types", *owners)}
    print_fields(sums | {name: document[name]["distinct"] for name in owners})
    tables = {"TYPE": document["types"]}
    tables |= {name.removesuffix("s").upper(): document[name]["largest"] for name in owners}
    for title, counts in tables.items():
        if counts:
            terminal.say()
            # The name last, for it may be long.
            rows = [(f"{memories:>8}", name) for name, memories in counts.items()]
            terminal.table(rows, header=("MEMORIES", title))


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


def print_explanation(result: SearchResult, explanation: SearchExplanation) -> None:
    """How a search was done: its steps, and what each score is made of, by the place of the hit."""
    terminal.say()
    document = {
        "mode": explanation.mode or "none",
        "matching": f"{explanation.matching_memories} of {explanation.live_memories} memories",
        "looked for": " ".join(explanation.tokens) or "no words",
        "embedded by": explanation.embedding_model,
    }
    print_fields({name: value for name, value in document.items() if value})
    terminal.say()
    terminal.table(
        [
            (step.name, f"{step.milliseconds:.2f}", str(step.memories), step.plan)
            for step in explanation.steps
        ],
        ("STEP", "MS", "MEMORIES", "PLAN"),
    )
    # Ids would make these rows wider than most terminals.
    names = [
        each.name
        for each in fields(SearchSignals)
        if any(getattr(hit.signals, each.name, None) is not None for hit in result.hits)
    ]
    if result.hits:
        terminal.say()
        terminal.table(
            [
                (str(place), f"{hit.score:.3f}", *(_signal(hit.signals, name) for name in names))
                for place, hit in enumerate(result.hits, 1)
            ],
            ("HIT", "SCORE", *(name.upper() for name in names)),
        )


def _signal(signals: SearchSignals | None, name: str) -> str:
    value = getattr(signals, name, None)
    return "" if value is None else f"{value:.3f}"


def print_versions(versions: Sequence[MemoryVersion]) -> None:
    """Versions of one memory: version, how it came to be, revision, time, content."""
    rows = []
    for version in versions:
        memory = version.memory
        content = memory.content if version.kind is VersionKind.WRITTEN else "-"
        time = f"{memory.update_time:%Y-%m-%d %H:%M:%S}"
        rows.append((str(memory.version), str(version.kind), str(version.revision), time, content))
    terminal.table(rows, header=("VERSION", "KIND", "REVISION", "TIME", "CONTENT"))


def print_change(change: MemoryChange) -> None:
    """One change on a line: kind, time, version, id, owner, content. Of a purge, the digest of the id."""
    head = f"{change.kind:<{_KIND_CELLS}}  "
    memory = change.memory
    if memory is None:
        terminal.say(f"{head}{'-':<{_TIME_CELLS}}  -     digest {change.id_digest.hex()}")
        return
    head += f"{memory.update_time:%Y-%m-%d %H:%M:%S}  v{memory.version:<3}  {memory.id}"
    if change.kind not in (ChangeKind.ADDED, ChangeKind.UPDATED):
        terminal.say(head)
        return
    left = "" if change.matches else "(matches no longer) "
    terminal.say(" ".join(f"{head}  {_owner(memory)}  {left}{memory.content}".splitlines()))


def print_purge_status(status: PurgeStatus) -> None:
    """A receipt, and the nodes with whether they have carried it out."""
    document = documents.from_purge_status(status)
    print_fields(document["receipt"])
    terminal.say()
    rows = [
        (node.node_id, str(node.applied_revision), "yes" if node.applied else "not yet")
        for node in status.nodes
    ]
    terminal.table(rows, header=("NODE", "REVISION", "CARRIED OUT"))


def described(
    topology: Topology, unreachable_addresses: Container[str], known: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The nodes of a cluster, with how far each is behind the writer: null when that cannot be known.

    Args:
        known: what nodes say of themselves, by address: how many entries that a promotion left behind each
            keeps, its epochs and its sizes.
    """
    writer = topology.writer
    head = None if writer is None or writer.address in unreachable_addresses else writer.applied_revision
    return [
        {
            "id": node.id,
            "role": str(node.role),
            "address": node.address,
            "state": "unreachable" if node.address in unreachable_addresses else str(node.state),
            "applied_revision": node.applied_revision,
            "searchable_revision": node.searchable_revision,
            "lag_revisions": None if head is None else max(0, head - node.applied_revision),
            "staleness_s": None if node.staleness is None else node.staleness.total_seconds(),
            **{name: known.get(node.address, {}).get(name) for name in _OWN_FIELDS},
        }
        for node in topology.nodes
    ]


def note_acknowledged(acknowledged: Acknowledged | None) -> None:
    """Says when a write did not come as far as it should have in time."""
    if acknowledged is not None and not acknowledged.reached:
        terminal.note(
            "it is on the writer's disk, and not acknowledged as asked for in time: "
            f"{acknowledged.replicated} replicas have it, the searches of {acknowledged.applied} show it"
        )


def print_nodes(nodes: Sequence[Mapping[str, Any]]) -> None:
    """The nodes as described, in a table."""
    rows = []
    for node in nodes:
        lag = "-" if node["role"] == NodeRole.WRITER else node["lag_revisions"]
        staleness = "-" if node["staleness_s"] is None else f"{node['staleness_s']:.1f}"
        columns = (node["id"], node["role"], node["address"], node["state"], node["applied_revision"])
        rows.append([*map(str, columns), "?" if lag is None else str(lag), staleness])
    terminal.table(rows, header=("NODE", "ROLE", "ADDRESS", "STATE", "REVISION", "LAG", "SECONDS"))
    if not any(node["role"] == NodeRole.WRITER and node["state"] == "serving" for node in nodes):
        terminal.note("no writer serves now: reads go on, writes fail")
    for node in nodes:
        if node["set_aside_entries"]:
            terminal.note(
                f"{node['id']} keeps {node['set_aside_entries']} acknowledged writes that a promotion left "
                "behind, in set-aside/ of its data directory"
            )


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
