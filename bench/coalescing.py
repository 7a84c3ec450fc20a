"""What it brings that concurrent calls of one client travel together.

    agentmem up &
    python bench/coalescing.py --target 127.0.0.1:50051

Prints calls per second of many callers, with and without it, and the ratio; the median of some rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable

from agentmem.client import STRONG, AsyncClient, NewMemory, applied

MEMORIES = 1000
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


async def measure(target: str, callers: int, seconds: float, rounds: int) -> None:
    space = f"bench-{uuid.uuid4().hex[:8]}"
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    async with AsyncClient(target, timeout_s=60) as client:
        memories = [
            NewMemory(f"tea number {number}", id=f"m{number}", user_id=f"u{number % 64}")
            for number in range(MEMORIES)
        ]
        await client.add_many(space, memories, acknowledgement=applied())
        await client.search(space, "tea", consistency=STRONG)
    for _ in range(rounds):
        for kind, call in KINDS.items():
            for coalesce in (False, True):
                async with AsyncClient(target, timeout_s=60, coalesce=coalesce) as client:
                    await client.topology()
                    found[kind, coalesce].append(await per_second(client, call, space, callers, seconds))
    for kind in KINDS:
        apart, together = (statistics.median(found[kind, coalesce]) for coalesce in (False, True))
        print(f"{kind:8} {apart:8.0f}/s apart {together:8.0f}/s together {together / apart:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="127.0.0.1:50051", help="any node of a cluster")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(measure(given.target, given.callers, given.seconds, given.rounds))


if __name__ == "__main__":
    main()
