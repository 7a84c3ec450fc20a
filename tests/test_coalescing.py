"""Calls that travel together: each has its own outcome, deadline and end, and none waits for company."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from cluster import Cluster

from agentmem.client import (
    STRONG,
    AgentMemError,
    AsyncClient,
    Client,
    DeadlineExceeded,
    GetResult,
    InvalidArgument,
    NewMemory,
    SearchResult,
    ServerError,
    Unavailable,
    coalescing,
)
from agentmem.client.coalescing import Again, Coalescer, Entry
from agentmem.client.statistics import Counters
from agentmem.v1 import reader_pb2

Get = reader_pb2.GetMemoriesRequest
CALLERS = 32


class Echo:
    """Answers each request with its namespace, when it is let go. What was sent is in ``sent``."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.sent_again = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: AgentMemError | None = None

    def can_send_together(self) -> bool:
        return True

    async def alone(self, entry: Entry[Get, str]) -> str:
        (answer,) = await self._answer([entry])
        return answer

    async def together(
        self, entries: Sequence[Entry[Get, str]], deadline_s: float
    ) -> Sequence[str | AgentMemError | Again]:
        assert deadline_s == max(entry.deadline_s for entry in entries)
        if self.error is not None:
            self.sent.append([entry.request.namespace for entry in entries])
            raise self.error
        return await self._answer(entries)

    async def _answer(self, entries: Sequence[Entry[Get, str]]) -> list[str]:
        names = [entry.request.namespace for entry in entries]
        self.sent.append(names)
        self.sent_again.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(names)
            raise
        return names

    def overdue(self, entry: Entry[Get, str]) -> AgentMemError:
        return DeadlineExceeded("overdue")

    def of_its_own(self, entry: Entry[Get, str], error: AgentMemError) -> AgentMemError:
        return type(error)(f"{error.message} {entry.request.namespace}")


class Setup:
    def __init__(self) -> None:
        self.echo = Echo()
        self.counters = Counters()
        self.coalescer: Coalescer[Get, str] = Coalescer(self.echo, self.counters, is_enabled=True)

    def call(
        self, name: str, *, lane: str = "", timeout_s: float = 60.0, items: int = 1, padding: int = 0
    ) -> asyncio.Task[str]:
        request = Get(namespace=name, ids=["x" * padding])
        return asyncio.create_task(
            self.coalescer.call(Entry(request, lane, items, timeout_s, time.monotonic()))
        )

    async def stuck(self) -> list[asyncio.Task[str]]:
        """As many calls as may be on their way at once; they stay there until the gate opens."""
        self.echo.gate.clear()
        tasks = []
        for number in range(coalescing.MAX_IN_FLIGHT):
            tasks.append(self.call(f"first {number}"))
            await turn()
        return tasks


async def turn(times: int = 5) -> None:
    """Lets everything that is ready run."""
    for _ in range(times):
        await asyncio.sleep(0)


