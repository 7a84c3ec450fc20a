"""WatchMemories over the wire: streams on real processes."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from calls import add, error_of, floats, update
from cluster import Cluster, Node, Stubs, wait_until
from memories import condition, make_memory

from agentmem.core import watching
from agentmem.core.call_metrics import CallMetrics
from agentmem.core.layout import KEY
from agentmem.core.serving import GrpcServer
from agentmem.core.signals import Signal
from agentmem.core.store import Change, Store, WriteTransaction
from agentmem.core.watching import Watches
from agentmem.server.services import WriterReader
from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, reader_pb2_grpc, writer_pb2

MIB = 1024 * 1024
DEADLINE_S = 30.0
Memory = memory_pb2.Memory
Position = reader_pb2.WatchPosition
ADDED = reader_pb2.CHANGE_KIND_ADDED
UPDATED = reader_pb2.CHANGE_KIND_UPDATED
DELETED = reader_pb2.CHANGE_KIND_DELETED
EXPIRED = reader_pb2.CHANGE_KIND_EXPIRED
PURGED = reader_pb2.CHANGE_KIND_PURGED


class Watch:
    """One stream, read by a thread of its own."""

    def __init__(self, stubs: Stubs, namespace: str, **request: object) -> None:
        message = reader_pb2.WatchMemoriesRequest(namespace=namespace, **request)  # type: ignore[arg-type]
        self.call = stubs.reader.WatchMemories(message)
        self.messages: list[reader_pb2.WatchMemoriesResponse] = []
        self.error: grpc.RpcError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for message in self.call:
                with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()

    @property
    def changes(self) -> list[reader_pb2.MemoryChange]:
        return [change for message in self.messages for change in message.changes]

    def wait(self, holds: Callable[[], bool]) -> Watch:
        with self._changed:
            assert self._changed.wait_for(holds, DEADLINE_S), (self.messages, self.error)
        return self

    def wait_for(self, count: int) -> list[reader_pb2.MemoryChange]:
        """The first changes; cancels the stream."""
        self.wait(lambda: len(self.changes) >= count or self.error is not None)
        self.call.cancel()
        return self.changes[:count]

    def begun(self) -> Watch:
        """Returns when the first message is there."""
        return self.wait(lambda: bool(self.messages))


def told(changes: Sequence[reader_pb2.MemoryChange]) -> list[tuple[int, str, int]]:
    return [(change.kind, change.memory.id, change.memory.version) for change in changes]


@pytest.fixture(scope="session")
def nodes(shared_cluster: Cluster) -> Iterator[list[Stubs]]:
    stubs = [Stubs(node.address) for node in shared_cluster.nodes]
    yield stubs
    for each in stubs:
        each.channel.close()


def test_changes_come_as_they_are_made_on_every_node(nodes: list[Stubs], namespace: str) -> None:
    watches = [Watch(node, namespace).begun() for node in nodes]
    for watch in watches:
        assert not watch.messages[0].changes
    first = add(nodes[0], namespace, Memory(id="a", content="tea"), Memory(id="b", content="rum"))
    update(nodes[0], namespace, Memory(id="a", content="mint tea"), "content")
    delete = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["b"])
    last = nodes[0].writer.DeleteMemories(delete)
    for watch in watches:
        found = watch.wait_for(4)
        assert told(found) == [(ADDED, "a", 1), (ADDED, "b", 1), (UPDATED, "a", 2), (DELETED, "b", 2)]
        assert [change.matches for change in found] == [True, True, True, False]
        assert [(each.position.revision, each.position.operation) for each in found] == [
            (first.revision, 1),
            (first.revision, 0),
            (first.revision + 1, 0),
            (last.revision, 0),
        ]
        assert found[2].memory.content == "mint tea"
        assert not found[3].memory.content


def test_a_watch_goes_on_in_the_middle_of_a_batch_at_another_node(nodes: list[Stubs], namespace: str) -> None:
    start = Watch(nodes[0], namespace).begun().messages[0].position
    add(nodes[0], namespace, *(Memory(id=f"m{number}", content="tea") for number in range(6)))
    for number, node in enumerate(nodes):
        first = Watch(node, namespace, after=start).wait_for(6)
        assert [change.memory.id for change in first] == [f"m{number}" for number in range(6)]
        for index, change in enumerate(first[:-1]):
            other = nodes[(number + 1) % 3]
            rest = Watch(other, namespace, after=change.position).wait_for(5 - index)
            assert [each.memory.id for each in rest] == [f"m{number}" for number in range(index + 1, 6)]


def test_a_memory_that_leaves_the_filter_is_told(nodes: list[Stubs], namespace: str) -> None:
    ana = condition("user_id", filter_pb2.OPERATOR_EQ, "ana")
    watches = [Watch(node, namespace, filter=ana).begun() for node in nodes]
    writer = nodes[0]
    for memory_id, user_id in (("a", "ana"), ("b", "ben")):
        add(writer, namespace, Memory(id=memory_id, content="tea", user_id=user_id))
    update(writer, namespace, Memory(id="a", user_id="ben"), "user_id")
    update(writer, namespace, Memory(id="a", content="not hers"), "content")
    update(writer, namespace, Memory(id="b", user_id="ana"), "user_id")
    for memory_id in "ab":
        request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=[memory_id])
        writer.writer.DeleteMemories(request)
    for watch in watches:
        found = watch.wait_for(4)
        assert told(found) == [(ADDED, "a", 1), (UPDATED, "a", 2), (UPDATED, "b", 2), (DELETED, "b", 3)]
        assert [change.matches for change in found] == [True, False, True, False]


def test_a_purge_tells_a_digest_and_takes_its_changes_along(nodes: list[Stubs], namespace: str) -> None:
    ana = condition("user_id", filter_pb2.OPERATOR_EQ, "ana")
    live = [Watch(node, namespace, filter=ana).begun() for node in nodes]
    start = live[0].messages[0].position
    add(nodes[0], namespace, Memory(id="a", content="tea", user_id="ana"), Memory(id="b", content="rum"))
    for watch in live:
        watch.wait(lambda watch=watch: len(watch.changes) == 1)  # type: ignore[misc]
    # The same ids elsewhere are others.
    add(nodes[0], f"{namespace}-2", Memory(id="a", content="tea"))
    for space in (f"{namespace}-2", namespace):
        request = writer_pb2.DeleteMemoriesRequest(namespace=space, ids=["a", "b"], purge=True)
        nodes[0].writer.DeleteMemories(request)
    digests = [hashlib.blake2b(f"{namespace}\0{each}".encode(), digest_size=16).digest() for each in "ab"]
    for watch in live:
        found = watch.wait_for(3)
        assert told(found) == [(ADDED, "a", 1), (PURGED, "", 0), (PURGED, "", 0)]
        assert [change.purged_id_digest for change in found[1:]] == digests
    for node in nodes:
        found = Watch(node, namespace, after=start).wait_for(2)
        assert [change.purged_id_digest for change in found] == digests


def test_embeddings_expiry_and_quiet_time(nodes: list[Stubs], namespace: str) -> None:
    watches = [Watch(node, namespace, include_embedding=True).begun() for node in nodes]
    begun = watches[0].messages[0].position
    memory = Memory(id="a", content="tea", embedding=floats(0, 2))
    memory.ttl.FromMilliseconds(300)
    revision = add(nodes[0], namespace, memory).revision
    for watch in watches:
        watch.wait(lambda watch=watch: len(watch.changes) == 2)  # type: ignore[misc]
        assert told(watch.changes) == [(ADDED, "a", 1), (EXPIRED, "a", 2)]
        assert watch.changes[0].memory.embedding == floats(0, 1)
        assert watch.changes[1].memory.HasField("expire_time")
    # What others write moves the position, with messages that have nothing else.
    last = add(nodes[0], f"{namespace}-2", Memory(content="rum")).revision
    assert begun.revision < revision < last
    for watch in watches:
        watch.wait(lambda watch=watch: watch.messages[-1].position.revision >= last)  # type: ignore[misc]
        assert not watch.messages[-1].changes
        watch.call.cancel()


def test_positions_that_cannot_be_are_refused(nodes: list[Stubs], namespace: str) -> None:
    revision = add(nodes[0], namespace, Memory(content="tea")).revision

    def failure(node: Stubs, **request: object) -> tuple[str, str, str]:
        message = reader_pb2.WatchMemoriesRequest(**request)  # type: ignore[arg-type]
        code, reason, metadata, _ = error_of(lambda: next(iter(node.reader.WatchMemories(message))))
        return code.name, reason, metadata.get("field", "")

    for number, node in enumerate(nodes):
        Watch(node, namespace, after=Position(revision=revision)).begun().call.cancel()
        assert failure(node) == ("INVALID_ARGUMENT", "NAMESPACE_REQUIRED", "namespace")
        beyond = Position(revision=revision, operation=2)
        expected = ("INVALID_ARGUMENT", "INVALID_FIELD", "after.operation")
        assert failure(node, namespace=namespace, after=beyond) == expected
        unknown = condition("colour", filter_pb2.OPERATOR_EQ, "red")
        assert failure(node, namespace=namespace, filter=unknown)[1] == "FILTER_UNSUPPORTED"
        stale = ("UNAVAILABLE", "REPLICA_STALE", "after")
        ahead = Position(revision=2**60)
        expected = stale if number else ("INVALID_ARGUMENT", "INVALID_FIELD", "after.revision")
        assert failure(node, namespace=namespace, after=ahead) == expected
        assert failure(node, namespace=namespace, after=Position(epoch=99, revision=1)) == stale


def test_a_log_that_is_trimmed_ends_watches_that_are_behind(tmp_path: Path) -> None:
    flags = ("--embedder", "none", "--max-log-bytes", "3000")
    with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster:
        stubs = Stubs(cluster.writer.address)
        for number in range(60):
            add(stubs, "ns", Memory(id=f"m{number:02}", content="tea"))

        def first_revision() -> int:
            return stubs.reader.GetStats(reader_pb2.GetStatsRequest(namespace="ns")).store.log_first_revision

        wait_until(lambda: first_revision() > 10, "the log is trimmed")
        watch = Watch(stubs, "ns", after=Position())
        watch.wait(lambda: watch.error is not None)
        assert watch.messages == []
        _, reason, metadata, _ = error_of(lambda: _raise(watch.error))
        assert reason == "HISTORY_PRUNED"
        oldest = int(metadata["oldest_revision"])
        found = Watch(stubs, "ns", after=Position(revision=oldest)).wait_for(60 - oldest)
        assert [change.memory.id for change in found] == [f"m{number:02}" for number in range(oldest, 60)]
        stubs.channel.close()


def _raise(error: Exception | None) -> None:
    assert error is not None
    raise error


def test_termination_is_quick_with_open_watches(tmp_path: Path) -> None:
    # The time for those that take nothing.
    flags = ("--embedder", "none", "--drain-s", "1")
    with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster:
        cluster.begin_replica(*flags).wait_ready()
        stubs = [Stubs(node.address) for node in cluster.nodes]
        large = [Memory(content="x" * 200_000) for _ in range(40)]
        add(stubs[0], "ns", *large)
        cluster.wait_settled()
        for node, each in reversed(list(zip(cluster.nodes, stubs, strict=True))):
            watches = [Watch(each, "ns").begun() for _ in range(100)]
            # These take nothing of what there is for them.
            idle = [
                each.reader.WatchMemories(reader_pb2.WatchMemoriesRequest(namespace="ns", after=Position()))
                for _ in range(3)
            ]
            began_s = time.monotonic()
            assert node.terminate() == 0
            assert time.monotonic() - began_s < 10
            for watch in watches:
                watch.wait(lambda watch=watch: watch.error is not None)  # type: ignore[misc]
                _, reason, _, _ = error_of(lambda watch=watch: _raise(watch.error))  # type: ignore[misc]
                assert reason == "SHUTTING_DOWN"
            del idle
        for each in stubs:
            each.channel.close()


def anonymous_bytes(node: Node) -> int:
    """The memory that a process has for itself alone."""
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def test_watchers_that_take_nothing_cost_no_memory(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        for _ in range(4):
            add(stubs, "ns", *(Memory(content="x" * 250_000) for _ in range(32)))
        request = reader_pb2.WatchMemoriesRequest(namespace="ns", after=Position())
        # One that takes everything, so that what reading costs at most is spent before.
        assert len(Watch(stubs, "ns", after=Position()).wait_for(128)) == 128
        before = anonymous_bytes(cluster.writer)
        idle = [stubs.reader.WatchMemories(request) for _ in range(12)]
        for call in idle:
            next(iter(call))
        assert len(Watch(stubs, "ns", after=Position()).wait_for(128)) == 128
        # All of it for each would be 384 MiB.
        assert anonymous_bytes(cluster.writer) - before < 64 * MIB
        # And they get it when they take it.
        taken = 0
        while taken < 128:
            taken += len(next(iter(idle[0])).changes)
        for call in idle:
            call.cancel()
        stubs.channel.close()


# A server in this process, to look into


class LocalServer:
    """The reads of a writer, with a store that is written to directly; to be used with ``async with``."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
        self.store.found_cluster()
        self.news = Signal()

    async def __aenter__(self) -> LocalServer:
        self.watches = Watches(self.store, self.news, is_writer=True)
        self.reader = WriterReader(self.store, self.watches)
        self.server = GrpcServer("127.0.0.1:0", CallMetrics(slow_s=1.0))
        self.server.add(reader_pb2_grpc.add_ReaderServiceServicer_to_server, self.reader)
        await self.server.start(())
        self.channel = grpc.aio.insecure_channel(self.server.address)
        self.stub = reader_pb2_grpc.ReaderServiceStub(self.channel)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.channel.close()
        self.watches.drain()
        await self.server.stop(1)
        self.reader.close()
        self.store.close()

    def put(self, memory_id: str, namespace: str = "tests", *, notify: bool = True) -> None:
        change = Change(make_memory(memory_id, namespace=namespace))
        self.store.commit(lambda transaction: transaction.append([change], 1))
        if notify:
            self.news.notify()

    async def changes(self, namespace: str, after: Position, count: int) -> list[reader_pb2.MemoryChange]:
        """The first changes behind a position."""
        request = reader_pb2.WatchMemoriesRequest(namespace=namespace, after=after)
        call = self.stub.WatchMemories(request)
        found: list[reader_pb2.MemoryChange] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(found) < count:
                message = await call.read()
                assert isinstance(message, reader_pb2.WatchMemoriesResponse)
                found += message.changes
        call.cancel()
        return found[:count]


