"""``python -m agentmem.bench suite``: every part, into one document."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentmem.bench.suite import (
    concurrency,
    cross_check,
    document,
    goals,
    memory_operations,
    owners,
    replication,
    searching,
    soak,
    tables,
)
from agentmem.bench.suite.corpus import Corpus
from agentmem.bench.suite.empty_server import EmptyServer
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.scale import DEFAULT, TINY, Scale
from agentmem.bench.suite.sections import SECTIONS
from agentmem.bench.suite.workbench import Workbench
from agentmem.cli.conversations import ConversationError

PARTS: dict[str, Callable[[Workbench], Coroutine[Any, Any, Section]]] = {
    "memory_operations": memory_operations.measure,
    "search": searching.measure,
    "owners": owners.measure,
    "concurrency": concurrency.measure,
    "replication": replication.measure,
    "cross_check": cross_check.measure,
    "soak": soak.measure,
}
DEFAULT_OUT = Path("reports/bench.json")


def measure(parts: Sequence[str], scale: Scale, corpus: Corpus, out: Path) -> document.Document:
    """Measures some parts, one after the other, and saves the document after each.

    Prints progress to standard error, tables to standard output.
    """
    begun = document.begin(scale, corpus.name)

    def say(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    with EmptyServer() as empty:
        bench = Workbench(scale, corpus, empty, say)
        for name in parts:
            print(f"{name.replace('_', ' ')}:", file=sys.stderr, flush=True)
            began_s = time.monotonic()
            section = asyncio.run(PARTS[name](bench))
            document.put(begun, name, section, time.monotonic() - began_s)
            document.save(begun, out)
            for table in SECTIONS[name].tables(section):
                tables.show(table)
    reached = goals.table(begun["sections"])
    if reached is not None:
        tables.show(reached)
    return begun


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """Raises ValueError."""
    return tuple(int(number) for number in text.split(",")) if text else None


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Exit code 2 for a dataset that cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m agentmem.bench suite", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    parser.add_argument("--dataset", type=Path, help="folder of conversations, instead of the bundled ones")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"default: {DEFAULT_OUT}")
    parser.add_argument("--rounds", type=int, help="runs of each figure, at least 3")
    parser.add_argument("--seconds", type=float, help="of each run")
    parser.add_argument("--sizes", help="memories that are searched, ascending: 1000,10000,100000")
    parser.add_argument("--owned", help="memories of many owners, ascending: 10000,1000000")
    parser.add_argument("--soak-seconds", type=float, help="of the long run")
    parser.add_argument("--tiny", action="store_true", help="a minute, to see whether everything works")
    given = parser.parse_args(words)
    scale = TINY if given.tiny else DEFAULT
    try:
        changed = {
            "rounds": given.rounds,
            "seconds": given.seconds,
            "sizes": _numbers(given.sizes),
            "owned": _numbers(given.owned),
            "soak_s": given.soak_seconds,
        }
        scale = replace(scale, **{name: value for name, value in changed.items() if value is not None})
        corpus = Corpus(given.dataset)
    except (ValueError, ConversationError) as error:
        parser.error(str(error))
    measure(given.only or list(PARTS), scale, corpus, given.out)
    print(f"written to {given.out}; python -m agentmem.bench report makes a report of it", file=sys.stderr)
    return 0
