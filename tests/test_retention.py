"""What ends by itself, command by command on a store: versions whose times and order are out of the usual."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentmem.core.store import Change, Store
from agentmem.core.times import now_us
from agentmem.server.commands import UpdateMemory
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.importing import ImportVersions
from agentmem.server.namespaces import UpdateNamespace
from agentmem.server.retention import PruneByAge
from agentmem.server.sweeper import Sweeper
from agentmem.v1 import memory_pb2, writer_pb2

Memory = memory_pb2.Memory
NOW_US = 1_000_000
HOUR_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, map_size_bytes=2**24, max_map_size_bytes=2**26)
    store.found_cluster()
    return store


def imported_version(version: int, update_us: int, memory_id: str = "a") -> Change:
    memory = Memory(namespace="ns", id=memory_id, content=f"v{version}", version=version)
    memory.update_time.FromMicroseconds(update_us)
    return Change(memory)


def test_versions_behind_one_from_a_clock_ahead_end_in_their_order(store: Store) -> None:
    ahead = [imported_version(version, NOW_US + 100 * version) for version in (1, 2)]
    take_in = ImportVersions("ns", ahead, False, 0)
    store.commit(lambda transaction: take_in.run(transaction, NOW_US))
    update = UpdateMemory("ns", Memory(id="a", content="v3"), frozenset(("content",)), None, None, None, 0)
    answer = store.commit(lambda transaction: update.run(transaction, NOW_US))
    assert answer.memory.update_time.ToMicroseconds() == NOW_US + 200
    settings = writer_pb2.NamespaceSettings()
    settings.max_version_age.FromMicroseconds(1)
    keep = UpdateNamespace("ns", settings, {"max_version_age"}, None)
    store.commit(lambda transaction: keep.run(transaction, NOW_US))
    prune = PruneByAge("ns")
    # The third is newer than the second, by whichever clock.
    pruned = [
        store.commit(lambda transaction, at=NOW_US + after: prune.run(transaction, at))  # type: ignore[misc]
        for after in (1, 201, 201)
    ]
    assert pruned == [0, 2, 0]


def keep_versions(store: Store, count: int) -> None:
    settings = writer_pb2.NamespaceSettings(max_versions=count)
    command = UpdateNamespace("ns", settings, {"max_versions"}, None)
    store.commit(lambda transaction: command.run(transaction, now_us()))


def test_a_count_that_is_lowered_during_a_sweep_is_swept_for(store: Store) -> None:
    versions = [
        imported_version(version, version, memory_id)
        for memory_id, count in (("a", 4), ("b", 2))
        for version in range(1, count + 1)
    ]
    take_in = ImportVersions("ns", versions, False, 0)
    store.commit(lambda transaction: take_in.run(transaction, NOW_US))
    keep_versions(store, 3)

    async def sweep() -> None:
        lowered = False

        def lower() -> None:
            nonlocal lowered
            if not lowered:
                lowered = True
                keep_versions(store, 1)
                sweeper.watch("ns")

        queue = CommitQueue(
            store, max_commands=9, max_bytes=2**20, on_commit=lower, on_failure=lambda error: None
        )
        sweeper = Sweeper(store, queue, max_log_bytes=2**30, max_log_age_s=HOUR_S)
        await sweeper.sweep()
        assert lowered
        await queue.close()

    asyncio.run(sweep())
    with store.read() as transaction:
        space = transaction.namespace("ns")
    assert space is not None
    assert space.versions == 2


def test_a_damaged_record_holds_up_its_own_step_alone(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    ending = imported_version(1, 1)
    ending.memory.expire_time.FromMicroseconds(2)
    for change in (ending, imported_version(1, 1, "b")):
        take_in = ImportVersions("ns", [change], False, 0)
        store.commit(lambda transaction, take_in=take_in: take_in.run(transaction, NOW_US))  # type: ignore[misc]
    store.commit(
        lambda transaction: transaction._transaction.put(b"docs", (1).to_bytes(8, "big"), b"damaged")
    )

    async def sweep() -> None:
        queue = CommitQueue(
            store, max_commands=9, max_bytes=2**20, on_commit=lambda: None, on_failure=lambda error: None
        )
        sweeper = Sweeper(store, queue, max_log_bytes=1, max_log_age_s=HOUR_S)
        for _ in range(2):
            await sweeper.sweep()
        await queue.close()

    asyncio.run(sweep())
    with store.read() as transaction:
        assert transaction.first_log_revision == transaction.revision == 2
    # Said once, not with every sweep.
    assert caplog.text.count("record at ordinal 1 fails its checksum") == 1
