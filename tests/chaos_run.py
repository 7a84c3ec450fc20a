"""One run of chaos: a cluster, clients, faults, and what the checker says of all that was seen."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from chaos_faults import ChaosCluster, FaultCounts, Faults, set_aside_files
from chaos_load import Load
from chaos_worker import Recorded, counter_of
from session_checker import Findings, History, Outcome, Read, Version, Violation, Write, check
from store_scan import Scan, check_level, check_scan, scan

from agentmem.core.environment import page_problems
from agentmem.core.store import Store
from agentmem.core.verification import verify

MIB = 1024**2
GIB = 1024**3
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        operations: calls of clients.
        rounds: how often the load and the faults rest until all nodes agree.
        max_log_bytes: of each node: small, so that nodes that come back need snapshots.
        weights: of faults, by kind; the usual ones when None.
    """

    seed: str
    operations: int
    rounds: int = 4
    replicas: int = 3
    sessions: int = 24
    readers: int = 4
    max_log_bytes: int = MIB // 2
    weights: dict[str, int] | None = None


@dataclass(slots=True)
class ChaosResult:
    """What a run saw. ``agreement_s``: how long after each round all nodes took to agree."""

    recorded: Recorded
    faults: FaultCounts
    findings: Findings = field(default_factory=Findings)
    history: History = field(default_factory=History)
    agreement_s: list[float] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def violations(self) -> list[Violation]:
        return self.findings.violations

    def outcomes(self) -> Counter[str]:
        """Writes by what became of them."""
        return Counter(each.outcome.value for each in self.recorded.operations if isinstance(each, Write))

    def longest_gap_s(self, kind: type[Write] | type[Read]) -> float:
        """The longest time in which no write was acknowledged, or no read answered."""
        times = sorted(
            each.ended_s
            for each in self.recorded.operations
            if isinstance(each, kind) and (isinstance(each, Read) or each.outcome is Outcome.ACKNOWLEDGED)
        )
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def latencies_ms(self, kind: type[Write] | type[Read]) -> dict[str, float]:
        """Median and p99 of calls that were answered."""
        times = sorted(
            (each.ended_s - each.begun_s) * 1000
            for each in self.recorded.operations
            if isinstance(each, kind) and (isinstance(each, Read) or each.outcome is Outcome.ACKNOWLEDGED)
        )
        return {"median": statistics.median(times), "p99": times[int(0.99 * (len(times) - 1))]}


def run(folder: Path, plan: Plan, on_progress: Callable[[int], None] = lambda _: None) -> ChaosResult:
    """Runs it in an empty folder. The diary and what was found are left there, in ``diary.txt``."""
    begun_s = time.monotonic()
    cluster = ChaosCluster(
        folder,
        replicas=plan.replicas,
        flags=("--embedder", "none", "--max-log-bytes", str(plan.max_log_bytes)),
    )
    load = Load(
        [node.address for node in cluster.nodes],
        seed=plan.seed,
        operations=plan.operations,
        sessions=plan.sessions,
        readers=plan.readers,
    )
    faults = Faults(cluster, seed=plan.seed, weights=plan.weights)
    result = ChaosResult(load.recorded, faults.counts)
    try:
        load.start()
        for number in range(plan.rounds):
            faults.start()
            _wait_for(load, plan.operations * (number + 1) // plan.rounds, on_progress)
            faults.stop()
            load.pause()
            _agree(cluster, result, load, is_last=number == plan.rounds - 1)
            load.resume()
        faults.check_alive()
        for node in cluster.nodes:
            faults.end(node)
        _compare(cluster, result)
    finally:
        cluster.stop()
        result.duration_s = time.monotonic() - begun_s
        (folder / "diary.txt").write_text("\n".join(result.faults.diary) + "\n", encoding="utf-8")
    for kind, problems in (("error", load.recorded.surprises), ("process", faults.counts.problems)):
        result.findings.violations += [Violation(kind, problem) for problem in problems]
    with open(folder / "diary.txt", "a", encoding="utf-8") as file:
        file.writelines(f"{each.kind}: {each.text}\n" for each in result.violations)
    return result


def _wait_for(load: Load, operations: int, on_progress: Callable[[int], None]) -> None:
    seen = load.done
    while seen < operations and not load.is_done:
        time.sleep(POLL_S)
        on_progress(load.done - seen)
        seen = load.done


def _agree(cluster: ChaosCluster, result: ChaosResult, load: Load, *, is_last: bool) -> None:
    begun_s = time.monotonic()
    position = None
    try:
        position = cluster.wait_agreement()
    except AssertionError as error:
        result.faults.problems.append(f"not converged: {error}")
    result.agreement_s.append(time.monotonic() - begun_s)
    result.faults.diary.append(f"{time.monotonic():.3f} agreed: {position}")
    if is_last:
        load.finish(position.revision if position is not None else 0)


def _compare(cluster: ChaosCluster, result: ChaosResult) -> None:
    """The stores with each other, and with all that was seen."""
    scans = []
    for node in cluster.nodes:
        store_path = node.data_dir / "store"
        problems = page_problems(store_path)
        store = Store(store_path, map_size_bytes=64 * MIB, max_map_size_bytes=GIB)
        try:
            problems += verify(store).problems
            found = scan(store)
            with store.read() as transaction:
                epochs = list(transaction.epochs())
        finally:
            store.close()
        result.faults.problems += [f"{node.name}: {problem}" for problem in problems]
        scans.append(found)
        try:
            check_scan(found)
            check_level(found, scans[0])
        except AssertionError as error:
            result.faults.problems.append(f"{node.name} is not as {cluster.nodes[0].name}: {error!r}")
    result.history = History(
        operations=result.recorded.operations,
        watched=result.recorded.watched,
        epochs=epochs,
        promoted=sorted(result.faults.promoted.items()),
        stored=_versions(scans[0]),
        set_aside=_set_aside(set_aside_files(cluster)),
        handed_over=frozenset(result.faults.handed_over),
        may_lose_replicated=frozenset(result.faults.may_lose_replicated),
    )
    result.findings = check(result.history)


def _versions(found: Scan) -> list[Version]:
    return [
        Version(
            record.revision,
            (record.memory.namespace, record.memory.id),
            record.memory.version,
            None if record.is_tombstone else counter_of(record.memory.content),
        )
        for record in found.records.values()
    ]


def _set_aside(paths: Sequence[Path]) -> list[Version]:
    versions = []
    for path in paths:
        for text in path.read_text(encoding="utf-8").splitlines()[1:]:
            line = json.loads(text)
            if line["kind"] in ("put", "delete"):
                memory = line["memory"]
                versions.append(
                    Version(
                        line["revision"],
                        (memory["namespace"], memory["id"]),
                        int(memory["version"]),
                        counter_of(memory["content"]) if line["kind"] == "put" else None,
                    )
                )
    return versions
