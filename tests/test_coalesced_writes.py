"""Adds, updates and deletions of one client travel together: each is done once, and answered for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cluster import Cluster
from embedding_endpoint import serve_endpoint

from agentmem.client import (
    STRONG,
    AlreadyExists,
    AsyncClient,
    InvalidArgument,
    NewMemory,
    NotFound,
    VersionMismatch,
)

CALLERS = 32


def test_each_add_is_done_by_itself(shared_cluster: Cluster, namespace: str) -> None:
    """Though they travel together: one that is refused takes no other along, and each is done once."""

    async def body() -> None:
        async with AsyncClient(shared_cluster.writer.address) as client:
            await client.add(namespace, "taken", id="taken")

            def adds() -> list[Awaitable[Any]]:
                calls: list[Awaitable[Any]] = [
                    client.add(namespace, f"text {number}", id=f"m{number}", request_id=f"request {number}")
                    for number in range(CALLERS)
                ]
                calls.insert(5, client.add(namespace, "other", id="taken"))
                calls.insert(6, client.add(namespace, "", id="empty"))
                calls.insert(7, client.add(namespace, "taken", on_duplicate="skip"))
                return calls

            first: list[Any] = await asyncio.gather(*adds(), return_exceptions=True)
            again: list[Any] = await asyncio.gather(*adds(), return_exceptions=True)
            for results in (first, again):
                assert isinstance(results.pop(5), AlreadyExists)
                assert isinstance(results.pop(5), InvalidArgument)
                assert results.pop(5).memories[0].outcome == "skipped"
            assert first == again
            assert [result.memories[0].id for result in first] == [f"m{number}" for number in range(CALLERS)]
            stored = [memory async for memory in client.iterate(namespace, consistency=STRONG)]
            assert len(stored) == CALLERS + 1
            assert client.statistics().coalesced >= 2 * CALLERS

    asyncio.run(body())


def test_each_update_is_done_by_itself(shared_cluster: Cluster, namespace: str) -> None:
    async def body() -> None:
        address = shared_cluster.writer.address
        async with AsyncClient(address) as client, AsyncClient(address, coalesce=False) as apart:
            ids = [f"m{number}" for number in range(CALLERS)]
            await client.add_many(namespace, [NewMemory("old", id=id) for id in [*ids, "last"]])

            def updates(update: Callable[..., Awaitable[Any]]) -> list[Awaitable[Any]]:
                calls = [
                    update(namespace, id, content=f"new {id}", expected_version=1, request_id=f"update {id}")
                    for id in ids
                ]
                calls.insert(5, update(namespace, "never", tags=["x"]))
                calls.insert(6, update(namespace, "last", content=""))
                calls.insert(7, update(namespace, "last", content="x", expected_version=7))
                return calls

            results: list[list[Any]] = []
            before = client.statistics()
            for update in (client.update, client.update, apart.update):
                results.append(await asyncio.gather(*updates(update), return_exceptions=True))
                for error in (NotFound, InvalidArgument, VersionMismatch):
                    assert isinstance(results[-1].pop(5), error)
            after = client.statistics()
            # Those that come again are answered alike, also when they come alone.
            assert results[0] == results[1] == results[2]
            for id, updated in zip(ids, results[0], strict=True):
                assert (updated.id, updated.version, updated.content) == (id, 2, f"new {id}")
            stored = [memory async for memory in client.iterate(namespace, consistency=STRONG)]
            assert {memory.id: memory.version for memory in stored} == dict.fromkeys(ids, 2) | {"last": 1}
            assert after.coalesced - before.coalesced >= 2 * CALLERS
            assert after.calls - before.calls < CALLERS
            assert apart.statistics().coalesced == 0

    asyncio.run(body())


def test_each_deletion_is_done_by_itself(shared_cluster: Cluster, namespace: str) -> None:
    async def body() -> None:
        address = shared_cluster.writer.address
        async with AsyncClient(address) as client, AsyncClient(address, coalesce=False) as apart:
            ids = [f"m{number}" for number in range(CALLERS)]
            await client.add_many(namespace, [NewMemory("tea", id=id) for id in [*ids, "last", "rum"]])

            def deletions(delete: Callable[..., Awaitable[Any]]) -> list[Awaitable[Any]]:
                calls = [delete(namespace, [id, "never"], request_id=f"deletion {id}") for id in ids]
                calls.insert(5, delete(namespace, "never", expected_version=1))
                calls.insert(6, delete(namespace, []))
                calls.insert(7, delete(namespace, "last", expected_version=7))
                return calls

            results: list[list[Any]] = []
            before = client.statistics()
            for delete in (client.delete, client.delete, apart.delete):
                results.append(await asyncio.gather(*deletions(delete), return_exceptions=True))
                for error in (NotFound, InvalidArgument, VersionMismatch):
                    assert isinstance(results[-1].pop(5), error)
            after = client.statistics()
            assert results[0] == results[1] == results[2]
            for id, deleted in zip(ids, results[0], strict=True):
                assert (deleted.deleted_ids, deleted.missing_ids) == ((id,), ("never",))
            assert after.coalesced - before.coalesced >= 2 * CALLERS
            assert after.calls - before.calls < CALLERS
            assert apart.statistics().coalesced == 0
            # By filter each goes alone, and a purge has its receipt among others, too.
            purged, plain, by_filter = await asyncio.gather(
                client.delete(namespace, "rum", purge=True),
                client.delete(namespace, "last"),
                client.delete_matching(f"{namespace}-none", everything=True),
            )
            assert purged.receipt is not None
            assert (purged.receipt.memory_count, plain.receipt, by_filter.deleted_count) == (1, None, 0)
            assert [memory async for memory in client.iterate(namespace, consistency=STRONG)] == []

    asyncio.run(body())


def test_changes_of_callers_who_wait_for_theirs_keep_their_order(
    shared_cluster: Cluster, namespace: str
) -> None:
    """Each adds, changes and deletes one memory again and again, among many who do."""

    async def body() -> None:
        async with AsyncClient(shared_cluster.writer.address) as client:

            async def caller(number: int) -> None:
                own, id = client.session(), f"m{number}"
                for turn_number in range(3):
                    added = await own.add(namespace, "0", id=id)
                    version = added.memories[0].version
                    for step in range(1, 4):
                        updated = await own.update(namespace, id, content=f"{turn_number} {step}")
                        assert updated.version == version + step
                    found = await own.get(namespace, id)
                    assert found is not None
                    assert found.content == f"{turn_number} 3"
                    assert (await own.delete(namespace, id)).deleted_ids == (id,)
                    assert await own.get(namespace, id) is None

            await asyncio.gather(*map(caller, range(CALLERS)))
            assert client.statistics().coalesced > 0

    asyncio.run(body())


def test_what_needs_no_embedder_does_not_wait_for_one(tmp_path: Path) -> None:
    """Of writes that come at the same moment, while the embedder hangs."""
    with (
        serve_endpoint() as endpoint,
        Cluster(tmp_path, replicas=0, writer_flags=endpoint.flags) as cluster,
    ):

        async def body() -> None:
            async with AsyncClient(cluster.writer.address) as client:
                await client.update_namespace("ns", embedder="openai")
                await client.add_many("ns", [NewMemory("tea", id=f"m{number}") for number in range(4)])
                endpoint.shut_after(0)
                slow = [
                    asyncio.create_task(call)
                    for call in (
                        *(client.update("ns", f"m{number}", content="rum") for number in range(2)),
                        *(client.add("ns", "rum", id=f"a{number}") for number in range(2)),
                    )
                ]
                async with asyncio.timeout(10):
                    quick: list[Any] = await asyncio.gather(
                        *(client.update("ns", f"m{number}", tags=["x"]) for number in (2, 3)),
                        *(
                            client.add("ns", "milk", embedding=[1.0] * 26, embedding_model="letters")
                            for _ in range(2)
                        ),
                    )
                assert not any(task.done() for task in slow)
                endpoint.open()
                done: list[Any] = [*quick, *await asyncio.gather(*slow)]
                assert len({each.revision for each in done}) == 8
                assert client.statistics().coalesced == 8

        asyncio.run(body())
