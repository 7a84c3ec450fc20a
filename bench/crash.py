"""Kills of the writer, power cuts and failing disks: exit code 1 when anything acknowledged is lost.

    make crash
    PYTHONPATH=tests python bench/crash.py [--kills N] [--images N] [--fault-calls N] [--seed TEXT] [--json]

Kills: a writer with several writing clients is killed with SIGKILL again and again, and has to serve after
each restart what it acknowledged. Power cuts: the calls of recorded runs are turned into images of what the
disk may hold after a cut, and each must be a sound store with all that was acknowledged by then; runs of
writers that leave out syncs must lose some, or the images prove nothing. Faults: calls on the data file fail
or write half, one by one, and the disk fills up; no answer may be wrong, and a cut after the fault must not
lose anything either.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from disk_shim import Fault, NoShim, build_shim, slow_syncs
from io_faults import FaultResult, ends_writer, run_fault
from kill_loop import kill_loop
from power_cut import Checked, check_images, fast_folder, keep, record

from agentmem.cli import terminal

PROCESSES = 2
CLIENTS = 6
WRITES = 150
IMAGES_OF_A_RUN = 250
IMAGES_OF_A_FAULT = 20
FULL_DISKS = 4
SHOWN_PROBLEMS = 10
PROGRESS_INTERVAL_S = 10.0
CALL_NAMES = {"w": "page write", "m": "meta page write", "s": "sync"}


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line on standard error every ten seconds. For any thread."""
    done, began_s = 0, time.monotonic()
    told_s = began_s
    lock = threading.Lock()

    def advance(amount: int) -> None:
        nonlocal done, told_s
        with lock:
            on_bar(amount)
            done += amount
            now_s = time.monotonic()
            if not sys.stderr.isatty() and (now_s >= told_s + PROGRESS_INTERVAL_S or done == total):
                told_s = now_s
                terminal.note(f"{what}: {done} of {total} after {now_s - began_s:.0f} s")

    with terminal.progress(what, total) as on_bar:
        yield advance


