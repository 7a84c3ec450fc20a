"""How much a client adds to the load of a cluster: retries, hedges, and what it says of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Node, wait_until

from agentmem.client import AsyncClient, InvalidArgument, NewMemory, Unavailable, budget, hedging
from agentmem.client.budget import RetryBudget, TokenBucket
from agentmem.v1 import cluster_pb2

NOW_S = 1000.0
READERS = 32


def taken(bucket: TokenBucket, now_s: float, most: int = 1000) -> int:
    """How many tokens there are."""
    count = 0
    while count < most and bucket.take(now_s):
        count += 1
    return count


@pytest.mark.parametrize(
    ("calls", "seconds", "expected"),
    [
        pytest.param(0, 0.0, 10, id="the burst at first"),
        pytest.param(20, 0.0, 5, id="a share of the calls"),
        pytest.param(1000, 0.0, 10, id="no more than the burst"),
        pytest.param(0, 1.5, 3, id="some each second"),
        pytest.param(0, 1000.0, 10, id="no more than the burst of these"),
        pytest.param(8, 1.0, 4, id="both"),
    ],
)
def test_token_bucket(calls: int, seconds: float, expected: int) -> None:
    bucket = TokenBucket(share=0.25, burst=10, floor_per_s=2, tokens=10)
    if calls or seconds:
        assert taken(bucket, NOW_S) == 10
        for _ in range(calls):
            bucket.called()
    assert taken(bucket, NOW_S + seconds) == expected


def test_the_wait_for_a_token() -> None:
    bucket = TokenBucket(share=0.25, burst=10, floor_per_s=2, tokens=1)
    assert bucket.wait_s(NOW_S) == 0
    assert bucket.take(NOW_S)
    assert bucket.wait_s(NOW_S) == pytest.approx(0.5)
    assert bucket.wait_s(NOW_S + 0.25) == pytest.approx(0.25)
    bucket.called()
    assert bucket.wait_s(NOW_S + 0.25) == pytest.approx(0.125)
    assert TokenBucket(share=0.25, burst=10).wait_s(NOW_S) == math.inf


def test_retries_without_a_token_wait_their_turn() -> None:
    async def scenario() -> None:
        retries = RetryBudget()
        soon_s = time.monotonic() + 60
        for _ in range(budget.RETRY_BURST):
            assert await retries.take(soon_s)
        served: list[int] = []

        async def take(number: int) -> None:
            assert await retries.take(soon_s)
            served.append(number)

        waiting = [asyncio.create_task(take(number)) for number in range(5)]
        late = asyncio.create_task(retries.take(time.monotonic()))
        assert not await late
        given_up = waiting.pop(2)
        given_up.cancel()
        assert served == []
        # Calls bring tokens at once, before time does.
        for _ in range(math.ceil(2 / budget.RETRY_SHARE)):
            retries.called()
        await asyncio.gather(*waiting[:2])
        assert served[:2] == [0, 1]
        # Time brings the others.
        await asyncio.gather(*waiting)
        assert served == [0, 1, 3, 4]

    asyncio.run(scenario())


def test_latencies_of_the_last_calls() -> None:
    latencies = hedging.Latencies()
    for _ in range(hedging.LEAST_CALLS - 1):
        latencies.add(0.001)
    assert latencies.slow_s == math.inf
    for number in range(10 * hedging.WINDOW_CALLS):
        latencies.add(number % 100 / 1000)
    assert 0.090 <= latencies.slow_s <= 0.099
    for _ in range(hedging.WINDOW_CALLS + hedging.REFRESH_CALLS):
        latencies.add(0.005)
    assert latencies.slow_s == 0.005


def test_hedges_are_a_twentieth_of_the_calls() -> None:
    hedges = hedging.Hedging()
    count = 0
    for _ in range(1000):
        hedges.begun("get")
        count += hedges.may_hedge(NOW_S)
    assert count == 50


LOST = Unavailable("lost")
WRONG = InvalidArgument("wrong")
HANGS = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("first", "second", "expected", "tried"),
    [
        pytest.param("a", "b", "a", 1, id="the first is quick"),
        pytest.param(LOST, "b", LOST, 1, id="the first fails at once: that is for others to judge"),
        pytest.param(HANGS, "b", "b", 2, id="the second is quicker"),
        pytest.param(HANGS, WRONG, WRONG, 2, id="any node would say so"),
        pytest.param(HANGS, None, HANGS, 1, id="there is no second"),
    ],
)
def test_the_first_good_answer_counts(first: object, second: object, expected: object, tried: int) -> None:
    """What hangs is cancelled in the end."""

    async def scenario() -> None:
        ended: list[object] = []

        async def answer(outcome: object) -> object:
            try:
                if outcome is HANGS:
                    await asyncio.Event().wait()
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            finally:
                ended.append(outcome)

        def another() -> Coroutine[Any, Any, object] | None:
            return None if second is None else answer(second)

        asked = hedging.first_answer(answer(first), 0.01, another)
        if expected is HANGS:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asked
        elif isinstance(expected, Exception):
            with pytest.raises(type(expected)):
                await asked
        else:
            assert await asked == expected
        assert len(ended) == tried

    asyncio.run(scenario())


def test_when_both_fail_the_last_error_counts() -> None:
    async def scenario() -> None:
        lost = asyncio.Event()

        async def first() -> object:
            await lost.wait()
            raise Unavailable("the first is lost")

        async def second() -> object:
            lost.set()
            raise Unavailable("the second is lost")

        with pytest.raises(Unavailable, match="is lost"):
            await hedging.first_answer(first(), 0.01, second)

    asyncio.run(scenario())


def fill(cluster: Cluster, client: AsyncClient) -> asyncio.Future[object]:
    memories = [NewMemory(content=f"memory {number}", id=f"m{number}") for number in range(READERS)]

    async def filled() -> None:
        added = await client.add_many("ns", memories)
        await asyncio.to_thread(cluster.wait_searchable, added.revision)

    return asyncio.ensure_future(filled())


async def read_all(client: AsyncClient, turns: int = 1) -> None:
    """Each reader by itself: with what they ask for all of them together would be one call."""

    async def read(number: int) -> None:
        for _ in range(turns):
            assert await client.get("ns", f"m{number}") is not None

    await asyncio.gather(*(read(number) for number in range(READERS)))


def state_of(cluster: Cluster, node: Node) -> int:
    return {each.address: each.state for each in cluster.topology().nodes}.get(node.address, 0)


def test_retries_and_hedges_of_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        hangs = cluster.replicas[0]
        address = cluster.writer.address
        async with (
            AsyncClient(address, coalesce=False) as plain,
            AsyncClient(address, coalesce=False, hedge_reads=True) as hedged,
            AsyncClient(address, coalesce=False) as out_of_retries,
        ):
            await fill(cluster, plain)
            for client in (plain, hedged, out_of_retries):
                await read_all(client, turns=10)
                statistics = client.statistics()
                assert statistics.calls >= 10 * READERS
                assert (statistics.retries, statistics.coalesced, statistics.ejections) == (0, 0, 0)
            await hedging_pays(hedged, hangs)
            await retries_are_enough_for_one_node(plain, cluster, hangs)
            await no_more_than_the_budget(out_of_retries, cluster, hangs)

    async def hedging_pays(client: AsyncClient, hangs: Node) -> None:
        """A read at a replica that hangs is answered by the other one, long before its attempt ends."""
        hedges = client._router._hedging
        assert hedges is not None
        while hedges._bucket._tokens < 1:
            # One in twenty reads is slow by definition, and may have taken all that was saved up.
            assert await client.get("ns", "m0") is not None
        before = client.statistics().hedges
        hangs.pause()
        try:
            for number in range(READERS):
                # As if both were equally quick, so that either may be asked first.
                client._router._loads.clear()
                assert await client.get("ns", f"m{number}", timeout_s=60) is not None
                if client.statistics().hedges > before:
                    break
        finally:
            hangs.resume()
        assert client.statistics().hedges > before
        assert client.statistics().retries == 0

    async def retries_are_enough_for_one_node(client: AsyncClient, cluster: Cluster, hangs: Node) -> None:
        """All the calls that are open at a replica that dies are answered by others."""
        await asyncio.to_thread(serving, cluster, hangs)
        hangs.pause()
        reads = asyncio.create_task(read_all(client))
        await asyncio.sleep(0)

        def hang_there() -> bool:
            return client._router._loads[hangs.address].outstanding > 0

        await asyncio.to_thread(wait_until, hang_there, "reads hang there")
        await asyncio.to_thread(hangs.kill)
        await reads
        statistics = client.statistics()
        assert 0 < statistics.retries <= READERS
        await asyncio.to_thread(hangs.restart)

    async def no_more_than_the_budget(client: AsyncClient, cluster: Cluster, hangs: Node) -> None:
        """Without a token a read that was lost waits for one, and says so."""
        await asyncio.to_thread(serving, cluster, hangs)
        retries = client._router._calls.retries
        monkeypatch.setattr(retries, "_bucket", TokenBucket(share=0, burst=3, floor_per_s=0.001, tokens=3))
        for node in cluster.nodes:
            node.pause()
        reads = [asyncio.create_task(client.get("ns", "m1", timeout_s=2)) for _ in range(10)]
        results = await asyncio.gather(*reads, return_exceptions=True)
        for node in cluster.nodes:
            node.resume()
        assert client.statistics().retries == 3
        waited = [error for error in results if isinstance(error, Unavailable)]
        assert len(waited) >= 7
        assert all(error.metadata == {"retry_budget": "empty"} for error in waited[:7])
        assert "retries had to wait" in waited[0].message

    def serving(cluster: Cluster, node: Node) -> None:
        wait_until(lambda: state_of(cluster, node) == cluster_pb2.NODE_STATE_SERVING, "it serves")

    with Cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))
