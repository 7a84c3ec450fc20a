"""The result as tables of text: what is printed while measuring, and what the report is made of.

Every figure is written as its median with the lowest and highest of its runs: ``1.50 (1.42-1.61)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.bench.suite.figures import Figure
from agentmem.bench.suite.measurement import Section
from agentmem.cli import terminal

# A generator that takes more of a core than this may be what limits the throughput.
BUSY_SHARE = 0.9
DASH = "–"


@dataclass(frozen=True)
class Table:
    """A title, a header, rows, and what has to be known to read it."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def number(value: float) -> str:
    """With three digits or all before the point, and separators: 12,345; 12.3; 0.123."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def shown(figure: Figure | None) -> str:
    """A figure with its noise; a dash when too few calls were made to tell it."""
    if figure is None:
        return DASH
    if figure["low"] == figure["high"]:
        return number(figure["median"])
    return f"{number(figure['median'])} ({number(figure['low'])}–{number(figure['high'])})"


def cases(title: str, found: Sequence[Section], note: str = "") -> Table:
    """Calls of several kinds."""
    rows: list[tuple[str, ...]] = []
    for case in found:
        values = case["figures"]
        busy = values["client_cpu_share"]["median"] > BUSY_SHARE
        rows.append(
            (
                case["name"],
                str(case["callers"]),
                shown(values["per_s"]) + ("*" if busy else ""),
                shown(values["p50_ms"]),
                shown(values.get("p95_ms")),
                shown(values.get("p99_ms")),
                shown(values.get("p999_ms")),
                shown(values["server_cpu_ms"]),
                shown(values.get("cpu_ratio")),
                shown(values["throughput_ratio"]),
                number(case["error_rate"] * 100) + " %",
            )
        )
    header: tuple[str, ...] = (
        "call",
        "callers",
        "calls/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU ms/call",
        "CPU ÷ empty",
        "calls/s ÷ empty",
        "errors",
    )
    at = header.index("p99.9 ms")
    if all(row[at] == DASH for row in rows):
        header, rows = _without(header, at), [_without(row, at) for row in rows]
    starred = any("*" in row[2] for row in rows)
    busy_note = (
        f"* the generator's process was busy more than {BUSY_SHARE:.0%} of the time." if starred else ""
    )
    return Table(title, header, rows, " ".join(filter(None, (note, busy_note))))


def _without(row: tuple[str, ...], at: int) -> tuple[str, ...]:
    return row[:at] + row[at + 1 :]


def memory_operations(section: Section) -> list[Table]:
    batches = [case for case in section["cases"] if case["items"] > 1]
    per_memory = Table(
        "For each memory of a batch",
        ("call", "memories/s", "CPU ms/memory"),
        [
            (
                case["name"],
                shown(case["figures"]["items_per_s"]),
                shown(case["figures"]["server_cpu_ms_per_item"]),
            )
            for case in batches
        ],
    )
    return [cases("Memory operations", section["cases"]), per_memory]


def search(section: Section) -> list[Table]:
    tables = [
        cases(f"Searches among {each['memories']:,} memories", each["cases"]) for each in section["sizes"]
    ]
    accuracy = [
        (
            f"{each['memories']:,}",
            row["mode"] + (f", filter: {row['filter']}" if row["filter"] else ""),
            row["measure"],
            f"{row['accuracy']:.3f} ({row['found']} of {row['wanted']})",
            number(row["p50_ms"]),
            number(row["p95_ms"]),
            row.get("plan", ""),
        )
        for each in section["sizes"]
        for row in each["accuracy"]
    ]
    tables.append(
        Table(
            "Accuracy, and the wait of one caller",
            ("memories", "search", "measure", "accuracy", "p50 ms", "p95 ms", "plan"),
            accuracy,
            "Memories beyond the dataset's turns are put together of its sentences, so that of many memories "
            "others fit the words asked for as well: what is asked for may not be among ten hits for that.",
        )
    )
    tables.append(_footprint(section))
    fresh = [
        (row["index"], *(shown(row["figures"].get(name)) for name in ("p50_ms", "p95_ms", "max_ms")))
        for row in section["freshness"]
    ]
    tables.append(
        Table(
            "From the acknowledgement of a write until a replica shows it",
            ("index", "p50 ms", "p95 ms", "slowest ms"),
            fresh,
        )
    )
    return tables


def _footprint(section: Section) -> Table:
    rows = []
    for each in section["sizes"]:
        kept = each["footprint"]
        rows += [
            (
                f"{each['memories']:,}",
                node,
                number(kept["stored_bytes"][node] / 1e6),
                number(kept["stored_bytes_per_memory"][node]),
                number(kept["anonymous_bytes"][node] / 1e6),
                number(kept["rss_bytes"][node] / 1e6),
            )
            for node in kept["stored_bytes"]
        ]
    return Table(
        "What the nodes hold",
        ("memories", "node", "disk MB", "disk bytes/memory", "own memory MB", "resident MB"),
        rows,
        "On the disk with the log, with vectors of 256 dimensions, and with indexes on a replica. Resident "
        "counts mapped files, which the system takes back when it needs the room; own memory does not.",
    )


def owners(section: Section) -> list[Table]:
    imports = [
        (f"{each['memories']:,}", f"{each['acknowledged_per_s']:,}", f"{each['searchable_per_s']:,}")
        for each in section["imports"]
    ]
    fresh = section["freshness"]["figures"]
    return [
        cases("Each call on its own", [*section["by_size"], *section["alone"]]),
        cases(f"Calls of one client, among {section['memories']:,} memories", section["together"]),
        Table(
            "Recall@10 of semantic searches, against scoring every memory",
            ("searched", "recall@10"),
            [(name, f"{recall:.3f}") for name, recall in section["recall"].items()],
        ),
        Table(
            "Import in batches, with vectors",
            ("memories", "acknowledged a second", "searchable a second"),
            imports,
        ),
        Table(
            f"From acknowledgement to searchable, at {section['freshness']['wanted_per_s']} writes a second",
            ("writes/s", "p50 ms", "p99 ms"),
            [tuple(shown(fresh[name]) for name in ("writes_per_s", "p50_ms", "p99_ms"))],
        ),
        Table(
            "What a replica takes beside",
            ("what", "figure"),
            _upkeep(section),
            "Own memory is without mapped files. The event loop is looked at forty times a second; when all "
            "cores are busy, what it waits for one of them counts, too.",
        ),
    ]


def _upkeep(section: Section) -> list[tuple[str, str]]:
    own = section["own_bytes"]
    rows = [
        (f"own memory among {own['memories']:,} memories, MB", number(own["bytes"] / 1e6)),
        (
            "for each memory more, bytes",
            f"{own['per_memory']:,}" if "per_memory" in own else DASH,
        ),
        (
            "from the start of the process until it serves, s",
            shown(section["restarts"]["figures"]["serving_s"]),
        ),
    ]
    if "builds" in section:
        builds = section["builds"]["figures"]
        rows += [
            (
                f"search in a scope, {section['builds']['callers']} callers, p99 ms",
                shown(builds["quiet_p99_ms"]),
            ),
            ("while a segment is built", shown(builds["building_p99_ms"])),
            ("times as long", shown(builds["times"])),
            ("such a build, s", shown(builds["built_s"])),
        ]
    rows += [
        (
            f"event loop, {when}: held up the longest, ms; more than 5 ms, of all looks",
            f"≤ {number(loop['longest_ms'])}; {loop['held']} of {loop['looks']:,}",
        )
        for when, loop in section["loop"].items()
    ]
    return rows


def concurrency(section: Section) -> list[Table]:
    users = section["users"]
    made = ", ".join(f"{count:,} {kind}" for kind, count in sorted(users["made"].items()))
    shares = ", ".join(f"{share} % {kind}" for kind, share in section["shares"].items())
    together = Table(
        "One client's calls, apart and together",
        ("call", "callers", "apart/s", "together/s", "times as many", "CPU ms/call apart", "together"),
        _together(section["together"]),
        "Concurrent calls of one kind travel together, unless their client is told otherwise.",
    )
    return [
        cases("Mixed load by the number of callers", section["curve"], f"Operations: {shares}."),
        cases(
            f"{users['callers']} users, {users['operations_of_a_user']:,} operations each",
            [users],
            f"Made in all rounds: {made}.",
        ),
        together,
    ]


def _together(found: Sequence[Section]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for apart in (case for case in found if not case["coalesce"]):
        (other,) = (case for case in found if case["coalesce"] and case["name"] == apart["name"])
        before, after = apart["figures"], other["figures"]
        rows.append(
            (
                apart["name"],
                str(apart["callers"]),
                shown(before["per_s"]),
                shown(after["per_s"]),
                number(after["per_s"]["median"] / before["per_s"]["median"]),
                shown(before["server_cpu_ms"]),
                shown(after["server_cpu_ms"]),
            )
        )
    return rows


def replication(section: Section) -> list[Table]:
    lag, catch_up, snapshot = (section[name]["figures"] for name in ("lag", "catch_up", "snapshot"))
    behind = [
        ("adds per second meanwhile", shown(lag["adds_per_s"])),
        ("commits behind, mean", shown(lag["revisions_mean"])),
        ("commits behind, most", shown(lag["revisions_max"])),
        (
            "ms behind in the store, median; most",
            f"{shown(lag['stored_p50_ms'])}; {shown(lag['stored_max_ms'])}",
        ),
        (
            "ms behind in searches, median; 95 %; most",
            "; ".join(shown(lag[f"searchable_{name}_ms"]) for name in ("p50", "p95", "max")),
        ),
    ]
    rates = [
        ("a replica's start, s", shown(catch_up["start_s"])),
        (
            f"the same with {section['catch_up']['missed']:,} memories missed, s",
            shown(catch_up["start_and_catch_up_s"]),
        ),
        ("memories caught up per second, until searches show them", shown(catch_up.get("memories_per_s"))),
        (f"snapshot of {section['snapshot']['bytes'] / 1e6:,.0f} MB, s", shown(snapshot["seconds"])),
        ("snapshot, MB/s", shown(snapshot["mb_per_s"])),
    ]
    return [
        Table(
            f"Lag of two replicas while {section['lag']['callers']} callers add",
            ("what", "figure"),
            behind,
            "An upper bound: the time of the question how far a replica is counts as lag.",
        ),
        Table("Catching up", ("what", "figure"), rates),
        cases(
            "Searches by the number of replicas",
            section["scaling"],
            "Calls of one client, each on its own. Replicas on one machine share its cores, with the "
            "generator too: more of them than cores cannot bring more.",
        ),
    ]


def cross_check(section: Section) -> list[Table]:
    rows = [
        (
            case["name"],
            shown(case["grpc_aio"]["per_s"]),
            shown(case["h2load"]["per_s"]),
            shown(case["h2load_to_grpc_aio"]),
            shown(case["grpc_aio"]["server_cpu_ms"]),
            shown(case["h2load"]["server_cpu_ms"]),
            shown(case["grpc_aio"]["client_cpu_share"]),
        )
        for case in section["cases"]
    ]
    header = (
        "call",
        "grpc.aio/s",
        "h2load/s",
        "h2load ÷ grpc.aio",
        "CPU ms/call",
        "by h2load",
        "cores used by the generator",
    )
    note = (
        f"{section['h2load']}. Where it makes more calls, the Python generator and not the server is the "
        "limit of the throughput; CPU per call does not depend on it."
        if rows
        else "h2load was not installed (Debian/Ubuntu: nghttp2-client), so the generator was not checked."
    )
    return [Table("The generator against h2load", header, rows, note)]


def soak(section: Section) -> list[Table]:
    rows = [
        (
            node,
            *(f"{number(grown[f'{name}_first'])} → {number(grown[f'{name}_last'])}" for name in GROWING),
            number(grown["anonymous_mb_per_hour"]),
        )
        for node, grown in section["growth"].items()
    ]
    samples = section["samples"]
    errors = sum(section["errors"].values())
    made = ", ".join(f"{count:,} {kind}" for kind, count in sorted(section["made"].items()))
    return [
        Table(
            f"A mixed load of {section['seconds_of_load']:,.0f} s",
            ("node", "own memory MB", "resident MB", "open files", "threads", "own memory MB/hour"),
            rows,
            f"{section['callers']} callers, {section['calls']:,} calls ({made}), {errors:,} errors. At most "
            f"{max(sample['lag_revisions'] for sample in samples):,} commits of lag; level "
            f"{number(section['level_after_s'])} s after the end. The growth is that of the second half, and "
            "memories are added all the time: of a short run it says little.",
        )
    ]


GROWING = ("anonymous_mb", "rss_mb", "open_files", "threads")


def show(table: Table) -> None:
    """Prints a table."""
    terminal.say(f"\n{table.title}")
    if table.rows:
        terminal.table(table.rows, tuple(each.upper() for each in table.header))
    if table.note:
        terminal.say(table.note)
