"""What the figures say, in sentences: each section's outcome before its tables."""

from __future__ import annotations

from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.tables import number, shown


def _case(cases: list[Section], name: str, callers: int | None = None) -> Section:
    return next(case for case in cases if case["name"] == name and callers in (None, case["callers"]))


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _median(case: Section, name: str) -> float:
    value: float = case["figures"][name]["median"]
    return value


def memory_operations(section: Section) -> list[str]:
    cases = section["cases"]
    few, many = (sorted({case["callers"] for case in cases if case["items"] == 1})[at] for at in (0, -1))
    add, get, update = (_case(cases, name, few) for name in ("add", "get", "update"))
    batch = _case(cases, f"add {section['batch']} in a call")
    return [
        f"A caller who is alone waits {number(_median(add, 'p50_ms'))} ms for an add, which is embedded and "
        f"on "
        f"the disk then, {number(_median(update, 'p50_ms'))} ms for an update and "
        f"{number(_median(get, 'p50_ms'))} ms for a get (medians). With {many} callers there are "
        f"{number(_median(_case(cases, 'add', many), 'per_s'))} adds, "
        f"{number(_median(_case(cases, 'update', many), 'per_s'))} updates and "
        f"{number(_median(_case(cases, 'get', many), 'per_s'))} gets a second.",
        f"Of adds with {section['batch']} memories each, {number(_median(batch, 'items_per_s'))} memories a "
        f"second "
        f"are stored: {number(_median(batch, 'server_cpu_ms_per_item'))} ms of CPU for each, instead of "
        f"{number(_median(add, 'server_cpu_ms'))} ms when it comes alone. CPU is that of all nodes, the "
        f"replica "
        "that indexes it too.",
    ]


def search(section: Section) -> list[str]:
    largest = section["sizes"][-1]
    modes = ("exact", "text", "fuzzy", "semantic", "hybrid")
    waits = ", ".join(
        f"{mode} {number(_median(_case(largest['cases'], mode), 'p50_ms'))} ms" for mode in modes
    )
    recalls = [
        row["accuracy"] for each in section["sizes"] for row in each["accuracy"] if row["mode"] == "semantic"
    ]
    fresh = ", ".join(f"{row['index']} {number(_median(row, 'p50_ms'))} ms" for row in section["freshness"])
    one_user = _case(largest["cases"], "hybrid, one user")
    return [
        f"Among {largest['memories']:,} memories and with {largest['cases'][0]['callers']} callers, the "
        f"median wait "
        f"for ten hits is: {waits}. In the memories of one user a hybrid search takes "
        f"{number(_median(one_user, 'p50_ms'))} ms.",
        f"Recall@10 of semantic searches, against scoring every memory, is {_range(recalls)} over all sizes "
        "and filters.",
        f"A write shows on a replica, after its acknowledgement: {fresh} (medians).",
    ]


def owners(section: Section) -> list[str]:
    fresh, last = section["freshness"]["figures"], section["imports"][-1]
    return [
        f"A store of {section['memories']:,} memories, of owners with 20 to 2,000 each; embeddings come with "
        f"memories and questions. Imported in batches, {last['searchable_per_s']:,} memories a second are "
        f"there to be searched. Of {shown(fresh['writes_per_s'])} single writes a second 99 % are in all "
        f"searches {shown(fresh['p99_ms'])} ms after their acknowledgement.",
    ]


def concurrency(section: Section) -> list[str]:
    users = section["users"]
    values = users["figures"]
    best = max(section["curve"], key=lambda case: _median(case, "per_s"))
    together = {
        case["name"]: [_median(each, "per_s") for each in section["together"] if each["name"] == case["name"]]
        for case in section["together"]
    }
    gains = ", ".join(f"{name} {number(after / before)}" for name, (before, after) in together.items())
    failed = sum(users["errors"].values())
    waits = f"{shown(values['p50_ms'])} ms at the median"
    if "p95_ms" in values:
        waits += f" and {shown(values['p95_ms'])} ms at 95 %"
    return [
        f"{users['callers']} users with {users['operations_of_a_user']:,} mixed operations each do "
        f"{shown(values['per_s'])} operations a second; they wait {waits}. Of {users['calls']:,} operations "
        f"{failed:,} failed.",
        f"Of the numbers of callers that were tried, {best['callers']} had the most: "
        f"{number(_median(best, 'per_s'))} operations a second.",
        f"That calls of one client travel together brings so many times as many a second: {gains}.",
    ]


