"""The client's watches: across lost, hung and ended nodes, each change once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import Cluster, Node, wait_until

from agentmem.client import (
    AsyncClient,
    ChangeKind,
    Client,
    ClientClosed,
    HistoryPruned,
    InvalidArgument,
    MemoryChange,
    MemoryType,
    NewMemory,
    Unavailable,
    Watch,
    WatchPosition,
    change_stream,
    id_digest,
)

FLAGS = ("--embedder", "none")
CLUSTER_ID = str(uuid.UUID(int=7))


def taken(watch: Watch, count: int) -> list[MemoryChange]:
    """The next changes."""
    return [next(watch) for _ in range(count)]


def told(changes: list[MemoryChange]) -> list[tuple[str, str, int]]:
    return [(change.kind, change.memory.id, change.memory.version) for change in changes if change.memory]


@pytest.mark.parametrize(
    "position",
    [
        WatchPosition(CLUSTER_ID, 0, 0),
        WatchPosition(CLUSTER_ID, 1, 5),
        WatchPosition(CLUSTER_ID, 2**64 - 1, 2**64 - 1, 2**32 - 1),
    ],
)
def test_a_token_is_its_position(position: WatchPosition) -> None:
    token = str(position)
    assert token == position.token
    assert token.startswith("w1.")
    assert len(token) < 80
    assert WatchPosition.from_token(token) == position
    # Nothing that was damaged or cut passes for another position.
    for index in range(3, len(token)):
        changed = "A" if token[index] != "A" else "B"
        for bad in (token[:index], token[:index] + changed + token[index + 1 :]):
            try:
                assert WatchPosition.from_token(bad) == position  # of the last digit some bits say nothing
            except InvalidArgument as error:
                assert error.metadata == {"field": "after"}  # noqa: PT017


def test_what_is_no_position_is_refused_before_anything_is_sent(client: Client) -> None:
    bad: list[object] = ["", "w1.", "w2.AAAA", "hello", "w1.ä", -1, 2**64, True, 1.5]
    bad += [replace(WatchPosition(CLUSTER_ID, 1, 1), revision=-1)]
    for after in bad:
        with pytest.raises(InvalidArgument) as refused:
            client.watch("ns", after=after)  # type: ignore[arg-type]
        assert refused.value.metadata["field"] == "after", after
    with pytest.raises(InvalidArgument, match="timeout_s"):
        client.watch("ns", timeout_s=0)
    with pytest.raises(InvalidArgument, match="owner"):
        client.watch("ns", owner="ana")  # type: ignore[call-arg]


def test_what_the_cluster_does_not_have_is_refused(client: Client) -> None:
    foreign = WatchPosition(CLUSTER_ID, 1, 1)
    with client.watch("ns", after=foreign) as watch, pytest.raises(InvalidArgument, match="is of cluster"):
        next(watch)
    with client.watch("ns", after=2**60) as watch, pytest.raises(InvalidArgument, match="newest revision"):
        next(watch)


def test_all_kinds_of_changes(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    added = client.add(namespace, "tea", id="a", user_id="ana", tags=["x"])
    # Behind a revision: what comes after this write.
    with client.watch(namespace, after=added.revision - 1, include_embedding=True) as watch:
        assert watch.position is None
        client.add_many(namespace, [NewMemory("rum", id="b", ttl=0.2), NewMemory("ale", id="c")])
        client.update(namespace, "a", content="mint tea", user_id="ben")
        client.delete(namespace, ["c"])
        changes = taken(watch, 6)
        assert sorted(told(changes)) == [
            ("added", "a", 1),
            ("added", "b", 1),
            ("added", "c", 1),
            ("deleted", "c", 2),
            ("expired", "b", 2),
            ("updated", "a", 2),
        ]
        first = changes[0].memory
        assert first is not None
        assert (first.content, first.tags) == ("tea", ("x",))
        assert first.embedding is not None
        assert all(change.matches == (change.kind in ("added", "updated")) for change in changes)
        ended = {change.kind: change.memory for change in changes if not change.matches}
        assert ended[ChangeKind.EXPIRED].expire_time is not None  # type: ignore[union-attr]
        assert ended[ChangeKind.DELETED].namespace == namespace  # type: ignore[union-attr]
        client.delete(namespace, ["a"], purge=True)
        purge = next(watch)
        assert (purge.kind, purge.memory, purge.id_digest) == ("purged", None, id_digest(namespace, "a"))
        assert watch.position == purge.position
    shared_cluster.wait_settled()
    # Narrowed, from a token, by someone else; the purged memory was never there.
    with client.watch(namespace, after=str(changes[0].position), user_id="ana") as watch:
        assert next(watch).id_digest == id_digest(namespace, "a")
    with client.watch(namespace, after=changes[0].position, types=[MemoryType.EPISODIC]) as watch:
        assert [change.kind for change in taken(watch, 5)][-1] == "purged"


def test_a_change_is_gone_on_from_behind_it(client: Client, namespace: str) -> None:
    revision = client.add(namespace, "before").revision
    client.add_many(namespace, [NewMemory("tea", id=f"m{number}") for number in range(10)])
    with client.watch(namespace, after=revision) as watch:
        whole = taken(watch, 10)
        assert [change.memory.id for change in whole if change.memory] == [f"m{n}" for n in range(10)]
    for number in range(9):
        with client.watch(namespace, after=whole[number].position.token) as watch:
            assert taken(watch, 9 - number) == whole[number + 1 :]
    with client.watch(namespace, after=revision) as watch:
        for number in range(10):
            next(watch)
            assert watch.position == whole[number].position


def test_the_position_moves_while_nothing_matches(client: Client, namespace: str) -> None:
    with client.watch(namespace) as watch, ThreadPoolExecutor(1) as pool:
        waiting: Future[MemoryChange | None] = pool.submit(next, watch, None)
        wait_until(lambda: watch.position is not None, "the watch has begun")
        revision = client.add(f"{namespace}-2", "elsewhere").revision
        wait_until(lambda: watch.position is not None and watch.position.revision >= revision, "it moves")
        assert not waiting.done()
        # From another thread.
        watch.close()
        assert waiting.result(10) is None
        watch.close()
        assert next(watch, None) is None


def test_a_closed_client_ends_its_watches(shared_cluster: Cluster, namespace: str) -> None:
    client = Client(shared_cluster.writer.address)
    watch = client.watch(namespace)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, watch)
        wait_until(lambda: watch.position is not None, "the watch has begun")
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(10)
    watch.close()


class Writing:
    """One memory after the other, from a thread of its own; each is in one commit."""

    def __init__(self, client: Client) -> None:
        self.count = 0
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._client.add("ns", "tea", id=f"m{self.count:05}")
            self.count += 1

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()


class Following:
    """A watch that is read by a thread of its own."""

    def __init__(self, watch: Watch) -> None:
        self.ids: list[str] = []
        self.error: Exception | None = None
        self._watch = watch
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for change in self._watch:
                self.ids.append(change.memory.id if change.memory else "")
        except Exception as error:
            self.error = error

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.ids) >= count or self.error is not None, f"{count} changes")
        assert self.error is None

    def end(self) -> None:
        self._watch.close()
        self._thread.join()


@pytest.fixture
def small_cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, replicas=0, writer_flags=FLAGS) as cluster:
        for replica in [cluster.begin_replica(*FLAGS) for _ in range(2)]:
            replica.wait_ready()
        yield cluster


def test_lost_nodes_cost_no_change_and_repeat_none(
    small_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as a node may be silent that does not hang.
    monkeypatch.setattr(change_stream, "SILENCE_TIMEOUT_S", 2.5)
    first, second = small_cluster.replicas
    with Client(small_cluster.writer.address, timeout_s=30) as client, Writing(client) as writing:
        # Several, so that each node serves one.
        watches = [Following(client.watch("ns", after=0)) for _ in range(3)]

        def go_on() -> None:
            """Each tells what is written from now on."""
            reached = writing.count + 10
            for watch in watches:
                watch.wait_for(reached)

        def serving(node: Node) -> bool:
            return any(each.address == node.address for each in client.topology().replicas)

        go_on()
        first.kill()
        go_on()
        second.kill()
        go_on()
        for replica in (first, second):
            replica.restart()
            wait_until(lambda replica=replica: serving(replica), "it is back")  # type: ignore[misc]
        # They are with the writer now; it comes back as it was.
        small_cluster.writer.kill()
        small_cluster.writer.restart()
        go_on()
        first.pause()
        go_on()
        first.resume()
        second.terminate()
        go_on()
        for watch in watches:
            watch.end()
    for watch in watches:
        assert watch.error is None
        assert watch.ids == [f"m{number:05}" for number in range(len(watch.ids))]


def test_without_any_node_a_watch_says_so_and_can_go_on(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, replicas=0, writer_flags=FLAGS) as cluster,
        Client(cluster.writer.address) as client,
        client.watch("ns", after=0, timeout_s=0.5) as watch,
    ):
        client.add("ns", "tea", id="a")
        assert told(taken(watch, 1)) == [("added", "a", 1)]
        cluster.writer.kill()
        for _ in range(2):
            with pytest.raises(Unavailable):
                next(watch)
        cluster.writer.restart()
        client.add("ns", "rum", id="b")
        assert told(taken(watch, 1)) == [("added", "b", 1)]


def test_a_short_log_is_told_and_the_writer_may_have_a_longer_one(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=FLAGS) as cluster:
        cluster.begin_replica(*FLAGS, "--max-log-bytes", "1000").wait_ready()
        with Client(cluster.writer.address) as client:
            for number in range(30):
                client.add("ns", "tea", id=f"m{number:02}")
            expected = [("added", f"m{number:02}", 1) for number in range(30)]
            with Client(cluster.replicas[0].address) as other:
                wait_until(lambda: other.stats("ns").store.log_first_revision > 1, "the log is trimmed")
            with client.watch("ns", after=0) as watch:
                assert told(taken(watch, 30)) == expected
            cluster.writer.terminate()
            cluster.writer.restart("--max-log-bytes", "1000")
            wait_until(lambda: _refused(client), "the writer's log is trimmed, too")


def _refused(client: Client) -> bool:
    with client.watch("ns", after=0) as watch:
        try:
            next(watch)
        except HistoryPruned as error:
            assert int(error.metadata["oldest_revision"]) > 0  # noqa: PT017
            return True
    return False


def test_retention_is_told_or_skipped(shared_cluster: Cluster, client: Client, namespace: str) -> None:
    client.update_namespace(namespace, max_versions=1)
    revision = client.add(namespace, "one", id="a").revision
    client.update(namespace, "a", content="two")
    shared_cluster.wait_settled()
    with client.watch(namespace, after=revision - 1) as watch, pytest.raises(HistoryPruned):
        next(watch)
    with client.watch(namespace, after=revision - 1, skip_pruned=True) as watch:
        assert told(taken(watch, 1)) == [("updated", "a", 2)]


def test_watches_that_end_leave_room_for_others(tmp_path: Path) -> None:
    async def one(client: AsyncClient, number: int) -> None:
        watch = client.watch("ns", after=0)
        if number % 2:
            assert (await anext(watch)).kind == "added"
        waiting = asyncio.ensure_future(anext(watch))
        # Given up somewhere on its way to the second change, or the first.
        await asyncio.sleep(number % 5 * 0.01)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        if number % 3 == 0:
            await watch.aclose()

    async def run(address: str) -> None:
        async with AsyncClient(address) as client:
            await client.add("ns", "tea")
            # The writer takes 1,000 at a time.
            for _ in range(3):
                await asyncio.gather(*(one(client, number) for number in range(400)))

    with Cluster(tmp_path, replicas=0, writer_flags=FLAGS) as cluster:
        asyncio.run(run(cluster.writer.address))