@dataclass(slots=True)
class Findings:
    """What is printed: rows for people, numbers for programs, and what is not as it should be."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def kills(library: Path, count: int, seed: str, findings: Findings) -> None:
    """Kills and restarts."""
    with (
        tempfile.TemporaryDirectory(prefix="agentmem-kills-") as folder,
        progress("kill -9", count) as on_progress,
    ):
        result = kill_loop(
            Path(folder),
            kills=count,
            seed=seed,
            environment=slow_syncs(library),
            on_progress=on_progress,
        )
    restarts = sorted(result.restart_s)
    seen = {
        "median": statistics.median(restarts),
        "p95": restarts[int(0.95 * (len(restarts) - 1))],
        "max": restarts[-1],
    }
    findings.numbers["kills"] = {
        "kills": result.kills,
        "acknowledged": result.acknowledged,
        "unanswered": result.unanswered,
        "restart_s": seen,
        "problems": len(result.problems),
    }
    findings.rows.append(
        (
            "kill -9",
            f"{result.kills} kills, {result.acknowledged} writes acknowledged, {result.unanswered} cut off, "
            f"{len(result.problems)} lost or halved; restart "
            + ", ".join(f"{name} {value:.2f} s" for name, value in seen.items()),
        )
    )
    findings.problems += [f"kill -9: {problem}" for problem in result.problems]


def power_cuts(folder: Path, library: Path, images: int, seed: str, findings: Findings) -> None:
    """Images of recorded runs, and of those of writers without syncs."""
    total = Counter[str]()
    with progress("power cuts", images) as on_progress:
        while total["images"] < images:
            number = total["runs"]
            place, run_seed = folder / f"run-{number}", f"{seed}/{number}"
            recording = record(place, library, seed=run_seed, clients=CLIENTS, writes=WRITES)
            checked = check_images(
                recording,
                place,
                images=min(IMAGES_OF_A_RUN, images - total["images"]),
                seed=run_seed,
                processes=PROCESSES,
                on_progress=on_progress,
            )
            total.update(_numbers(checked) | {"runs": 1, "acknowledged": recording.acknowledged()})
            if not checked.faultless:
                findings.problems.append(f"power cuts: {checked.summary()}; {keep(recording, run_seed)}")
            shutil.rmtree(place)
    findings.numbers["power_cuts"] = dict(total)
    findings.rows.append(
        ("power cuts", f"{total['runs']} runs, {total['acknowledged']} writes acknowledged, {_told(total)}")
    )


def controls(folder: Path, library: Path, seed: str, findings: Findings) -> None:
    """Writers that do not sync: the images must show it."""
    for without in ("sync", "metasync"):
        recording = record(
            folder / without,
            library,
            seed=seed,
            clients=CLIENTS,
            writes=WRITES,
            module="unsynced_server",
            environment={"WITHOUT": without},
        )
        checked = check_images(
            recording, folder / without, images=IMAGES_OF_A_RUN, seed=seed, processes=PROCESSES
        )
        findings.numbers[f"without_{without}"] = _numbers(checked)
        findings.rows.append((f"control: no {without}", _told(_numbers(checked))))
        shutil.rmtree(folder / without)
        if not checked.losses:
            findings.problems.append(f"a writer without {without} lost nothing: the images prove nothing")


def _numbers(checked: Checked) -> dict[str, int]:
    return {"images": checked.images, "damaged": len(checked.damaged), "lossy": len(checked.losses)}


def _told(numbers: Mapping[str, int]) -> str:
    return (
        f"{numbers['images']} images: {numbers['damaged']} damaged, "
        f"{numbers['lossy']} without something acknowledged"
    )


def disk_faults(folder: Path, library: Path, calls: int, seed: str, findings: Findings) -> None:
    """Each of the first calls fails in each way; and disks that are full for a while."""
    points = [Fault(kind, nth=nth) for kind in ("EIO", "ENOSPC", "SHORT") for nth in range(1, calls + 1)]
    points += [Fault("ENOSPC", names, nth, lasting=True) for names in CALL_NAMES for nth in range(1, 5)]
    points += [Fault("FULL", lasting=True)] * FULL_DISKS
    outcomes: Counter[tuple[str, str, str]] = Counter()
    images = 0
    with (
        progress("disk faults", len(points)) as on_progress,
        ThreadPoolExecutor(PROCESSES) as threads,
    ):
        checks = [
            threads.submit(_check_fault, folder / f"fault-{number}", library, fault, f"{seed}/{number}")
            for number, fault in enumerate(points)
        ]
        try:
            for check in checks:
                outcome, checked_images, problems = check.result()
                outcomes[outcome] += 1
                images += checked_images
                findings.problems += problems
                on_progress(1)
        finally:
            threads.shutdown(cancel_futures=True)
    findings.numbers["faults"] = {
        "points": len(points),
        "images": images,
        "outcomes": [
            {"fault": kind, "call": call, "outcome": outcome, "points": count}
            for (kind, call, outcome), count in sorted(outcomes.items())
        ],
    }
    findings.rows += [
        (f"{kind}, {call}", f"{count} times: {outcome}")
        for (kind, call, outcome), count in sorted(outcomes.items())
    ]
    findings.rows.append(("cuts after faults", f"{images} images"))


def _check_fault(
    place: Path, library: Path, fault: Fault, seed: str
) -> tuple[tuple[str, str, str], int, list[str]]:
    """The outcome, how many images of cuts after the fault were checked, and what is wrong."""
    try:
        result = run_fault(place, library, fault, seed, clients=1 if fault.nth % 2 else 3)
    except (AssertionError, grpc.RpcError, subprocess.TimeoutExpired) as error:
        return (fault.kind, "", "failed"), 0, [f"{fault}: {error}"]
    call = CALL_NAMES[result.call]
    problems = [f"{fault} on a {call}: {problem}" for problem in result.problems]
    if result.exit_code != (1 if ends_writer(fault, result.call) else None):
        problems.append(f"{fault} on a {call}: the exit code is {result.exit_code}")
    checked = check_images(result.recording, place, images=IMAGES_OF_A_FAULT, seed=seed, processes=1)
    if not checked.faultless:
        problems.append(f"{fault}, then a cut: {checked.summary()}; {keep(result.recording, seed)}")
    shutil.rmtree(place)
    return _outcome(result), checked.images, problems


def _outcome(result: FaultResult) -> tuple[str, str, str]:
    kind = f"{result.fault.kind}{' for a while' if result.fault.lasting else ''}"
    if result.exit_code is not None:
        outcome = f"callers told COMMIT_FAILED, exit {result.exit_code}"
    elif result.errors:
        outcome = "writes refused with STORE_FULL, then taken again"
    else:
        outcome = "taken command by command at once"
    return kind, CALL_NAMES[result.call], outcome


def run(arguments: argparse.Namespace) -> Findings:
    """Everything that the arguments ask for."""
    findings = Findings()
    start_s = time.monotonic()
    with fast_folder() as folder:
        library = build_shim(folder)
        if arguments.images:
            controls(folder, library, arguments.seed, findings)
            power_cuts(folder, library, arguments.images, arguments.seed, findings)
        if arguments.fault_calls:
            disk_faults(folder, library, arguments.fault_calls, arguments.seed, findings)
        if arguments.kills:
            kills(library, arguments.kills, arguments.seed, findings)
    findings.numbers["seed"] = arguments.seed
    findings.numbers["duration_s"] = round(time.monotonic() - start_s, 1)
    findings.numbers["problems"] = findings.problems
    return findings


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kills, power cuts and disk faults; exit 1 for any loss.")
    parser.add_argument("--kills", type=int, default=200, help="kills of the writer (%(default)s)")
    parser.add_argument("--images", type=int, default=4000, help="images of power cuts (%(default)s)")
    parser.add_argument("--fault-calls", type=int, default=40, help="calls that fail, each (%(default)s)")
    parser.add_argument("--seed", default="crash", help="for all that is random (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args(words)
    # So that the processes started here are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        findings = run(arguments)
    except NoShim as error:
        terminal.fail(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if arguments.json:
        print(json.dumps(findings.numbers, indent=2))
    else:
        terminal.table([*findings.rows, ("took", f"{findings.numbers['duration_s']:.0f} s")])
        terminal.say(f"seed {arguments.seed}; {len(findings.problems) or 'no'} problems")
        for problem in findings.problems[:SHOWN_PROBLEMS]:
            terminal.fail(problem)
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
