"""How each section of a document is shown: its title, what its figures say, its plots and its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentmem.bench.suite import drawings, findings, tables
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.plots import Plot
from agentmem.bench.suite.tables import Table


def _no_plots(section: Section) -> list[Plot]:
    return []


@dataclass(frozen=True)
class Shown:
    """Of one section."""

    title: str
    sentences: Callable[[Section], list[str]]
    tables: Callable[[Section], list[Table]]
    plots: Callable[[Section], list[Plot]] = _no_plots


SECTIONS: Mapping[str, Shown] = {
    "memory_operations": Shown(
        "Memory operations",
        findings.memory_operations,
        tables.memory_operations,
        drawings.memory_operations,
    ),
    "search": Shown("Search", findings.search, tables.search, drawings.search),
    "owners": Shown("Own memories", findings.owners, tables.owners, drawings.owners),
    "concurrency": Shown("Concurrency", findings.concurrency, tables.concurrency, drawings.concurrency),
    "replication": Shown("Replication", findings.replication, tables.replication, drawings.replication),
    "cross_check": Shown("Cross-check of the generator", findings.cross_check, tables.cross_check),
    "soak": Shown("Long run", findings.soak, tables.soak, drawings.soak),
}
