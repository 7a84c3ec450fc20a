"""Random calls while nodes die, hang, come back and take over: exit code 1 when a promise was broken.

    make chaos
    PYTHONPATH=tests python bench/chaos.py [--operations N] [--rounds N] [--broken NAME]
        [--faults [NAME ...]] [--seed TEXT] [--keep FOLDER] [--json]

A writer and three replicas are killed, stopped for a while, restarted, emptied and promoted, two at a time.
Meanwhile clients write and read in sessions, with bounds on staleness and without, and watch every change. A
checker compares all that was answered with what was promised, and the stores with each other. Now and then
everything rests until all nodes agree.

With ``--broken`` a build is used in which one promise is broken on purpose; the exit code is 0 when that was
noticed. "all" tries one after the other.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broken_builds import BREAKAGES, run_broken
from chaos_faults import WEIGHTS
from chaos_run import ChaosResult, Plan, run
from session_checker import Read, Write

from agentmem.cli import terminal

SHOWN_PROBLEMS = 10
BROKEN_TIMEOUT_S = 1800.0
MIN_MEMORY_BYTES = 4 * 1024**3


def numbers_of(result: ChaosResult) -> dict[str, Any]:
    """For programs."""
    recorded, faults = result.recorded, result.faults
    return {
        "duration_s": round(result.duration_s, 1),
        "calls": dict(recorded.calls),
        "writes": dict(result.outcomes()),
        "sessions": recorded.sessions,
        "lost_sessions": recorded.lost_sessions,
        "failed_calls": {" ".join(kind): count for kind, count in sorted(recorded.failures.items())},
        "faults": dict(faults.faults),
        "promotions": dict(faults.outcomes),
        "epochs": len(result.history.epochs) + 1,
        "changes_watched": sum(len(part.changes) for part in recorded.watched),
        "watches": len(recorded.watched),
        "lost_writes": result.findings.lost_writes,
        "lost_replicated": result.findings.lost_replicated,
        "set_aside": len(result.history.set_aside),
        "superseded_reads": len(result.findings.superseded_reads),
        "agreement_s": [round(each, 2) for each in result.agreement_s],
        "longest_without_write_s": round(result.longest_gap_s(Write), 2),
        "longest_without_read_s": round(result.longest_gap_s(Read), 2),
        "write_ms": result.latencies_ms(Write),
        "read_ms": result.latencies_ms(Read),
        "violations": dict(Counter(each.kind for each in result.violations)),
    }


def rows_of(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    return [
        ("calls", f"{sum(numbers['calls'].values())}: {_counts(numbers['calls'])}"),
        ("writes", _counts(numbers["writes"])),
        ("failed calls", _counts(numbers["failed_calls"])),
        ("faults", f"{sum(numbers['faults'].values())}: {_counts(numbers['faults'])}"),
        ("promotions", f"{_counts(numbers['promotions'])}; {numbers['epochs']} epochs"),
        (
            "left behind",
            f"{numbers['lost_writes']} acknowledged writes, {numbers['lost_replicated']} of them replicated; "
            f"{numbers['set_aside']} versions set aside; told to {numbers['lost_sessions']} of "
            f"{numbers['sessions']} sessions",
        ),
        ("old writers", f"{numbers['superseded_reads']} memories shown as of before the promotion"),
        ("watches", f"{numbers['changes_watched']} changes in {numbers['watches']} watches"),
        ("all nodes agree", ", ".join(f"{each:.1f} s" for each in numbers["agreement_s"])),
        (
            "longest without",
            f"a write {numbers['longest_without_write_s']:.1f} s, "
            f"a read {numbers['longest_without_read_s']:.1f} s",
        ),
        ("latency of writes", _milliseconds(numbers["write_ms"])),
        ("latency of reads", _milliseconds(numbers["read_ms"])),
        ("violations", _counts(numbers["violations"])),
        ("took", f"{numbers['duration_s']:.0f} s"),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _milliseconds(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in values.items())


def check_broken(names: Sequence[str], arguments: argparse.Namespace) -> int:
    """Runs broken builds; how many of them went unnoticed."""
    unnoticed = 0
    for name in names:
        breakage = BREAKAGES[name]
        flags = ["--operations", str(arguments.operations), "--rounds", str(arguments.rounds)]
        if breakage.faults:
            flags += ["--faults", *breakage.faults]
        with tempfile.TemporaryDirectory(prefix="agentmem-broken-") as folder:
            done = run_broken(
                Path(folder), breakage, [*flags, "--seed", arguments.seed, "--json"], BROKEN_TIMEOUT_S
            )
        try:
            violations = json.loads(done.stdout)["violations"]
        except (ValueError, KeyError):
            terminal.fail(f"{name}: exit code {done.returncode}: {done.stderr[-2000:]}")
            unnoticed += 1
            continue
        unnoticed += not violations
        terminal.table([(name, breakage.what, _counts(violations) if violations else "NOT NOTICED")])
    return unnoticed


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Random calls under random faults; exit 1 for any violation."
    )
    parser.add_argument("--operations", type=int, default=100_000, help="calls of clients (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="rests until all nodes agree (%(default)s)")
    parser.add_argument("--broken", choices=["all", *BREAKAGES], help="with one promise broken on purpose")
    parser.add_argument("--faults", nargs="*", choices=WEIGHTS, help="only these; without any: none")
    parser.add_argument("--seed", default="chaos", help="for all that is random (%(default)s)")
    parser.add_argument(
        "--keep", type=Path, help="new folder for logs and stores; kept anyway after a problem"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args(words)
    # So that the processes started here are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments.broken:
            names = list(BREAKAGES) if arguments.broken == "all" else [arguments.broken]
            return 1 if check_broken(names, arguments) else 0
        return _run(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(arguments: argparse.Namespace) -> int:
    folder = arguments.keep or _new_folder()
    plan = Plan(
        seed=arguments.seed,
        operations=arguments.operations,
        rounds=arguments.rounds,
        weights=None if arguments.faults is None else {kind: WEIGHTS[kind] for kind in arguments.faults},
    )
    with terminal.progress("calls", plan.operations) as on_progress:
        result = run(folder, plan, on_progress)
    numbers = numbers_of(result) | {"seed": arguments.seed}
    if arguments.json:
        print(json.dumps(numbers, indent=2))
    else:
        terminal.table(rows_of(numbers))
        terminal.say(f"seed {arguments.seed}; {len(result.violations) or 'no'} violations")
    for violation in result.violations[:SHOWN_PROBLEMS]:
        terminal.fail(f"{violation.kind}: {violation.text}")
    if result.violations:
        terminal.note(f"logs, diary and stores are in {folder}")
    elif not arguments.keep:
        shutil.rmtree(folder)
    return 1 if result.violations else 0


def _new_folder() -> Path:
    """In memory where there is room: kill -9 takes nothing from it, and a disk that others use is slow."""
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free >= MIN_MEMORY_BYTES
    return Path(tempfile.mkdtemp(prefix="agentmem-chaos-", dir=memory if is_roomy else None))


if __name__ == "__main__":
    sys.exit(main())
