"""``python -m agentmem.bench quick``: in a minute, whether calls have become dearer than the baseline says.

Exit code 1 when one is beyond the noise of the baseline, twice in a row; with ``--tolerate 2`` only when it
is also more than twice as dear. Exit code 2 when the baseline cannot be compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentmem.bench.suite import document, memory_operations, regression, searching
from agentmem.bench.suite.callers import Call
from agentmem.bench.suite.corpus import Corpus
from agentmem.bench.suite.empty_server import EmptyServer
from agentmem.bench.suite.nodes import CLIENT_TIMEOUT_S, Nodes
from agentmem.bench.suite.regression import BaselineError, Comparison, Verdict
from agentmem.bench.suite.scale import MIN_ROUNDS, Scale
from agentmem.bench.suite.workbench import Workbench
from agentmem.cli import terminal
from agentmem.client import AsyncClient

BASELINE = Path("bench/baseline.json")
SCALE = Scale(rounds=5, seconds=1.0)
_QUESTIONS = 200

Ratios = dict[str, float]


@dataclass(frozen=True)
class Case:
    """A kind of call. ``together``: whether concurrent calls travel together, as they do by default."""

    name: str
    call: Callable[[Workbench, AsyncClient], Call]
    callers: int = 8
    is_write: bool = False
    together: bool = False


def _search(mode: str, *, by_user: bool = False) -> Callable[[Workbench, AsyncClient], Call]:
    def of(bench: Workbench, client: AsyncClient) -> Call:
        asked = bench.corpus.searchable(_QUESTIONS, among=bench.scale.memories)
        namespace = memory_operations.NAMESPACE
        return searching.search(client, bench.corpus, asked, mode, by_user=by_user, namespace=namespace)

    return of


CASES = (
    Case("get", memory_operations.get),
    Case("get, together", memory_operations.get, callers=32, together=True),
    Case("get 100", memory_operations.get_batch, callers=2),
    Case("search text", _search("text")),
    Case("search semantic", _search("semantic")),
    Case("search hybrid of a user", _search("hybrid", by_user=True)),
    Case("add", memory_operations.add, is_write=True),
    Case("add 100", memory_operations.add_batch, callers=2, is_write=True),
)


async def ratios(bench: Workbench, only: Collection[str] = ()) -> Ratios:
    """The CPU of each case, of the nodes and of the client, as so many times that of an empty call.

    Args:
        only: the names of cases; all of them when empty.
    """
    async with bench.running(replicas=1) as (nodes, client):
        await bench.load(client, memory_operations.NAMESPACE, 0, bench.scale.memories)
        await nodes.settle()
        found: Ratios = {}
        for case in CASES:
            if not only or case.name in only:
                found |= await _ratios_of(bench, nodes, case)
        return found


async def _ratios_of(bench: Workbench, nodes: Nodes, case: Case) -> Ratios:
    endpoints = nodes.cluster.endpoints()
    async with AsyncClient(*endpoints, timeout_s=CLIENT_TIMEOUT_S, coalesce=case.together) as client:
        measured = await bench.meter(nodes).measure(
            case.name, case.call(bench, client), callers=case.callers, is_write=case.is_write
        )
    if measured["errors"]:
        raise RuntimeError(f"{case.name} had errors: {measured['errors']}")
    # What else the machine does only adds to the CPU of a call, so the lowest run says most of the code.
    low = {name: figure["low"] for name, figure in measured["figures"].items()}
    if not low["empty_server_cpu_ms"]:
        raise RuntimeError("the empty calls took less than the clock can tell: measure for longer")
    return {
        f"{case.name}: nodes": low["server_cpu_ms"] / low["empty_server_cpu_ms"],
        f"{case.name}: client": low["client_cpu_ms"] / low["empty_client_cpu_ms"],
    }


def _case_of(name: str) -> str:
    return name.rpartition(":")[0]


def _measure(only: Collection[str] = (), scale: Scale = SCALE) -> Ratios:
    with EmptyServer() as empty:
        return asyncio.run(ratios(Workbench(scale, Corpus(), empty, lambda text: None), only))


def _record(path: Path, recordings: int) -> int:
    measured = []
    for number in range(1, recordings + 1):
        terminal.note(f"measurement {number} of {recordings}")
        measured.append(_measure())
    begun = document.begin(SCALE, Corpus().name)
    baseline = regression.recorded(measured, machine=begun["machine"], software=begun["software"])
    path.write_text(json.dumps(baseline, indent=1) + "\n", encoding="utf-8")
    rows = [
        (name, f"{each['ratio']:.2f}", f"{each['band']:.0%}") for name, each in baseline["ratios"].items()
    ]
    terminal.table(rows, ("CALL", "TIMES AN EMPTY CALL", "BAND"))
    return 0


def check(baseline_path: Path, tolerated: float | None, measure: Callable[[Collection[str]], Ratios]) -> int:
    """Measures, once more what is beyond its band, and compares; returns the exit code."""
    try:
        baseline = regression.load(baseline_path)
        measured = measure(())
        comparisons = regression.compare(baseline, measured)
        beyond = {_case_of(each.name) for each in comparisons if each.verdict is Verdict.BEYOND}
        if beyond:
            terminal.note(f"measuring again what is beyond its band: {', '.join(sorted(beyond))}")
            again = measure(beyond)
            measured |= {name: min(ratio, measured[name]) for name, ratio in again.items()}
            comparisons = regression.compare(baseline, measured)
    except BaselineError as error:
        terminal.fail(str(error))
        return 2
    _show(comparisons)
    return regression.exit_code(comparisons, tolerated)


def _show(comparisons: Sequence[Comparison]) -> None:
    rows = [
        (
            each.name,
            f"{each.ratio:.2f}",
            f"{each.was:.2f}",
            f"{each.factor - 1:+.0%}",
            f"±{each.band:.0%}",
            each.verdict,
        )
        for each in comparisons
    ]
    terminal.table(rows, ("CALL", "TIMES AN EMPTY CALL", "BASELINE", "CHANGE", "BAND", ""))
    if any(each.verdict is Verdict.BETTER for each in comparisons):
        terminal.say("Some are cheaper than the baseline: make bench-baseline records a new one.")


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m agentmem.bench quick", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--baseline", type=Path, default=BASELINE, help=f"default: {BASELINE}")
    parser.add_argument(
        "--record",
        type=int,
        metavar="N",
        help=f"measure N times, at least {regression.MIN_RECORDINGS}, and write it",
    )
    parser.add_argument(
        "--tolerate", type=float, metavar="FACTOR", help="fail only beyond so many times the baseline"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=SCALE.rounds,
        help=f"runs of each call, of which the lowest counts; default: {SCALE.rounds}",
    )
    given = parser.parse_args(words)
    if given.rounds < MIN_ROUNDS:
        parser.error(f"--rounds must be at least {MIN_ROUNDS}")
    if given.record is not None:
        if given.record < regression.MIN_RECORDINGS:
            parser.error(f"--record must be at least {regression.MIN_RECORDINGS}")
        return _record(given.baseline, given.record)
    scale = replace(SCALE, rounds=given.rounds)
    return check(given.baseline, given.tolerate, lambda only: _measure(only, scale))


if __name__ == "__main__":
    sys.exit(main())
