"""The commit queue while it is held: what is refused, what is dropped, what is committed all the same."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentmem.core.errors import AgentMemError, Unavailable
from agentmem.core.store import Store, WriteTransaction
from agentmem.server.commit_queue import CommitQueue

MIB = 1024**2


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A command that lasts until it is let go, and then writes nothing."""

    began: threading.Event
    may_end: threading.Event
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> str:
        self.began.set()
        assert self.may_end.wait(60)
        return "done"


def refusal() -> AgentMemError:
    return Unavailable("HELD", "the queue is held")


@pytest.mark.parametrize("drop_waiting", [False, True])
def test_a_held_queue_ends_what_it_took(tmp_path: Path, drop_waiting: bool) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "store", map_size_bytes=MIB, max_map_size_bytes=MIB)
        queue = CommitQueue(
            store, max_commands=9, max_bytes=MIB, on_commit=lambda: None, on_failure=lambda error: None
        )
        first = Held(threading.Event(), threading.Event())
        running = asyncio.create_task(queue.submit(first))
        await asyncio.to_thread(first.began.wait)
        second = Held(threading.Event(), first.may_end)
        waiting = asyncio.create_task(queue.submit(second))
        await asyncio.sleep(0)  # it is in the queue
        queue.hold(refusal, drop_waiting=drop_waiting)
        with pytest.raises(Unavailable) as refused:
            await queue.submit(second)
        assert refused.value.reason == "HELD"
        level = asyncio.create_task(queue.committed())
        if drop_waiting:
            with pytest.raises(Unavailable) as dropped:
                await waiting
            assert dropped.value.reason == "HELD"
        assert not level.done()
        first.may_end.set()
        assert await running == "done"
        if not drop_waiting:
            assert await waiting == "done"
        await level
        assert second.began.is_set() is not drop_waiting
        queue.release()
        assert await queue.submit(second) == "done"
        await queue.close()
        store.close()

    asyncio.run(scenario())
