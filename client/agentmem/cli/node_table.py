"""The table of `agentmem top`: nodes in as many columns as the terminal has room for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agentmem.cli import terminal
from agentmem.cli.terminal import Line
from agentmem.client import NodeRole, NodeState

_MIN_NAME_CELLS = 10
_UNITS = "BKMGTPE"

_Node = Mapping[str, Any]


class _Column(NamedTuple):
    title: str
    text: Callable[[_Node], str]
    # Which goes first where there is no room for all; those of 0 stay.
    leaves: int = 0
    is_text: bool = False


def size_text(size_bytes: int | None) -> str:
    """Bytes in three digits and a unit, as in ``136M``."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f}{unit}" if size >= 9.95 or unit == "B" else f"{size:.1f}{unit}"


def _number(name: str, factor: int = 1) -> Callable[[_Node], str]:
    def text(node: _Node) -> str:
        value = node[name]
        if value is None:
            return "-"
        value *= factor
        # Counts are whole; of a rate that is small a digit more counts.
        return f"{value:.1f}" if isinstance(value, float) and value < 99.95 else f"{value:.0f}"

    return text


def _size(name: str) -> Callable[[_Node], str]:
    return lambda node: size_text(node[name])


def _lag(node: _Node) -> str:
    return "-" if node["role"] == NodeRole.WRITER else _number("lag_revisions")(node)


_COLUMNS = (
    _Column("NODE", lambda node: str(node["id"]), is_text=True),
    _Column("ROLE", lambda node: str(node["role"]), is_text=True),
    _Column("STATE", lambda node: str(node["state"]), leaves=8, is_text=True),
    _Column("EPOCH", _number("epoch"), leaves=13),
    _Column("REVISION", _number("applied_revision")),
    _Column("LAG", _lag),
    _Column("SECONDS", _number("staleness_s"), leaves=5),
    _Column("QPS", _number("calls_per_s")),
    _Column("P95 MS", _number("p95_ms")),
    _Column("ERR/S", _number("errors_per_s"), leaves=9),
    _Column("CPU %", _number("cpu_percent"), leaves=14),
    _Column("MEMORY", _size("memory_bytes")),
    _Column("STORE", _size("store_used_bytes"), leaves=6),
    _Column("INDEXES", _size("index_bytes"), leaves=4),
    _Column("CONNS", _number("connections"), leaves=12),
    _Column("HITS %", _number("cache_hit_ratio", 100), leaves=11),
    _Column("OPEN", _number("open_calls"), leaves=3),
    _Column("ADDRESS", lambda node: str(node["address"]), leaves=2, is_text=True),
)
# Columns up to here go before the gaps get smaller.
_LEAVES_BEFORE_GAPS = 10


def lines(nodes: Sequence[_Node], width_cells: int | None) -> list[Line]:
    """The table, header first.

    Where the terminal is too narrow, columns go, the least needed first; before the more needed ones the
    gaps between columns and then the names are made smaller.

    Args:
        width_cells: of the terminal; None for all columns.
    """
    columns = list(_COLUMNS)
    gap = 2
    while width_cells is not None:
        widths = _widths(columns, nodes)
        room = width_cells - gap * (len(columns) - 1)
        leaving = min((column.leaves for column in columns if column.leaves), default=None)
        if sum(widths) <= room:
            break
        if leaving is None or leaving > _LEAVES_BEFORE_GAPS:
            if gap > 1:
                gap = 1
                continue
            if sum(widths) - widths[0] + _MIN_NAME_CELLS <= room or leaving is None:
                break
        columns = [column for column in columns if column.leaves != leaving]
    widths = _widths(columns, nodes)
    if width_cells is not None:
        room = width_cells - sum(widths[1:]) - gap * (len(columns) - 1)
        widths[0] = min(widths[0], max(room, _MIN_NAME_CELLS))
    rows = [[column.title for column in columns]]
    rows += [[column.text(node) for column in columns] for node in nodes]
    shown: list[Line] = []
    for number, row in enumerate(rows):
        cells = [
            terminal.cut(cell, width) if column.is_text else cell.rjust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        is_serving = number == 0 or nodes[number - 1]["state"] == NodeState.SERVING
        shown.append(
            (((" " * gap).join(cells)).rstrip(), "bold" if not number else None if is_serving else "red")
        )
    return shown


def _widths(columns: Sequence[_Column], nodes: Sequence[_Node]) -> list[int]:
    return [
        max([len(column.title), *(terminal.cells(column.text(node)) for node in nodes)]) for column in columns
    ]


def notes(nodes: Sequence[_Node]) -> list[str]:
    """What the columns have no room for: who does not serve, and that nobody takes writes."""
    said = [
        f"{node['id']} ({node['address']}): {node['state']}"
        for node in nodes
        if node["state"] != NodeState.SERVING
    ]
    if not any(node["role"] == NodeRole.WRITER and node["state"] == NodeState.SERVING for node in nodes):
        said.append("no writer serves now: reads go on, writes fail")
    return said
