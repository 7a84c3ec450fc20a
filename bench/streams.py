"""Streams that are cut and streams that are left: exit code 1 when anything was lost or stays behind.

    make streams
    PYTHONPATH=tests python bench/streams.py [--entries N] [--cancelled N] [--json]

First a replica follows a writer over a connection that ends behind every entry, or within the one after it;
its log and its rows have to be the writer's. Then callers open streams of every kind on a writer and on a
replica and cancel them; tasks, open files and memory have to be what they were.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cancelled_streams import KEPT_STREAM_BYTES, check_tasks_end, resources_around
from stream_faults import cut_at_every_frame

from agentmem.cli import terminal

MEGABYTE = 1_000_000


def cut(folder: Path, entries: int) -> dict[str, Any]:
    cuts = cut_at_every_frame(folder, entries=entries)
    return {"entries": entries, "connections": cuts.connections, "resumed_behind": len(set(cuts.asked))}


def cancel_and_count_tasks(folder: Path, streams: int) -> dict[str, Any]:
    tasks = check_tasks_end(folder, streams)
    return {"streams": streams, "tasks_before_and_after": tasks}


def cancel_and_measure(folder: Path, streams: int) -> dict[str, Any]:
    """A first round, in which caches fill, and a second one, after which there has to be what was before."""
    first, second = resources_around(folder, streams, rounds=2)
    numbers: dict[str, Any] = {"streams_a_round": streams}
    for name, before, after in zip(("writer", "replica"), first, second, strict=True):
        grown_bytes = after.memory_bytes - before.memory_bytes
        assert grown_bytes < streams * KEPT_STREAM_BYTES, f"the {name} keeps {grown_bytes} bytes"
        numbers |= {
            f"{name}_mb": [round(each.memory_bytes / MEGABYTE, 1) for each in (before, after)],
            f"{name}_file_handles": [each.file_handles for each in (before, after)],
        }
    return numbers


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Cut and cancelled streams; exit 1 if anything is left.")
    parser.add_argument("--entries", type=int, default=1_000, help="to ship and to cut at (%(default)s)")
    parser.add_argument("--cancelled", type=int, default=10_000, help="streams to cancel (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args(words)
    parts: list[tuple[str, Callable[[Path, int], dict[str, Any]], int]] = [
        ("cut at every frame", cut, arguments.entries),
        ("cancelled, tasks", cancel_and_count_tasks, arguments.cancelled),
        ("cancelled, memory", cancel_and_measure, arguments.cancelled),
    ]
    results: dict[str, Any] = {}
    failed = False
    for name, measure, count in parts:
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="agentmem-streams-") as folder:
            try:
                numbers = measure(Path(folder), count)
            except AssertionError as error:
                terminal.fail(f"{name}: {error}")
                failed = True
                continue
        results[name] = numbers | {"took_s": round(time.monotonic() - began_s, 1)}
        if not arguments.json:
            terminal.table([(name, ", ".join(f"{key} {value}" for key, value in results[name].items()))])
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
