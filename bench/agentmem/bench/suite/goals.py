"""What the server is meant to reach, and what a run says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentmem.bench.suite.figures import Figure, figure
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.tables import Table, number, shown

Find = Callable[[Section], float | Figure | None]


@dataclass(frozen=True)
class Goal:
    """A bound of a figure: ``least`` or ``most``, in words ``what``, of one section of a document."""

    what: str
    section: str
    find: Find
    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"≥ {number(self.least)}" if self.least is not None else f"≤ {number(self.most or 0.0)}"


def _case(group: str, name: str, of: str) -> Find:
    def find(section: Section) -> Figure | None:
        case = next(each for each in section[group] if each["name"] == name)
        found: Figure | None = case["figures"].get(of)
        return found

    return find


def _flat(section: Section) -> float | None:
    """The CPU of a search in a scope among the most memories, as a multiple of that among the fewest."""
    costs = [each["figures"]["server_cpu_ms"]["median"] for each in section["by_size"]]
    return costs[-1] / costs[0] if len(costs) > 1 else None


def _scaled(section: Section) -> float | None:
    per_s = {each["replicas"]: each["figures"]["per_s"]["median"] for each in section["scaling"]}
    return per_s[2] / per_s[1] if {1, 2} <= per_s.keys() else None


def _lowest_recall(section: Section) -> float:
    rows = [row for size in section["sizes"] for row in size["accuracy"]]
    return min(float(row["accuracy"]) for row in rows if row["mode"] == "semantic")


def _of(*path: str) -> Find:
    def find(section: Section) -> Any:
        found: Any = section
        for name in path:
            found = found[name]
        return found

    return find


_RATE, _CPU = "throughput_ratio", "cpu_ratio"
GOALS = (
    Goal("get, each alone: CPU ÷ an empty call", "owners", _case("alone", "get", _CPU), most=1.3),
    Goal(
        "search in a scope, each alone: CPU ÷ an empty call",
        "owners",
        _case("alone", "semantic search in a scope", _CPU),
        most=1.6,
    ),
    Goal("gets ÷ empty calls", "owners", _case("together", "get", _RATE), least=9.0),
    Goal(
        "semantic searches in a scope ÷ empty calls",
        "owners",
        _case("together", "semantic search in a scope", _RATE),
        least=1.7,
    ),
    Goal(
        "their server CPU, ms",
        "owners",
        _case("together", "semantic search in a scope", "server_cpu_ms"),
        most=0.35,
    ),
    Goal("their recall@10", "owners", _of("recall", "scope"), least=1.0),
    Goal(
        "semantic searches by owner, time and type ÷ empty calls",
        "owners",
        _case("together", "semantic search in a scope by time and type", _RATE),
        least=1.7,
    ),
    Goal("their recall@10", "owners", _of("recall", "scope by time and type"), least=1.0),
    Goal(
        "semantic searches in the namespace ÷ empty calls",
        "owners",
        _case("together", "semantic search in the namespace", _RATE),
        least=1.2,
    ),
    Goal("their recall@10", "owners", _of("recall", "namespace"), least=0.95),
    Goal(
        "text searches in a scope ÷ empty calls",
        "owners",
        _case("together", "text search in a scope", _RATE),
        least=1.0,
    ),
    Goal(
        "hybrid searches in a scope ÷ empty calls",
        "owners",
        _case("together", "hybrid search in a scope", _RATE),
        least=0.6,
    ),
    Goal(
        "durable adds with vectors, 32 callers ÷ empty calls",
        "owners",
        _case("together", "add", _RATE),
        least=2.4,
    ),
    Goal(
        "95 searches in a scope and 5 adds ÷ empty calls",
        "owners",
        _case("together", "95 searches in a scope, 5 adds", _RATE),
        least=1.4,
    ),
    Goal(
        "imported and searchable a second",
        "owners",
        lambda section: float(section["imports"][-1]["searchable_per_s"]),
        least=10_000.0,
    ),
    Goal(
        "write to searchable at 500 writes a second, p99 ms",
        "owners",
        _of("freshness", "figures", "p99_ms"),
        most=100.0,
    ),
    Goal("a search in a scope, most ÷ fewest memories in the store: CPU", "owners", _flat, most=1.3),
    Goal("filtered semantic searches: lowest recall@10", "search", _lowest_recall, least=0.95),
    Goal(
        "100 users, 1,000 mixed operations each: a second",
        "concurrency",
        _of("users", "figures", "per_s"),
        least=5_000.0,
    ),
    Goal(
        "their operations that failed",
        "concurrency",
        lambda section: float(sum(section["users"]["errors"].values())),
        most=0.0,
    ),
    Goal("searches with 2 replicas ÷ with 1", "replication", _scaled, least=1.7),
)


def table(sections: Mapping[str, Section]) -> Table | None:
    """The goals of the sections that there are; None when there is none of them."""
    rows = list(_rows(sections))
    if not rows:
        return None
    header = ("what", "goal", "measured", "met")
    return Table(
        "Goals", header, rows, "Empty calls are made at the same number of callers, in the same run."
    )


def _rows(sections: Mapping[str, Section]) -> Iterator[tuple[str, ...]]:
    for goal in GOALS:
        found = goal.find(sections[goal.section]) if goal.section in sections else None
        if found is not None:
            value = figure([found]) if isinstance(found, float) else found
            yield goal.what, str(goal), shown(value), "yes" if goal.is_met(value["median"]) else "no"
