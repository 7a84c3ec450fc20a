"""Promotion: a replica becomes the writer, nobody follows the old one, nothing acknowledged is dropped."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import Memory, add, all_ids, error_of, update
from cluster import Cluster, Node, Stubs, client_of, held_back, wait_until
from command_line import Cli

from agentmem.client import Client, Consistency, Position, RevisionLost
from agentmem.client.session import format_token
from agentmem.core.standing import Standing, StandingError, StandingFile
from agentmem.core.store import Change, Store, WriteTransaction
from agentmem.v1 import cluster_pb2, memory_pb2, reader_pb2, writer_pb2

MIB = 1024**2
WRITER, REPLICA = cluster_pb2.NODE_ROLE_WRITER, cluster_pb2.NODE_ROLE_REPLICA


def describe(node: Node) -> cluster_pb2.GetNodeResponse | None:
    """What a node says of itself; None while it does not answer."""
    with Stubs(node.address) as stubs:
        try:
            return stubs.cluster.GetNode(cluster_pb2.GetNodeRequest(), timeout=2)
        except grpc.RpcError:
            return None


def promote(node: Node, *, force: bool = False) -> cluster_pb2.PromoteResponse:
    with Stubs(node.address) as stubs:
        return stubs.cluster.Promote(cluster_pb2.PromoteRequest(force=force), timeout=30)


def reason_of(call: Callable[[], object]) -> str:
    return error_of(call)[1]


def wait_for_one_history(nodes: list[Node], writer: Node | None = None) -> cluster_pb2.Position:
    """Returns the position that all nodes are at, one of them being the writer and the others serving."""
    found: list[cluster_pb2.GetNodeResponse] = []

    def agreed() -> bool:
        found[:] = [answer for node in nodes if (answer := describe(node)) is not None]
        writers = [answer.node.address for answer in found if answer.node.role == WRITER]
        return (
            len(found) == len(nodes)
            and len(writers) == 1
            and (writer is None or writers == [writer.address])
            and all(answer.node.state == cluster_pb2.NODE_STATE_SERVING for answer in found)
            and len({answer.position.SerializeToString() for answer in found}) == 1
        )

    try:
        wait_until(agreed, "one writer, and all nodes at its position")
    except AssertionError:
        print(found)
        for node in nodes:
            print(node.data_dir.name, node.process.poll(), *node.log, sep="\n")
        raise
    return found[0].position


def answers(node: Node) -> bool:
    return describe(node) is not None


def is_writer(node: Node) -> bool:
    found = describe(node)
    return found is not None and found.node.role == WRITER


def start_without_writer(*replicas: Node) -> None:
    """Starts replicas that were killed. They are not ready before they have reached a writer."""
    for replica in replicas:
        replica._start()
    for replica in replicas:
        wait_until(partial(answers, replica), "it answers")


def set_aside(node: Node) -> list[dict[str, Any]]:
    """The lines of the only file that a node set aside."""
    (path,) = (node.data_dir / "set-aside").iterdir()
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    first, last = header["common_revision"] + 1, header["last_revision"]
    assert path.name == f"epoch-{header['epoch']}-revisions-{first}-{last}.jsonl"
    return lines


def contents(address: str) -> dict[str, str]:
    """Content by id, of everything a node has in the namespace."""
    found: dict[str, str] = {}
    with Stubs(address) as stubs:
        ids = sorted(all_ids(stubs, "ns"))
        for start in range(0, len(ids), 1000):
            request = reader_pb2.GetMemoriesRequest(namespace="ns", ids=ids[start : start + 1000])
            found |= {memory.id: memory.content for memory in stubs.reader.GetMemories(request).memories}
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    with Cluster(tmp_path) as cluster:
        yield cluster


def has_said(node: Node, words: str) -> bool:
    return words in "".join(node.log)


class Writers:
    """Threads that add memories until told to stop, and what was acknowledged to them."""

    def __init__(self, client: Client, threads: int = 4) -> None:
        self.acknowledged: dict[str, str] = {}
        self._client = client
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._done = [self._pool.submit(self._run, name) for name in range(threads)]

    def _run(self, name: int) -> None:
        number = 0
        while not self._stopping.is_set():
            content = f"writer {name} memory {number}"
            result = self._client.add("ns", content, timeout_s=60)
            self.acknowledged[result.memories[0].id] = content
            number += 1

    def wait_for(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        wait_until(
            lambda: len(self.acknowledged) >= goal or any(each.done() for each in self._done), "writes"
        )

    def stop(self) -> None:
        self._stopping.set()
        for each in self._done:
            each.result(timeout=60)
        self._pool.shutdown()


def test_the_writer_hands_over_under_load_and_loses_nothing(cluster: Cluster) -> None:
    with client_of(cluster) as client:
        writers = Writers(client)
        writers.wait_for(100)
        answer = promote(cluster.replicas[0])
        assert answer.handed_over
        assert answer.epoch == 2
        assert set(answer.told_addresses) == {cluster.writer.address, cluster.replicas[1].address}
        writers.wait_for(100)
        writers.stop()
    wait_for_one_history(cluster.nodes, cluster.replicas[0])
    for node in cluster.nodes:
        assert contents(node.address) == writers.acknowledged
        assert not (node.data_dir / "set-aside").exists() or not list((node.data_dir / "set-aside").iterdir())


def test_the_successor_catches_up_before_it_takes_over(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    with Stubs(cluster.writer.address) as stubs, ThreadPoolExecutor(1) as pool:
        with held_back(replica):
            revision = add(stubs, "ns", Memory(id="a", content="not applied yet")).revision
            promotion = pool.submit(promote, replica)
            wait_until(partial(has_said, cluster.writer, "handing over"), "the writer is asked")
            assert reason_of(lambda: add(stubs, "ns", Memory(content="meanwhile"))) == "HANDING_OVER"
        answer = promotion.result()
    assert (answer.handed_over, answer.revision) == (True, revision)
    wait_for_one_history(cluster.nodes, replica)
    assert contents(replica.address) == {"a": "not applied yet"}


def with_unshipped(cluster: Cluster, count: int) -> list[str]:
    """Kills the writer when it has acknowledged writes that no replica has."""
    stubs = Stubs(cluster.writer.address)
    cluster.wait_searchable(add(stubs, "ns", Memory(id="shared", content="everybody has it")).revision)
    for replica in cluster.replicas:
        replica.kill()
    names = [f"only {number}" for number in range(count)]
    for name in names:
        add(stubs, "ns", Memory(id=name.replace(" ", "-"), content=name))
    update(stubs, "ns", Memory(id="shared", content="changed at last"), "content")
    stubs.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace="ns", ids=["only-0"]))
    stubs.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace="ns", ids=["only-1"], purge=True))
    stubs.channel.close()
    cluster.writer.kill()
    start_without_writer(*cluster.replicas)
    return names


def test_what_was_not_shipped_is_set_aside_when_the_old_writer_comes_back(cluster: Cluster) -> None:
    names = with_unshipped(cluster, 20)
    new = cluster.replicas[0]
    answer = promote(new)
    assert not answer.handed_over
    assert list(answer.untold_addresses) == [cluster.writer.address]
    with Client(new.address, timeout_s=30) as client:
        client.add("ns", "of the new epoch")
        cluster.writer._start()
        position = wait_for_one_history(cluster.nodes, new)
        assert position.epoch == 2
        lines = set_aside(cluster.writer)
        puts = [line["memory"]["content"] for line in lines if line["kind"] == "put"]
        # Of a memory that was purged its content is nowhere, not even here.
        assert puts == [*(name for name in names if name != "only 1"), "changed at last"]
        assert [line["memory"]["id"] for line in lines if line["kind"] == "delete"] == ["only-0"]
        assert [line["namespace"] for line in lines if line["kind"] == "purge"] == ["ns"]
        described = describe(cluster.writer)
        assert described is not None
        assert described.set_aside_entries == 23
        status = Cli(new.address)("status")
        assert "writer keeps 23 acknowledged writes that a promotion left behind" in status.stderr
        # Its indexes are those of the history that goes on.
        assert contents(cluster.writer.address) == contents(new.address)
        with Stubs(cluster.writer.address) as stubs:
            for text, expected in (("only changed", []), ("everybody", ["everybody has it"])):
                request = reader_pb2.SearchMemoriesRequest(
                    namespace="ns", text=text, mode=reader_pb2.SEARCH_MODE_TEXT
                )
                assert [hit.memory.content for hit in stubs.reader.SearchMemories(request).hits] == expected


def test_an_old_writer_that_wakes_steps_down(cluster: Cluster) -> None:
    stubs = Stubs(cluster.writer.address)
    cluster.wait_searchable(add(stubs, "ns", Memory(content="before")).revision)
    cluster.writer.pause()
    assert not promote(cluster.replicas[0]).handed_over
    cluster.writer.resume()
    acknowledged: list[int] = []
    refusals: list[grpc.RpcError] = []

    def refused() -> bool:
        try:
            acknowledged.append(add(stubs, "ns", Memory(content=f"late {len(acknowledged)}")).revision)
        except grpc.RpcError as error:
            refusals.append(error)
        return bool(refusals)

    wait_until(refused, "the old writer refuses writes")
    wait_for_one_history(cluster.nodes, cluster.replicas[0])
    # Whatever it took before it knew is not dropped.
    kept = set_aside(cluster.writer) if acknowledged else []
    assert len([line for line in kept if line["kind"] == "put"]) == len(acknowledged)
    assert reason_of(lambda: add(stubs, "ns", Memory(content="later"))) == "NOT_WRITER"
    stubs.channel.close()


def test_an_old_writer_asks_the_others_before_it_serves(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as stubs:
        cluster.wait_searchable(add(stubs, "ns", Memory(content="before")).revision)
    new, other = cluster.replicas
    cluster.writer.kill()
    promote(new)
    wait_for_one_history([new, other], new)
    new.kill()
    cluster.writer._start()
    wait_until(partial(answers, cluster.writer), "it answers")
    found = describe(cluster.writer)
    assert found is not None
    assert (found.node.role, found.known_epoch) == (REPLICA, 2)


def test_an_old_writer_that_knows_nobody_is_told(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as stubs:
        cluster.wait_searchable(add(stubs, "ns", Memory(content="before")).revision)
    cluster.writer.kill()
    promote(cluster.replicas[0])
    (cluster.writer.data_dir / "standing.json").unlink()
    cluster.writer._start()
    wait_for_one_history(cluster.nodes, cluster.replicas[0])


def test_a_replica_that_has_less_is_not_promoted_unless_forced(cluster: Cluster) -> None:
    stubs = Stubs(cluster.writer.address)
    behind, ahead = cluster.replicas
    cluster.wait_searchable(add(stubs, "ns", Memory(content="both have it")).revision)
    behind.kill()
    revision = add(stubs, "ns", Memory(content="one has it")).revision
    wait_until(
        lambda: (found := describe(ahead)) is not None and found.position.revision == revision, "shipped"
    )
    stubs.channel.close()
    cluster.writer.kill()
    start_without_writer(behind)
    assert reason_of(lambda: promote(behind)) == "PROMOTION_BEHIND"
    standing = json.loads((behind.data_dir / "standing.json").read_text())
    assert (standing["role"], standing["known_epoch"]) == ("replica", 1)
    ahead.pause()
    promote(behind, force=True)
    wait_until(partial(is_writer, behind), "it takes writes")
    # The new history uses the ordinals of the old one again, for other memories.
    with Stubs(behind.address) as stubs:
        revision = add(stubs, "ns", Memory(content="something else")).revision
    ahead.resume()
    wait_for_one_history([behind, ahead], behind)
    assert [line["memory"]["content"] for line in set_aside(ahead)] == ["one has it"]
    with Stubs(ahead.address) as stubs:
        for text, expected in (("one", []), ("something", ["something else"])):
            request = reader_pb2.SearchMemoriesRequest(
                namespace="ns", text=text, mode=reader_pb2.SEARCH_MODE_TEXT
            )
            request.consistency.min_revision = revision
            assert [hit.memory.content for hit in stubs.reader.SearchMemories(request).hits] == expected


def test_a_writer_that_lost_its_log_can_be_replaced_by_a_replica(cluster: Cluster) -> None:
    stubs = Stubs(cluster.writer.address)
    cluster.wait_searchable(add(stubs, "ns", Memory(content="first")).revision)
    old = cluster.path / "old"
    cluster.writer.terminate()
    shutil.copytree(cluster.writer.data_dir / "store", old)
    cluster.writer.restart()
    for number in range(10):
        revision = add(stubs, "ns", Memory(content=f"later {number}")).revision
    cluster.wait_searchable(revision)
    stubs.channel.close()
    cluster.writer.terminate()
    shutil.rmtree(cluster.writer.data_dir / "store")
    shutil.copytree(old, cluster.writer.data_dir / "store")
    cluster.writer.restart()
    for replica in cluster.replicas:
        wait_until(partial(has_said, replica, "the writer only at"), "the writer is refused")
        found = describe(replica)
        assert found is not None
        assert found.position.revision == revision
    promote(cluster.replicas[0])
    position = wait_for_one_history(cluster.nodes, cluster.replicas[0])
    assert position.revision == revision + 1
    assert len(contents(cluster.writer.address)) == 11


def test_an_epoch_that_was_left_behind_whole_is_set_aside(tmp_path: Path) -> None:
    """Epochs 2 and 3 both began behind revision 3, and epoch 4 goes on from epoch 2."""
    begun = (tmp_path / "writer" / "store", tmp_path / "replica-1" / "store")
    write(begun[0], "one", "two", "three")
    shutil.copytree(*begun)
    write(begun[0], "kept", epoch=2)
    write(begun[1], "left", epoch=3)
    write(begun[0], "goes on", epoch=4)
    with Cluster(tmp_path, replicas=1) as cluster, client_of(cluster) as client:
        assert wait_for_one_history(cluster.nodes).epoch == 4
        (line,) = set_aside(cluster.replicas[0])
        assert line["memory"]["content"] == "left"
        for node in cluster.nodes:
            assert set(contents(node.address).values()) == {"one", "two", "three", "kept", "goes on"}
        with pytest.raises(RevisionLost):
            # Of epoch 4 there is such a revision, too.
            client.get("ns", "left", consistency=Consistency(Position(3, 5)))
        assert client.get("ns", "kept", consistency=Consistency(Position(2, 5))) is not None
        # Written through two promotions without a read: the second one left something behind.
        cluster_id = uuid.UUID(client.topology().cluster_id)
        writing = client.session(format_token(cluster_id, Position(3, 5), [Position(1, 3)]))
        writing.add("ns", "of epoch 4")
        writing.add("ns", "another")
        for reader in (writing, client.session(writing.token)):
            with pytest.raises(RevisionLost):
                reader.get("ns", "kept")
        # Revision 5 of epoch 2 is there, but whoever also saw a later one of epoch 1 has lost that. To find
        # the one and forget the other would hide it from the next read.
        parted = client.session(format_token(cluster_id, Position(1, 6), [Position(2, 5)]))
        for _ in range(2):
            with pytest.raises(RevisionLost, match="not of one history"):
                parted.get("ns", "kept")


def write(path: Path, *contents: str, epoch: int = 1) -> None:
    """Adds memories to a store, behind the beginning of an epoch; the first one founds the cluster."""
    store = Store(path, map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    if not store.position().cluster_id:
        store.found_cluster()
    if epoch > store.position().epoch:
        store.commit(lambda transaction: transaction.begin_epoch(epoch, f"writer-{epoch}", 1))
    for content in contents:
        change = Change(
            Memory(
                namespace="ns",
                id=content.replace(" ", "-"),
                content=content,
                version=1,
                type=memory_pb2.MEMORY_TYPE_EPISODIC,
            )
        )
        store.commit(partial(append, [change]))
    store.close()


def append(changes: list[Change], transaction: WriteTransaction) -> None:
    transaction.append(changes, 1)


def test_roles_stay_whichever_program_is_started(cluster: Cluster) -> None:
    stubs = Stubs(cluster.writer.address)
    cluster.wait_searchable(add(stubs, "ns", Memory(content="text")).revision)
    stubs.channel.close()
    promote(cluster.replicas[0])
    wait_for_one_history(cluster.nodes, cluster.replicas[0])
    for node in cluster.nodes:
        node.kill()
    # With the commands of before: agentmem.server on the folder of what is a replica now, and so on.
    for node in cluster.nodes:
        node._start()
    position = wait_for_one_history(cluster.nodes, cluster.replicas[0])
    assert position.epoch == 2
    promote(cluster.writer)
    wait_for_one_history(cluster.nodes, cluster.writer)
    assert [node.terminate() for node in cluster.nodes] == [0, 0, 0]


def test_a_node_that_changes_its_role_hears_that_it_is_to_end(cluster: Cluster) -> None:
    with Stubs(cluster.writer.address) as stubs:
        cluster.wait_searchable(add(stubs, "ns", Memory(content="text")).revision)
    replica = cluster.replicas[0]
    promote(replica)
    # At whatever moment of the change it comes: what the old program misses is for the new one.
    replica.process.terminate()
    cluster.writer.process.terminate()
    assert [replica.process.wait(60), cluster.writer.process.wait(60)] == [0, 0]


def test_two_promotions_at_once_leave_one_writer(cluster: Cluster) -> None:
    stubs = Stubs(cluster.writer.address)
    cluster.wait_searchable(add(stubs, "ns", Memory(content="text")).revision)
    stubs.channel.close()
    cluster.writer.kill()
    with ThreadPoolExecutor(2) as pool:
        promotions = [pool.submit(promote, replica) for replica in cluster.replicas]
        # The later one may find that it is too late.
        assert any(each.exception() is None for each in promotions)
    position = wait_for_one_history(cluster.replicas)
    assert position.epoch >= 2
    with Client(cluster.replicas[0].address, timeout_s=30) as client:
        client.add("ns", "goes on")


def test_a_caller_that_claims_a_later_epoch_is_not_believed_alone(
    shared_cluster: Cluster, namespace: str
) -> None:
    stubs = Stubs(shared_cluster.writer.address)
    request = writer_pb2.AddMemoriesRequest(namespace=namespace, memories=[Memory(content="text")])

    def write(epoch: str) -> Callable[[], object]:
        return lambda: stubs.writer.AddMemories(request, metadata=(("agentmem-epoch", epoch),))

    assert reason_of(write("7")) == "STALE_EPOCH"
    assert reason_of(write("seven")) == "INVALID_FIELD"
    write("1")()
    add(stubs, namespace, Memory(content="others are served"))
    stubs.channel.close()


def test_a_replica_finds_the_writer_through_another_one(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        first = cluster.replicas[0]
        second = Node(
            "agentmem.replica", tmp_path / "second", "--node-id", "second", "--writer", first.address
        )
        second.wait_ready()
        second.stop()


def test_a_writer_is_not_promoted_and_a_stray_replica_neither(
    shared_cluster: Cluster, tmp_path: Path
) -> None:
    assert reason_of(lambda: promote(shared_cluster.writer)) == "ALREADY_WRITER"
    stray = Node("agentmem.replica", tmp_path, "--writer", "127.0.0.1:9", listen="127.0.0.1:0")
    wait_until(lambda: (tmp_path / "standing.json").exists(), "the replica has started")
    stray.stop()


def test_the_standing_of_another_cluster_counts_for_nothing(tmp_path: Path) -> None:
    file = StandingFile(tmp_path, "replica", b"a" * 16, 3)
    file.become(Standing(role="writer", cluster_id=(b"a" * 16).hex(), known_epoch=4, peers=("one:1",)))
    assert StandingFile(tmp_path, "replica", b"a" * 16, 3).now == file.now
    other = StandingFile(tmp_path, "replica", b"b" * 16, 1)
    assert other.now == Standing(role="replica", cluster_id=(b"b" * 16).hex(), known_epoch=1)
    file.meet(f"peer:{number}" for number in range(300))
    assert file.now.peers == tuple(f"peer:{number}" for number in range(200, 300))
    for damaged in ("{", '{"role": "king"}', '{"role": "writer", "peers": [], "more": 1}'):
        (tmp_path / "standing.json").write_text(damaged)
        with pytest.raises(StandingError, match=r"standing\.json"):
            StandingFile(tmp_path, "replica", b"a" * 16, 3)


def test_a_client_of_a_writer_that_hangs_finds_its_successor(cluster: Cluster) -> None:
    with client_of(cluster) as client:
        cluster.wait_searchable(client.add("ns", "before").revision)
        cluster.writer.pause()
        with ThreadPoolExecutor(1) as pool:
            # It is on its way to the writer that hangs, and longer than any test would wait for it.
            write = pool.submit(client.add, "ns", "meanwhile", id="m", timeout_s=600)
            promote(cluster.replicas[0])
            assert write.result(timeout=60).epoch == 2
        cluster.writer.resume()
        wait_for_one_history(cluster.nodes, cluster.replicas[0])
        # Should the old writer have taken it when it woke, that was set aside; here it is once.
        assert client.history("ns", "m").versions[0].memory.version == 1
