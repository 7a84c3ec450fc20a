"""What it brings that concurrent calls of one client travel together.

    python bench/coalescing.py [--callers N] [--seconds S] [--rounds N] [--json]

Many callers of one client on a temporary cluster of a writer and two replicas. Prints calls per second, with
and without it, and the ratio; the median of some rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agentmem.cli import terminal
from agentmem.cli.cluster import LocalCluster
from agentmem.client import STRONG, AsyncClient, NewMemory, applied

MEMORIES = 1000
REPLICAS = 2
Call = Callable[[AsyncClient, str, int], Awaitable[object]]

KINDS: dict[str, Call] = {
    "get": lambda client, space, number: client.get(space, f"m{number % MEMORIES}"),
    "search": lambda client, space, number: client.search(
        space, f"tea number {number % MEMORIES}", mode="text", user_id=f"u{number % 64}", top_k=5
    ),
    "add": lambda client, space, number: client.add(
        f"{space}-adds", f"tea number {number}", embedding=[1, number % 7, 2, 3], embedding_model="bench"
    ),
}


async def per_second(client: AsyncClient, call: Call, space: str, callers: int, seconds: float) -> float:
    """How many calls end in a second."""
    begun_s = time.monotonic()
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        while time.monotonic() < begun_s + seconds:
            number += 31
            await call(client, space, number)
            done += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return done / (time.monotonic() - begun_s)


async def measure(
    endpoints: Sequence[str], callers: int, seconds: float, rounds: int
) -> dict[str, dict[str, float]]:
    """Of each kind of call: calls a second apart and together, and how many times as many that is."""
    space = f"bench-{uuid.uuid4().hex[:8]}"
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    async with AsyncClient(*endpoints, timeout_s=60) as client:
        memories = [
            NewMemory(f"tea number {number}", id=f"m{number}", user_id=f"u{number % 64}")
            for number in range(MEMORIES)
        ]
        await client.add_many(space, memories, acknowledgement=applied())
        await client.search(space, "tea", consistency=STRONG)
    for _ in range(rounds):
        for kind, call in KINDS.items():
            for coalesce in (False, True):
                async with AsyncClient(*endpoints, timeout_s=60, coalesce=coalesce) as client:
                    await client.topology()
                    found[kind, coalesce].append(await per_second(client, call, space, callers, seconds))
    medians = {key: statistics.median(values) for key, values in found.items()}
    return {
        kind: {
            "apart_per_s": medians[kind, False],
            "together_per_s": medians[kind, True],
            "ratio": medians[kind, True] / medians[kind, False],
        }
        for kind in KINDS
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentmem-coalescing-") as folder:
        cluster = LocalCluster(Path(folder))
        cluster.start(cluster.free_ports(REPLICAS, port=0))
        try:
            results = asyncio.run(measure(cluster.endpoints(), given.callers, given.seconds, given.rounds))
        finally:
            cluster.stop()
    if given.json:
        print(json.dumps(results))
        return
    terminal.table(
        [
            (kind, f"{each['apart_per_s']:.0f}", f"{each['together_per_s']:.0f}", f"{each['ratio']:.1f}")
            for kind, each in results.items()
        ],
        ("CALL", "APART/S", "TOGETHER/S", "RATIO"),
    )


if __name__ == "__main__":
    main()
