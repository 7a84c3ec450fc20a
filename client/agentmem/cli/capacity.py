"""What a load needs: processes, memory and disk, from costs that were measured."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmem.cli.failures import usage_error

FORMAT = 1
# Measured where `measured_on` of the file says, with the command that it names.
DEFAULT_COSTS = Path(__file__).parent / "costs.json"
CPU_COSTS = ("add", "apply", "get", "search_scoped", "search_namespace")
_SIZES = ("writer_memory", "replica_memory", "store_disk", "index_disk")
_PARTS = ("per_memory", "per_component", "per_content_byte")
BYTE_COSTS = (
    *("writer_memory", "replica_memory"),
    *(f"{size}_{part}" for size in _SIZES for part in _PARTS),
)
_MIB = 1024**2


@dataclass(frozen=True)
class Costs:
    """What was measured; see ``python -m agentmem.bench costs``.

    Attributes:
        cpu_ms: milliseconds of CPU time of one process, by call. ``add`` is of the writer, ``apply`` what
            each replica spends on an added memory until searches show it, the others are of the replica that
            answers.
        bytes: ``<size>`` of a process without memories, and what it grows by for each memory, for each
            component of its embedding and for each byte of its content.
        measured_on: where and how.
    """

    cpu_ms: Mapping[str, float]
    bytes: Mapping[str, float]
    measured_on: Mapping[str, Any]


@dataclass(frozen=True)
class Load:
    """What is asked of a cluster.

    Attributes:
        memories: that are kept, each version as one.
        redundancy: replicas that may be missing without the others being overloaded.
        search_cost: which cost a search has, by its name in ``Costs.cpu_ms``.
        cores: that one process can use.
        utilization: of these, at the most; the rest is for peaks.
        headroom: what memory and disk are multiplied with.
    """

    memories: int
    dimension: int
    content_bytes: int
    writes_per_s: float
    searches_per_s: float
    gets_per_s: float
    redundancy: int
    search_cost: str
    cores: float
    utilization: float
    headroom: float


@dataclass(frozen=True)
class Need:
    """One line of the answer.

    Attributes:
        value: None where no number is enough.
        formula: how it comes about, in numbers.
    """

    name: str
    value: float | None
    unit: str
    formula: str


def load_costs(path: Path) -> Costs:
    """Reads a file of costs. Raises CommandError naming what is wrong with it, OSError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise usage_error(f"--costs {path}: not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise usage_error(f"--costs {path}: not a file of costs of format {FORMAT}")
    if not isinstance(document.get("measured_on"), dict):
        raise usage_error(f"--costs {path}: measured_on: missing")
    return Costs(
        _numbers(path, document, "cpu_ms", CPU_COSTS),
        _numbers(path, document, "bytes", BYTE_COSTS),
        document["measured_on"],
    )


def _numbers(
    path: Path, document: Mapping[str, Any], name: str, fields: tuple[str, ...]
) -> Mapping[str, float]:
    found = document.get(name)
    numbers = {}
    for field in fields:
        value = found.get(field) if isinstance(found, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise usage_error(f"--costs {path}: {name}.{field}: must be a number from 0 on, not {value!r}")
        numbers[field] = float(value)
    return numbers


def needs(load: Load, costs: Costs) -> list[Need]:
    """What the load needs, each with its formula."""
    writer_cores = load.writes_per_s * costs.cpu_ms["add"] / 1000
    usable_cores = load.cores * load.utilization
    apply_cores = load.writes_per_s * costs.cpu_ms["apply"] / 1000
    search_ms, get_ms = costs.cpu_ms[load.search_cost], costs.cpu_ms["get"]
    read_cores = (load.searches_per_s * search_ms + load.gets_per_s * get_ms) / 1000
    left_cores = usable_cores - apply_cores
    is_writable = writer_cores <= usable_cores
    replicas = max(1, math.ceil(read_cores / left_cores)) + load.redundancy if left_cores > 0 else None
    index = _size(load, costs, "index_disk")
    store = _size(load, costs, "store_disk")
    each = (
        f"{load.memories:,} x (A + {load.dimension} x B + {load.content_bytes} x C), A, B, C bytes for a "
        "memory, a component, a byte of content"
    )
    return [
        Need(
            "writers",
            1 if is_writable else None,
            "processes",
            "there is one; it must keep up" if is_writable else "one cannot keep up with the writes",
        ),
        Need(
            "writer CPU",
            writer_cores,
            "cores",
            f"{load.writes_per_s:g} writes/s x {costs.cpu_ms['add']:g} ms; at most {usable_cores:g} "
            f"= {load.cores:g} cores x {load.utilization:g}",
        ),
        Need(
            "read CPU",
            read_cores,
            "cores",
            f"{load.searches_per_s:g} searches/s x {search_ms:g} ms + "
            f"{load.gets_per_s:g} gets/s x {get_ms:g} ms",
        ),
        Need(
            "replica apply CPU",
            apply_cores,
            "cores",
            f"{load.writes_per_s:g} writes/s x {costs.cpu_ms['apply']:g} ms, on each replica",
        ),
        Need(
            "replicas",
            replicas,
            "processes",
            f"{read_cores:.3g} cores of reads / ({usable_cores:g} - {apply_cores:.3g}), rounded up, "
            f"+ {load.redundancy} that may be missing"
            if replicas is not None
            else f"none is enough: writes take {apply_cores:.3g} of the {usable_cores:g} cores of each",
        ),
        _memory(load, costs, "writer", 0.0),
        _memory(load, costs, "replica", index),
        Need(
            "writer disk",
            2 * store * load.headroom,
            "bytes",
            f"2 x {_mib(store)} of store, for a snapshot may lie beside it, x {load.headroom:g}; "
            f"store: {each}: " + _coefficients(costs, "store_disk"),
        ),
        Need(
            "replica disk",
            (2 * store + 2 * index) * load.headroom,
            "bytes",
            f"2 x {_mib(store)} of store + 2 x {_mib(index)} of indexes, for new ones are written beside "
            f"them, x {load.headroom:g}; indexes as for the store: " + _coefficients(costs, "index_disk"),
        ),
    ]


def _memory(load: Load, costs: Costs, role: str, index_bytes: float) -> Need:
    base, grown = costs.bytes[f"{role}_memory"], _size(load, costs, f"{role}_memory")
    indexes = f" + {_mib(index_bytes)} of indexes in the page cache" if index_bytes else ""
    return Need(
        f"{role} memory",
        (base + grown + index_bytes) * load.headroom,
        "bytes",
        f"({_mib(base)} + {_mib(grown)} for the memories{indexes}) x {load.headroom:g}; for a memory: "
        + _coefficients(costs, f"{role}_memory"),
    )


def _size(load: Load, costs: Costs, name: str) -> float:
    """Bytes that all memories take, without what is there without any."""
    per_memory, per_component, per_byte = (costs.bytes[f"{name}_{part}"] for part in _PARTS)
    return load.memories * (per_memory + load.dimension * per_component + load.content_bytes * per_byte)


def _coefficients(costs: Costs, name: str) -> str:
    return ", ".join(
        f"{letter} = {costs.bytes[f'{name}_{part}']:.3g}" for letter, part in zip("ABC", _PARTS, strict=True)
    )


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
