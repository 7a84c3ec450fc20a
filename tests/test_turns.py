"""Threads that work beside an event loop, and whether the loop comes to its turns."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading

from cluster import wait_until

from agentmem.core.turns import EventLoop, LoopSelector, Turns

ITEMS = 20_000


def work() -> None:
    """Some 20 us that do not let go of the lock."""
    sum(range(1_000))


async def turns_beside(turns: Turns) -> int:
    """How often the loop comes to its turn while a thread does a certain work."""
    ended = threading.Event()

    def do() -> None:
        for _ in range(ITEMS):
            work()
            turns.give()
        ended.set()

    thread = threading.Thread(target=do)
    thread.start()
    count = 0
    while not ended.is_set():
        await asyncio.sleep(0)
        count += 1
    thread.join()
    return count


def test_a_loop_beside_a_thread_that_works_comes_to_its_turns() -> None:
    async def compare() -> tuple[int, int]:
        return await turns_beside(Turns()), await turns_beside(Turns(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        without, given = runner.run(compare())
    assert given > 2 * without


def test_a_loop_of_another_kind_is_given_none() -> None:
    async def give() -> bool:
        return Turns(asyncio.get_running_loop()).give()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert not runner.run(give())


def test_a_selector_has_work_but_while_it_waits() -> None:
    selector = LoopSelector()
    here, there = socket.socketpair()
    selector.register(there, selectors.EVENT_READ)
    assert selector.has_work
    thread = threading.Thread(target=selector.select)
    thread.start()
    wait_until(lambda: not selector.has_work, "the thread to select")
    here.send(b"x")
    thread.join()
    assert selector.has_work
    # What is due is work, though the selector has not come back.
    there.recv(1)
    thread = threading.Thread(target=selector.select, args=(0.01,))
    thread.start()
    thread.join()
    assert selector.has_work
    for each in (selector, here, there):
        each.close()