def scenario(body: Callable[[Setup], Awaitable[None]]) -> None:
    async def run() -> None:
        setup = Setup()
        await body(setup)
        # Nothing is kept of lanes where nothing is on its way.
        await turn()
        assert setup.coalescer._lanes == {}

    asyncio.run(run())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on their way are waited for, however long they take."""
    monkeypatch.setattr(coalescing, "MAX_HOLD_S", 600.0)


def test_a_call_that_finds_nothing_on_its_way_goes_alone_and_what_is_ready_with_it_goes_too() -> None:
    async def body(setup: Setup) -> None:
        assert await setup.call("a") == "a"
        assert setup.counters.coalesced == 0
        assert await asyncio.gather(*(setup.call(name) for name in "bcd")) == ["b", "c", "d"]
        assert setup.echo.sent == [["a"], ["b", "c", "d"]]
        assert setup.counters.coalesced == 3

    scenario(body)


@pytest.mark.usefixtures("patient")
def test_calls_gather_while_others_are_on_their_way_each_lane_for_itself() -> None:
    async def body(setup: Setup) -> None:
        first = await setup.stuck()
        gathered = [setup.call(name) for name in "abc"]
        other = setup.call("other", lane="other")
        await turn()
        assert [name for names in setup.echo.sent for name in names] == ["first 0", "first 1", "other"]
        setup.echo.gate.set()
        assert await asyncio.gather(*gathered) == ["a", "b", "c"]
        assert setup.echo.sent[-1] == ["a", "b", "c"]
        await asyncio.gather(*first, other)

    scenario(body)


def test_a_call_that_takes_long_does_not_hold_up_the_next() -> None:
    """The gate stays closed: those behind are sent all the same."""

    async def body(setup: Setup) -> None:
        tasks = await setup.stuck()
        setup.echo.sent_again.clear()
        tasks += [setup.call(name) for name in "ab"]
        async with asyncio.timeout(30):
            await setup.echo.sent_again.wait()
        assert setup.echo.sent[-1] == ["a", "b"]
        setup.echo.gate.set()
        await asyncio.gather(*tasks)

    scenario(body)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("count", "items", "padding", "sizes"),
    [
        pytest.param(130, 1, 0, [65, 65], id="shared out"),
        pytest.param(20, 1, 0, [16, 4], id="not into small pieces"),
        pytest.param(250, 1, 0, [100, 100, 50], id="at most so many requests"),
        pytest.param(12, 300, 0, [3, 3, 3, 3], id="at most so many items"),
        pytest.param(4, 1000, 0, [1, 1, 1, 1], id="one is enough"),
        pytest.param(5, 1, 2_000_000, [2, 2, 1], id="at most so many bytes"),
    ],
)
def test_the_bounds_of_a_batch(count: int, items: int, padding: int, sizes: list[int]) -> None:
    async def body(setup: Setup) -> None:
        calls = [setup.call(str(number), items=items, padding=padding) for number in range(count)]
        assert await asyncio.gather(*calls) == [str(number) for number in range(count)]
        assert sorted(map(len, setup.echo.sent), reverse=True) == sorted(sizes, reverse=True)

    scenario(body)


@pytest.mark.usefixtures("patient")
def test_each_caller_has_its_own_deadline_and_its_own_end() -> None:
    async def body(setup: Setup) -> None:
        setup.echo.gate.clear()
        calls = [setup.call("early", timeout_s=0.05), setup.call("given up"), setup.call("patient")]
        await turn()
        assert setup.echo.sent == [["early", "given up", "patient"]]
        early, given_up, patient = calls
        given_up.cancel()
        with pytest.raises(DeadlineExceeded, match="overdue"):
            await early
        other = setup.call("other")
        await turn()
        never = setup.call("never sent", timeout_s=0.05)
        with pytest.raises(Unavailable, match=r"not sent within 0\.05 s"):
            await never
        assert setup.echo.cancelled == []
        setup.echo.gate.set()
        assert await patient == "patient"
        assert given_up.cancelled()
        await other
        assert ["never sent"] not in setup.echo.sent

    scenario(body)


@pytest.mark.usefixtures("patient")
def test_a_batch_that_nobody_waits_for_ends() -> None:
    async def body(setup: Setup) -> None:
        setup.echo.gate.clear()
        calls = [setup.call(name) for name in "abc"]
        await turn()
        assert setup.echo.sent == [["a", "b", "c"]]
        calls[0].cancel()
        calls[1].cancel()
        await turn()
        assert setup.echo.cancelled == []
        calls[2].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await turn()
        assert setup.echo.cancelled == [["a", "b", "c"]]

    scenario(body)


def test_a_leader_that_is_cancelled_leaves_the_others_to_go() -> None:
    async def body(setup: Setup) -> None:
        leader, other = setup.call("leader"), setup.call("other")
        await asyncio.sleep(0)
        leader.cancel()
        assert await other == "other"
        assert leader.cancelled() or leader.done()

    scenario(body)


def test_an_error_of_all_is_that_of_each_or_each_finds_out_alone() -> None:
    async def body(setup: Setup) -> None:
        setup.echo.error = Unavailable("nobody answers")
        results = await asyncio.gather(*(setup.call(name) for name in "ab"), return_exceptions=True)
        assert [(type(error), str(error)) for error in results] == [
            (Unavailable, "nobody answers a"),
            (Unavailable, "nobody answers b"),
        ]
        setup.echo.error = InvalidArgument("one of them is wrong")
        assert await asyncio.gather(*(setup.call(name) for name in "cd")) == ["c", "d"]
        assert setup.echo.sent == [["a", "b"], ["c", "d"], ["c"], ["d"]]

    scenario(body)


async def outcomes(calls: Sequence[Awaitable[object]]) -> list[object]:
    """What each comes to: of an error what a program sees, of a search what it finds.

    Another namespace may move on between two calls, and a replica weighs words by what its index holds.
    """
    results: list[object] = await asyncio.gather(*calls, return_exceptions=True)
    return [
        (type(each), each.reason, each.message, each.metadata)
        if isinstance(each, AgentMemError)
        else [hit.memory for hit in each.hits]
        if isinstance(each, SearchResult)
        else replace(each, applied_revision=0)
        if isinstance(each, GetResult)
        else each
        for each in results
    ]


def test_each_get_has_the_answer_that_it_has_alone(shared_cluster: Cluster, namespace: str) -> None:
    async def body() -> None:
        address = shared_cluster.writer.address
        async with AsyncClient(address) as together, AsyncClient(address, coalesce=False) as apart:
            spaces = [namespace, f"{namespace}-2"]
            for space in spaces:
                memories = [
                    NewMemory(f"{space} {n}", id=f"m{n}", embedding=[n, 1, 1], embedding_model="own")
                    for n in range(20)
                ]
                added = await together.add_many(space, memories)
            await together.update(
                namespace, "m3", content="changed", embedding=[2, 1, 1], embedding_model="own"
            )
            await asyncio.to_thread(shared_cluster.wait_settled)
            rng = random.Random(1)

            def gets(client: AsyncClient) -> list[Awaitable[object]]:
                calls: list[Awaitable[object]] = [
                    client.get(namespace, ""),
                    client.get("", "m1"),
                ]
                for _ in range(CALLERS):
                    ids = [f"m{number}" for number in rng.sample(range(25), rng.randrange(1, 6))]
                    calls.append(
                        client.get_many(
                            rng.choice(spaces),
                            ids,
                            include_embedding=rng.random() < 0.3,
                            as_of=added.revision if rng.random() < 0.3 else None,
                        )
                    )
                return calls

            state = rng.getstate()
            alone = await outcomes(gets(apart))
            rng.setstate(state)
            assert await outcomes(gets(together)) == alone
            assert together.statistics().coalesced >= CALLERS // 2
            assert apart.statistics().coalesced == 0

    asyncio.run(body())


def test_a_get_that_is_refused_alone_is_refused_among_others(shared_cluster: Cluster, namespace: str) -> None:
    async def body() -> None:
        async with AsyncClient(shared_cluster.writer.address) as client:
            await client.add(namespace, "tea", id="m1")

            def gets(*ids: str) -> list[Awaitable[Any]]:
                return [client.get_many(namespace, ids, consistency=STRONG) for _ in range(2)]

            calls = [*gets("m1"), *gets("m1", "m1"), *gets(), *gets("m2")]
            found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in found[2:6]] == [InvalidArgument] * 4
            assert [len(each.memories) for each in found[:2] + found[6:]] == [1, 1, 0, 0]
            assert [each.missing_ids for each in found[6:]] == [("m2",), ("m2",)]

    asyncio.run(body())


def test_each_search_has_the_answer_that_it_has_alone(shared_cluster: Cluster, namespace: str) -> None:
    async def body() -> None:
        address = shared_cluster.writer.address
        async with AsyncClient(address) as together, AsyncClient(address, coalesce=False) as apart:
            colours = ["red", "green", "blue", "white", "black"]
            memories = [NewMemory(f"{each} tea", id=each, embedding=[1, 0, 0]) for each in colours]
            await together.add_many(namespace, memories)
            await asyncio.to_thread(shared_cluster.wait_settled)

            def searches(client: AsyncClient) -> list[Awaitable[object]]:
                calls: list[Awaitable[object]] = [
                    client.search(namespace, colours[number % 5], mode="text", top_k=1 + number % 3)
                    for number in range(CALLERS)
                ]
                calls.insert(3, client.search(namespace, "", mode="text"))
                calls.insert(7, client.search(namespace, embedding=[1, 2], mode="semantic"))
                calls.insert(9, client.search("no such namespace", "tea"))
                calls.insert(11, client.search(namespace, "tea", mode="text", top_k=2000))
                return calls

            expected = await outcomes(searches(apart))
            before = together.statistics()
            assert await outcomes(searches(together)) == expected
            after = together.statistics()
            assert after.coalesced - before.coalesced >= CALLERS
            assert after.calls - before.calls < CALLERS
            assert [type(each) for each in expected].count(tuple) == 3

    asyncio.run(body())


def test_threads_of_one_client_travel_together(shared_cluster: Cluster, namespace: str) -> None:
    with Client(shared_cluster.writer.address) as client, ThreadPoolExecutor(CALLERS) as threads:

        def work(number: int) -> None:
            own = client.session()
            for turn_number in range(5):
                added = own.add(namespace, f"{number} {turn_number}")
                own.update(namespace, added.memories[0].id, tags=[f"{number}"])
                found = own.get(namespace, added.memories[0].id)
                assert found is not None
                assert (found.content, found.tags) == (f"{number} {turn_number}", (f"{number}",))

        list(threads.map(work, range(CALLERS)))
        assert client.statistics().coalesced > 0


def test_with_servers_that_know_no_batches_each_call_goes_alone(
    shared_cluster: Cluster, namespace: str
) -> None:
    async def body() -> None:
        async with AsyncClient(shared_cluster.writer.address) as client:
            await client.add_many(namespace, ["green tea", "black tea"])
            await asyncio.to_thread(shared_cluster.wait_settled)
            await asyncio.gather(*(client.search(namespace, "tea") for _ in range(8)))
            for endpoint in client._router._channels._endpoints.values():
                # The servers of a release before batches answer just so.
                endpoint.reader.BatchSearchMemories = unknown(endpoint, "reader")  # type: ignore[assignment]
                for method in ("BatchAddMemories", "BatchUpdateMemories", "BatchDeleteMemories"):
                    setattr(endpoint.writer, method, unknown(endpoint, "writer"))
            for _ in range(2):
                found = await asyncio.gather(*(client.search(namespace, "tea") for _ in range(8)))
                assert all(len(each.hits) == 2 for each in found)
            for turn_number in range(2):
                adds = (client.add(namespace, f"{turn_number} {number}") for number in range(8))
                ids = {added.memories[0].id for added in await asyncio.gather(*adds)}
                assert len(ids) == 8
                updates = (client.update(namespace, id, content="new") for id in ids)
                assert [updated.version for updated in await asyncio.gather(*updates)] == [2] * 8
                kept = ids.pop()
                deletions = (client.delete(namespace, id) for id in ids)
                assert [deleted.deleted_count for deleted in await asyncio.gather(*deletions)] == [1] * 7
                assert (await client.get(namespace, kept, consistency=STRONG)) is not None
            assert len([memory async for memory in client.iterate(namespace, consistency=STRONG)]) == 4
            assert client.statistics().retries == 0

    asyncio.run(body())


def unknown(endpoint: Any, service: str) -> object:
    """A method that the server does not have."""
    known = getattr(endpoint, service)
    assert known is not None
    return endpoint.channel.unary_unary(
        f"/agentmem.v1.{service.title()}Service/Unknown",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reader_pb2.BatchSearchMemoriesResponse.FromString,
    )


def test_an_unknown_method_is_told_as_such(shared_cluster: Cluster) -> None:
    async def body() -> None:
        async with AsyncClient(shared_cluster.writer.address) as client:
            await client.topology()
            with client._router._channels.use(shared_cluster.writer.address) as endpoint:
                call: Any = unknown(endpoint, "writer")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(Get())
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert ServerError.code is grpc.StatusCode.INTERNAL

    asyncio.run(body())
