"""Clients that write and read at random, in sessions, and record all of it for the checker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Sequence

from chaos_worker import FAILURES, NAMESPACES, Recorded, Worker, counter_of
from session_checker import Version, WatchedPart

from agentmem.client import (
    STRONG,
    AgentMemError,
    AsyncClient,
    AsyncWatch,
    ChangeKind,
    HistoryPruned,
    Position,
    RevisionLost,
)

CLIENTS = 3
WATCH_END_TIMEOUT_S = 60.0
WATCH_AGAIN_S = 0.1
MIN_SESSION_OPERATIONS, MAX_SESSION_OPERATIONS = 100, 400
TIMEOUT_S = 8.0


class Load:
    """Tasks on an event loop of their own thread, until told to stop or everything was done.

    Args:
        operations: how many calls are made at the most.
        sessions: how many sessions run at the same time.
        readers: how many tasks read without a session.
    """

    def __init__(
        self, addresses: Sequence[str], *, seed: str, operations: int, sessions: int, readers: int
    ) -> None:
        self.recorded = Recorded()
        self._addresses = list(addresses)
        self._seed = seed
        self._operations = operations
        self._sessions = sessions
        self._readers = readers
        self._stopping = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._idle = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._problems: list[BaseException] = []
        self._watch_until: int | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> int:
        return self.recorded.calls.total()

    @property
    def is_done(self) -> bool:
        return self.done >= self._operations or self._stopping.is_set()

    def pause(self) -> None:
        """Returns when no call is on its way any more, until ``resume``."""
        self._going.clear()
        while self._idle < self._sessions + self._readers and self._thread.is_alive():
            time.sleep(0.01)

    def resume(self) -> None:
        self._going.set()

    def finish(self, watch_until: int) -> None:
        """Ends the tasks, and the watches when they have come to a revision. Raises what a task raised."""
        self._watch_until = watch_until
        self._stopping.set()
        self._going.set()
        self._thread.join(WATCH_END_TIMEOUT_S)
        if self._thread.is_alive():
            self.recorded.surprises.append(f"a watch did not come to revision {watch_until}")
            self._watch_until = 0
            self._thread.join(WATCH_END_TIMEOUT_S)
        assert not self._thread.is_alive(), "the load did not end"
        if self._problems:
            raise self._problems[0]

    async def _run(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        AsyncClient(*self._addresses, timeout_s=TIMEOUT_S, hedge_reads=number == 0)
                    )
                    for number in range(CLIENTS)
                ]
                async with asyncio.TaskGroup() as tasks:
                    for namespace in NAMESPACES:
                        tasks.create_task(self._watch(clients[-1], namespace))
                    for number in range(self._sessions):
                        tasks.create_task(self._work(clients, number))
                    for number in range(self._readers):
                        tasks.create_task(self._read_only(clients, number))
        except BaseException as problem:
            self._problems.append(problem)
            self._stopping.set()

    async def _may_go_on(self) -> bool:
        """Whether there is more to do; waits while the load is paused."""
        if not self.is_done and self._going.is_set():
            return True
        self._idle += 1
        while not self._stopping.is_set() and (  # noqa: ASYNC110 - other threads set these
            self.is_done or not self._going.is_set()
        ):
            await asyncio.sleep(0.02)
        if not self._stopping.is_set():
            self._idle -= 1
        return not self.is_done

    async def _work(self, clients: list[AsyncClient], number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        sessions = 0
        while await self._may_go_on():
            name = f"own{number}x{sessions}q"
            sessions += 1
            self.recorded.sessions += 1
            worker = Worker(self.recorded, clients, chance, name)
            for _ in range(chance.randint(MIN_SESSION_OPERATIONS, MAX_SESSION_OPERATIONS)):
                if not await self._may_go_on():
                    break
                await worker.step()
                if worker.is_lost:
                    self.recorded.lost_sessions += 1
                    break

    async def _read_only(self, clients: list[AsyncClient], number: int) -> None:
        chance = random.Random(f"{self._seed}/reader-{number}")
        worker = Worker(self.recorded, clients, chance, "")
        while await self._may_go_on():
            if self.recorded.keys:
                await worker.read()
            else:
                await asyncio.sleep(0.05)

    async def _watch(self, client: AsyncClient, namespace: str) -> None:
        """Follows all changes; begins again behind what is there when it cannot go on."""
        after = 0
        while True:
            part = WatchedPart(namespace, after)
            self.recorded.watched.append(part)
            watch = client.watch(namespace, after=after, timeout_s=TIMEOUT_S)
            if await self._follow(watch, part):
                return
            after = await self._newest_revision(client, namespace)

    async def _follow(self, watch: AsyncWatch, part: WatchedPart) -> bool:
        """Whether the watch came to its end, and not to an error after which it cannot go on."""
        while True:
            following = asyncio.create_task(_take_changes(watch, part))
            try:
                while not following.done():
                    await asyncio.wait((following,), timeout=0.1)
                    place = watch.position
                    reached = Position() if place is None else Position(place.epoch, place.revision)
                    if self._watch_until is not None and reached.revision >= self._watch_until:
                        await watch.aclose()
                        await following
                        part.until = reached
                        return True
                following.result()
            except (HistoryPruned, RevisionLost) as error:
                self.recorded.failures["watch", error.reason] += 1
                part.until_lost = isinstance(error, RevisionLost)
                if watch.position is not None:
                    part.until = Position(watch.position.epoch, watch.position.revision)
                    if watch.position.operation:
                        # Of this revision, not all was given.
                        part.until = Position(watch.position.epoch, watch.position.revision - 1)
                return False
            except FAILURES as error:
                self.recorded.failures["watch", error.reason] += 1
                await asyncio.sleep(WATCH_AGAIN_S)
            except AgentMemError as error:
                self.recorded.surprises.append(f"watch of {part.namespace}: {error!r}")
                return True
            finally:
                following.cancel()

    async def _newest_revision(self, client: AsyncClient, namespace: str) -> int:
        while True:
            try:
                return (await client.stats(namespace, consistency=STRONG)).applied_revision
            except FAILURES:
                await asyncio.sleep(0.1)


async def _take_changes(watch: AsyncWatch, part: WatchedPart) -> None:
    async for change in watch:
        assert change.memory is not None, "nothing is purged"
        memory = change.memory
        counter = counter_of(memory.content) if change.kind is not ChangeKind.DELETED else None
        key = (part.namespace, memory.id)
        part.changes.append(Version(change.position.revision, key, memory.version, counter))