async def until(condition: Callable[[], bool], what: str) -> None:
    """As wait_until, on the event loop."""
    give_up_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_s, what
        await asyncio.sleep(0.01)  # the poll's pace


def test_watches_that_are_given_up_leave_nothing_behind(tmp_path: Path) -> None:
    async def run() -> None:
        async with LocalServer(tmp_path) as local:
            for number in range(20):
                local.put(f"m{number}")
            request = reader_pb2.WatchMemoriesRequest(namespace="tests", after=Position())

            async def watch(messages: int) -> None:
                """Gives up behind so many messages, or at once."""
                call = local.stub.WatchMemories(request)
                for _ in range(messages):
                    await call.read()
                call.cancel()

            tasks: list[int] = []
            for round in range(4):
                await asyncio.gather(*(watch(number % 4) for number in range(260)))
                local.put(f"n{round}")
                await until(lambda: not local.watches._open, "every watch is over")
                gc.collect()
                # One of the server's own, at the most, may come and go.
                tasks.append(len(asyncio.all_tasks()))
                assert not local.news._waiters
            assert max(tasks[1:]) <= tasks[0] + 1, tasks
            assert local.watches._threads._calls == 0

    asyncio.run(run())


def test_only_so_many_watches_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHES", 3)

    async def run() -> None:
        async with LocalServer(tmp_path) as local:
            request = reader_pb2.WatchMemoriesRequest(namespace="tests")
            calls = [local.stub.WatchMemories(request) for _ in range(3)]
            for call in calls:
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await local.stub.WatchMemories(request).read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.value.details() == "3 watches are open"
            calls.pop().cancel()
            await until(lambda: local.watches._open == 2, "there is room")
            calls.append(local.stub.WatchMemories(request))
            await calls[-1].read()
            local.put("a")
            for call in calls:
                message = await call.read()
                assert isinstance(message, reader_pb2.WatchMemoriesResponse)
                assert [change.memory.id for change in message.changes] == ["a"]

    asyncio.run(run())


