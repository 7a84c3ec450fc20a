"""What each level of consistency costs a read, and each level of acknowledgement a write.

    python bench/consistency.py [--rounds N] [--json]

One caller after the other on a temporary cluster of a writer and two replicas on this machine. Each round
does each kind of call so many times, the kinds in turn, so that what else the machine does falls on all of
them; a figure is the median over the rounds of the round's median, with the lowest and highest of the rounds,
in milliseconds. ``after a write`` is a read that begins when a write was just acknowledged, for what that
write did; ``quiet`` one with nothing written meanwhile.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from agentmem.cli import terminal
from agentmem.cli.cluster import LocalCluster, wait_searchable
from agentmem.client import (
    EVENTUAL,
    LOCAL,
    STRONG,
    Acknowledgement,
    AddResult,
    Client,
    Consistency,
    applied,
    at_least,
    max_staleness,
    replicated,
)

REPLICAS = 2
MEMORIES = 1000
CALLS = 40
ROUNDS = 5
NAMESPACE = "bench"

Row = dict[str, Any]


@contextmanager
def _client() -> Iterator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        cluster = LocalCluster(Path(folder))
        cluster.start(cluster.free_ports(REPLICAS, port=0))
        try:
            with Client(*cluster.endpoints()) as client:
                yield client
        finally:
            cluster.stop()


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of call. ``call`` makes one and says how long it took, in seconds."""

    name: str
    condition: str
    call: Callable[[], float]


class Kinds:
    """The calls that are compared."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = itertools.count()
        texts = [self._text() for _ in range(MEMORIES)]
        result = client.add_many(NAMESPACE, texts)
        self._id = result.memories[0].id
        wait_searchable(client, result.revision)
        self._last: AddResult = result

    def _text(self) -> str:
        number = next(self._numbers)
        return f"turn {number}: what was said about subject {number % 97} and place {number % 31}"

    def reads(self) -> Iterator[Case]:
        levels: dict[str, Callable[[], Consistency]] = {
            "eventual": lambda: EVENTUAL,
            "at_least": lambda: at_least(self._last),
            "max_staleness 2 s": lambda: max_staleness(2),
            "max_staleness 0.1 s": lambda: max_staleness(0.1),
            "strong": lambda: STRONG,
        }
        for (call, make), (name, level) in itertools.product(
            (("get", self._get), ("search", self._search)), levels.items()
        ):
            yield Case(f"{call} {name}", "quiet", partial(self._read, make, level))
            if "staleness" not in name:
                yield Case(f"{call} {name}", "after a write", partial(self._read_after_write, make, level))

    def _get(self, level: Consistency) -> None:
        self._client.get_many(NAMESPACE, [self._id], consistency=level)

    def _search(self, level: Consistency) -> None:
        self._client.search(NAMESPACE, "subject 5", mode="text", consistency=level)

    def _read(self, make: Callable[[Consistency], None], level: Callable[[], Consistency]) -> float:
        wanted = level()
        return _timed(partial(make, wanted))

    def _read_after_write(
        self, make: Callable[[Consistency], None], level: Callable[[], Consistency]
    ) -> float:
        self._last = self._client.add(NAMESPACE, self._text())
        return self._read(make, level)

    def writes(self) -> Iterator[Case]:
        for level in (LOCAL, replicated(1), replicated(2), applied(1), applied(2)):
            name = f"{level.level}({level.replicas})" if level != LOCAL else "local"
            yield Case(f"add {name}", "", partial(self._write, level))

    def _write(self, level: Acknowledgement) -> float:
        text = self._text()
        return _timed(lambda: self._client.add(NAMESPACE, text, acknowledgement=level))


def _timed(call: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def measure(rounds: int) -> list[Row]:
    with _client() as client:
        kinds = Kinds(client)
        cases = [*kinds.reads(), *kinds.writes()]
        medians_ms: list[list[float]] = [[] for _ in cases]
        for number in range(rounds + 1):
            terminal.note(f"round {number} of {rounds}" if number else "warming up")
            for case, values in zip(cases, medians_ms, strict=True):
                took_s = median(case.call() for _ in range(CALLS))
                if number:
                    values.append(took_s * 1e3)
    return [
        {
            "call": case.name,
            "condition": case.condition,
            "median_ms": round(median(values), 2),
            "lowest_ms": round(min(values), 2),
            "highest_ms": round(max(values), 2),
        }
        for case, values in zip(cases, medians_ms, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = measure(options.rounds)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'call':28} {'':14} {'median':>8} {'lowest':>8} {'highest':>8}  ms")
    for row in rows:
        print(
            f"{row['call']:28} {row['condition']:14} {row['median_ms']:8.2f} {row['lowest_ms']:8.2f} "
            f"{row['highest_ms']:8.2f}"
        )


if __name__ == "__main__":
    main()
