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


def _alone(name: str) -> Find:
    return _case("alone", name, "cpu_ratio")


def _together(name: str) -> Find:
    return _case("together", name, "throughput_ratio")


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


def _longest_hold_ms(section: Section) -> float:
    return max(float(each["longest_ms"]) for each in section["loop"].values())


def _times_beside_builds(section: Section) -> Figure | None:
    found: Figure | None = section["builds"]["figures"]["times"] if "builds" in section else None
    return found


def _own_bytes(section: Section) -> float | None:
    found = section["own_bytes"].get("per_memory")
    return None if found is None else float(found)


def _failed(section: Section) -> float:
    return float(sum(section["users"]["errors"].values()))


def _searchable_per_s(section: Section) -> float:
    return float(section["imports"][-1]["searchable_per_s"])


def _of(*path: str) -> Find:
    def find(section: Section) -> Any:
        found: Any = section
        for name in path:
            found = found[name]
        return found

    return find


_SCOPED, _ALL = "semantic search in a scope", "semantic search in the namespace"
_NARROW = "semantic search in a scope by time and type"
_MIXED = "95 searches in a scope, 5 adds"
# What a float32 vector of 256 dimensions takes one and a half times, and 200 bytes.
_FRESH, _RESTART = _of("freshness", "figures", "p99_ms"), _of("restarts", "figures", "serving_s")
_USERS_PER_S = _of("users", "figures", "per_s")
_OWN_BYTES = 1.5 * 4 * 256 + 200
GOALS = (
    Goal("get, each alone: CPU ÷ an empty call", "owners", _alone("get"), most=1.3),
    Goal("search in a scope, each alone: CPU ÷ an empty call", "owners", _alone(_SCOPED), most=1.6),
    Goal("gets ÷ empty calls", "owners", _together("get"), least=9.0),
    Goal("semantic searches in a scope ÷ empty calls", "owners", _together(_SCOPED), least=1.7),
    Goal("their server CPU, ms", "owners", _case("together", _SCOPED, "server_cpu_ms"), most=0.35),
    Goal("their recall@10", "owners", _of("recall", "scope"), least=1.0),
    Goal("semantic searches by owner, time and type ÷ empty calls", "owners", _together(_NARROW), least=1.7),
    Goal("their recall@10", "owners", _of("recall", "scope by time and type"), least=1.0),
    Goal("semantic searches in the namespace ÷ empty calls", "owners", _together(_ALL), least=1.2),
    Goal("their recall@10", "owners", _of("recall", "namespace"), least=0.95),
    Goal("text searches in a scope ÷ empty calls", "owners", _together("text search in a scope"), least=1.0),
    Goal(
        "hybrid searches in a scope ÷ empty calls", "owners", _together("hybrid search in a scope"), least=0.6
    ),
    Goal("durable adds with vectors, 32 callers ÷ empty calls", "owners", _together("add"), least=2.4),
    Goal("95 searches in a scope and 5 adds ÷ empty calls", "owners", _together(_MIXED), least=1.4),
    Goal("imported and searchable a second", "owners", _searchable_per_s, least=10_000.0),
    Goal("write to searchable at 500 writes a second, p99 ms", "owners", _FRESH, most=100.0),
    Goal("a search in a scope, most ÷ fewest memories in the store: CPU", "owners", _flat, most=1.3),
    Goal(
        "own memory of a replica for each memory more, bytes",
        "owners",
        _own_bytes,
        most=_OWN_BYTES,
    ),
    Goal("the longest that its event loop is held up, ms", "owners", _longest_hold_ms, most=5.0),
    Goal("search p99 while a segment is built ÷ before", "owners", _times_beside_builds, most=2.0),
    Goal("restart of a replica until it serves, s", "owners", _RESTART, most=2.0),
    Goal("filtered semantic searches: lowest recall@10", "search", _lowest_recall, least=0.95),
    Goal("100 users, 1,000 mixed operations each: a second", "concurrency", _USERS_PER_S, least=5_000.0),
    Goal("their operations that failed", "concurrency", _failed, most=0.0),
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