def test_many_namespaces_and_watches_that_come_and_go(tmp_path: Path) -> None:
    rng = random.Random("namespaces")
    spaces = ("one", "two", "three")
    written: dict[str, list[str]] = {name: [] for name in spaces}

    async def run() -> None:
        async with LocalServer(tmp_path) as local:

            async def follow(name: str) -> None:
                """Takes some changes, is cut off behind one of them, and goes on."""
                position = Position()
                seen: list[str] = []
                while len(seen) < 100:
                    count = rng.randint(1, min(20, 100 - len(seen)))
                    found = await local.changes(name, position, count)
                    seen += [change.memory.id for change in found]
                    position = found[-1].position
                assert seen == written[name]

            async def write() -> None:
                while any(len(ids) < 100 for ids in written.values()):
                    name = rng.choice([name for name in spaces if len(written[name]) < 100])
                    memory_id = f"m{len(written[name])}"
                    written[name].append(memory_id)
                    # Some commits are heard of together with the next.
                    local.put(memory_id, name, notify=rng.random() < 0.7)
                    await asyncio.sleep(0)
                local.news.notify()

            await asyncio.gather(write(), *(follow(name) for name in spaces for _ in range(4)))

    asyncio.run(run())


def test_what_nobody_has_heard_of_yet_is_told_to_who_comes(tmp_path: Path) -> None:
    async def run() -> None:
        async with LocalServer(tmp_path) as local:
            local.put("a")
            quiet = local.stub.WatchMemories(reader_pb2.WatchMemoriesRequest(namespace="tests"))
            first = await quiet.read()
            assert isinstance(first, reader_pb2.WatchMemoriesResponse)
            local.put("b", "other", notify=False)
            found = await local.changes("other", first.position, 1)
            assert found[0].memory.id == "b"
            quiet.cancel()

    asyncio.run(run())


def test_damage_of_the_log_ends_watches_and_is_named(tmp_path: Path) -> None:
    def damage(transaction: WriteTransaction) -> None:
        transaction.append([Change(make_memory("b"))], 1)
        transaction._transaction.put(b"log", KEY.pack(2), b"damaged")

    async def run() -> None:
        async with LocalServer(tmp_path) as local:
            local.put("a")
            # Of another namespace, too: it cannot be told whose the damaged entry was.
            requests = [reader_pb2.WatchMemoriesRequest(namespace=name) for name in ("tests", "other")]
            calls = [local.stub.WatchMemories(request) for request in requests]
            for call in calls:
                await call.read()
            local.store.commit(damage)
            local.news.notify()
            for call in calls:
                # Behind what was on its way.
                assert await call.code() is grpc.StatusCode.DATA_LOSS
                assert await call.details() == "the log entry at revision 2 fails its checksum"

    asyncio.run(run())