def replication(section: Section) -> list[str]:
    lag, catch_up, snapshot = (section[name]["figures"] for name in ("lag", "catch_up", "snapshot"))
    scaling = ", ".join(
        f"{case['replicas']}: {number(_median(case, 'per_s'))}" for case in section["scaling"]
    )
    sentences = [
        f"While {number(lag['adds_per_s']['median'])} memories a second are added one by one, the stores of "
        f"replicas are {number(lag['stored_p50_ms']['median'])} ms behind at the median, and their searches "
        f"{number(lag['searchable_p50_ms']['median'])} ms.",
        f"A snapshot is copied at {number(snapshot['mb_per_s']['median'])} MB a second.",
        f"Hybrid searches a second by replicas: {scaling}.",
    ]
    if "memories_per_s" in catch_up:
        sentences.insert(
            1,
            f"A replica that was away catches up {number(catch_up['memories_per_s']['median'])} memories a "
            f"second "
            "until its searches show them.",
        )
    return [" ".join(sentences)]


def cross_check(section: Section) -> list[str]:
    if not section["cases"]:
        return []
    said = ", ".join(
        f"{number(case['h2load_to_grpc_aio']['median'])} times as many of {case['name']}"
        for case in section["cases"]
    )
    return [f"h2load, a generator in C, makes {said} as grpc.aio in Python does."]


def soak(section: Section) -> list[str]:
    samples = section["samples"]
    rates = [each["per_s"] for each in samples]
    grown = ", ".join(
        f"{node} {number(each['anonymous_mb_first'])} → {number(each['anonymous_mb_last'])} MB"
        for node, each in section["growth"].items()
    )
    files = ", ".join(
        f"{node} {each['open_files_first']:.0f} → {each['open_files_last']:.0f}"
        for node, each in section["growth"].items()
    )
    return [
        f"In {section['seconds_of_load']:,.0f} s of load there were {section['calls']:,} calls, "
        f"{sum(section['errors'].values()):,} of which failed; {number(min(rates))} to {number(max(rates))} "
        f"a second. Own memory went from and to: {grown}. Open files: {files}.",
    ]


def key_figures(name: str, section: Section) -> list[tuple[str, str]]:
    """The figures of a section that a reader looks for first."""
    if name == "memory_operations":
        cases = section["cases"]
        few, many = (sorted({case["callers"] for case in cases if case["items"] == 1})[at] for at in (0, -1))
        waits = [
            row
            for call in ("get", "add", "update")
            for row in _waits(f"{call}: wait of {few} caller", _case(cases, call, few))
        ]
        rates = [
            (f"{call}: per second with {many} callers", shown(_case(cases, call, many)["figures"]["per_s"]))
            for call in ("get", "add", "update")
        ]
        return waits + rates
    if name == "search":
        largest = section["sizes"][-1]
        modes = [
            row
            for mode in ("text", "semantic", "hybrid")
            for row in _waits(
                f"{mode} search among {largest['memories']:,} memories", _case(largest["cases"], mode)
            )
        ]
        recalls = [row["accuracy"] for row in largest["accuracy"] if row["mode"] == "semantic"]
        return [
            *modes,
            ("recall@10 of semantic searches there, lowest of the filters", f"{min(recalls):.3f}"),
        ]
    if name == "concurrency":
        users = section["users"]
        return [
            (
                f"{users['callers']} users with {users['operations_of_a_user']:,} mixed operations each, "
                f"per second",
                shown(users["figures"]["per_s"]),
            ),
            *_waits("their waits", users),
            ("their operations that failed", f"{sum(users['errors'].values()):,} of {users['calls']:,}"),
        ]
    if name == "replication":
        return [
            (
                "searches behind the writer under load, median ms",
                shown(section["lag"]["figures"]["searchable_p50_ms"]),
            ),
        ]
    return []


def _waits(what: str, case: Section) -> list[tuple[str, str]]:
    return [(f"{what}, {name}, ms", shown(case["figures"].get(f"{name}_ms"))) for name in ("p50", "p95")]
