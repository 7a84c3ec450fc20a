"""Writes that come again: the client repeats what was not answered, and the writer does it once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_until

from agentmem.client import (
    AddOutcome,
    AsyncClient,
    Client,
    Field,
    InvalidArgument,
    OutcomeUnknown,
    Unavailable,
    VersionKind,
)

TASKS = 48
WRITES = 25
KILLS = 6
WRITER_FLAGS = ("--embedder", "none")


def test_writes_are_done_once_while_the_writer_is_killed(tmp_path: Path) -> None:
    """Each write is acknowledged, though connections break and the writer dies with answers on their way."""
    done: Counter[str] = Counter()

    async def write(client: AsyncClient, name: str) -> None:
        for number in range(WRITES):
            added = await client.add("ns", f"{name} {number}", user_id=name, on_duplicate="add")
            assert added.memories[0].outcome is AddOutcome.ADDED
            updated = await client.update("counters", name, metadata={"count": number + 1})
            assert updated.version == number + 2
            done["writes"] += 1

    def enough(goal: int) -> bool:
        return done["writes"] >= goal

    async def scenario(cluster: Cluster) -> None:
        async with AsyncClient(cluster.writer.address, timeout_s=60) as client:
            names = [f"task-{number}" for number in range(TASKS)]
            for name in names:
                await client.add("counters", "a counter", id=name)
            tasks = [asyncio.create_task(write(client, name)) for name in names]
            for end in (cluster.writer.terminate, *[cluster.writer.kill] * KILLS):
                goal = done["writes"] + TASKS * WRITES // (KILLS + 3)
                await asyncio.to_thread(wait_until, partial(enough, goal), "writes go on")
                await asyncio.to_thread(end)
                await asyncio.to_thread(cluster.writer.restart)
            await asyncio.gather(*tasks)
            stored = Counter([memory.content async for memory in client.iterate("ns", page_size=1000)])
            assert stored == Counter(f"{name} {number}" for name in names for number in range(WRITES))
            for name in names:
                history = [version async for version in client.iterate_history("counters", name)]
                assert [version.memory.version for version in history] == list(range(WRITES + 1, 0, -1))
                assert {version.kind for version in history} == {VersionKind.WRITTEN}

    with Cluster(tmp_path, replicas=0, writer_flags=WRITER_FLAGS) as cluster:
        asyncio.run(scenario(cluster))


def test_a_write_that_is_not_answered_in_time_can_be_repeated(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, replicas=0, writer_flags=WRITER_FLAGS) as cluster,
        Client(cluster.writer.address) as client,
    ):
        client.add("ns", "before")
        cluster.writer.pause()
        with pytest.raises(
            OutcomeUnknown, match=r"may or may not have been done: no answer within 0\.5 s"
        ) as caught:
            client.add("ns", "in doubt", timeout_s=0.5)
        assert caught.value.reason == "OUTCOME_UNKNOWN"
        assert list(caught.value.attempts) == [cluster.writer.address]
        cluster.writer.resume()
        request_id = caught.value.metadata["request_id"]
        first = client.add("ns", "in doubt", request_id=request_id)
        assert client.add("ns", "in doubt", request_id=request_id) == first
        assert [memory.content for memory in client.list("ns").memories] == ["before", "in doubt"]


def test_a_write_in_doubt_stays_so_when_the_writer_does_not_come_back(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, replicas=0, writer_flags=WRITER_FLAGS) as cluster,
        Client(cluster.writer.address) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        client.add("ns", "before")
        cluster.writer.pause()
        write = threads.submit(client.add, "ns", "in doubt", timeout_s=3)
        endpoints = client._client._router._channels._endpoints
        # The watch of the topology, and the write.
        wait_until(lambda: [endpoint.users for endpoint in endpoints.values()] == [2], "it is sent")
        cluster.writer.kill()
        with pytest.raises(OutcomeUnknown, match="could not connect"):
            write.result()
        # What surely was not sent is not in doubt.
        with pytest.raises(Unavailable, match="the write was not done") as caught:
            client.add("ns", "never sent", timeout_s=0.2)
        assert type(caught.value) is Unavailable


CALLS: dict[str, Callable[[Client, str, str], Any]] = {
    "add": lambda client, ns, id: client.add(ns, "text", request_id=id),
    "add_many": lambda client, ns, id: client.add_many(ns, ["one", "two"], request_id=id),
    "skip": lambda client, ns, id: client.add(ns, "known", on_duplicate="skip", request_id=id),
    "update": lambda client, ns, id: client.update(ns, "known", importance=1, request_id=id),
    "delete": lambda client, ns, id: client.delete(ns, ["known", "unknown"], request_id=id),
    "purge": lambda client, ns, id: client.delete(ns, "known", purge=True, request_id=id),
    "delete_matching": lambda client, ns, id: client.delete_matching(
        ns, filter=Field("id") == "known", purge=True, request_id=id
    ),
    "update_namespace": lambda client, ns, id: client.update_namespace(ns, max_versions=3, request_id=id),
}


def test_a_request_is_answered_alike_after_what_it_added_has_expired(client: Client, namespace: str) -> None:
    end = datetime.now(UTC) + timedelta(seconds=1)
    first = client.add(namespace, "soon gone", expire_time=end, request_id="request-1")
    wait_until(lambda: datetime.now(UTC) > end, "its end")
    assert client.add(namespace, "soon gone", expire_time=end, request_id="request-1") == first
    with pytest.raises(InvalidArgument, match="must be in the future"):
        client.add(namespace, "soon gone", expire_time=end)
    client.add(namespace, "here", id="here")
    with pytest.raises(InvalidArgument, match="must be in the future"):
        client.update(namespace, "here", expire_time=end)


@pytest.mark.parametrize("name", CALLS)
def test_a_request_that_comes_again_is_answered_alike(client: Client, namespace: str, name: str) -> None:
    client.add(namespace, "known", id="known")
    first = CALLS[name](client, namespace, "request-1")
    assert CALLS[name](client, namespace, "request-1") == first
    with pytest.raises(InvalidArgument) as caught:
        client.add(namespace, "another request", request_id="request-1")
    assert (caught.value.reason, caught.value.metadata["field"]) == ("REQUEST_ID_REUSED", "request_id")
