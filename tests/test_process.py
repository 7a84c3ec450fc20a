"""How the tasks of a server process end."""

from __future__ import annotations

import asyncio

from agentmem.core.process import cancel_all

PATIENCE_S = 20.0


async def try_on(cancellations: list[str], until: int) -> None:
    """Takes cancellations for errors of a call, as gRPC makes it look now and then, and tries again."""
    while len(cancellations) < until:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancellations.append("CANCELLED")


def test_a_task_that_tries_again_after_it_was_cancelled_ends() -> None:
    async def end() -> list[list[str]]:
        seen: list[list[str]] = [[], []]
        tasks = [asyncio.create_task(try_on(each, number + 1)) for number, each in enumerate(seen)]
        await asyncio.sleep(0)  # so that both have begun
        await asyncio.wait_for(cancel_all(tasks), PATIENCE_S)
        assert all(task.done() for task in tasks)
        return seen

    assert [len(each) for each in asyncio.run(end())] == [1, 2]
