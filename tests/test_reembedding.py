"""The embeddings of a namespace are replaced by another embedder's, while it is written and searched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from calls import error_of
from cluster import Cluster, Node, Stubs, client_of, wait_until
from command_line import Cli, failed
from embedding_endpoint import Endpoint, letters_vector, serve_endpoint
from store_scan import check_level, check_scan, scan
from test_promotion import promote, wait_for_one_history

from agentmem.client import (
    AgentMemError,
    BegunReembedding,
    Client,
    FailedPrecondition,
    InvalidArgument,
    NewMemory,
    NotFound,
    SearchResult,
    at_least,
)
from agentmem.core.embedders import WordLlamaEmbedder
from agentmem.core.store import Store
from agentmem.core.verification import verify
from agentmem.v1 import reader_pb2, writer_pb2, writer_pb2_grpc

MIB = 1024**2
QUESTION = "who likes green tea in the morning"
WORDS = ("tea", "rain", "tax law", "a red cat", "jazz", "the blue sea", "chess", "old maps", "fresh bread")
TOP_K = 20
NS = "moves"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve_endpoint() as endpoint:
        yield endpoint


@contextmanager
def running(path: Path, endpoint: Endpoint, replicas: int = 2) -> Iterator[tuple[Cluster, Client]]:
    with Cluster(path, replicas=0, writer_flags=endpoint.flags) as cluster, client_of(cluster) as client:
        for _ in range(replicas):
            cluster.begin_replica(*endpoint.flags)
        for replica in cluster.replicas:
            replica.wait_ready()
        yield cluster, client


def content(number: int) -> str:
    return f"{WORDS[number % len(WORDS)]} and {WORDS[number % 7]} on day {number}"


def fill(client: Client, namespace: str, count: int) -> int:
    """Memories, old versions and deletions; returns the revision of the last write."""
    client.add_many(namespace, [NewMemory(content(number), id=f"m{number}") for number in range(count)])
    for number in range(0, count, 10):
        client.update(namespace, f"m{number}", content=content(number + 1))
    return client.delete(namespace, [f"m{number}" for number in range(5, count, 20)]).revision


def is_moved(client: Client, namespace: str, since: int) -> bool:
    return client.stats(namespace, consistency=at_least(since)).namespace.reembedding is None


def wait_moved(cluster: Cluster, client: Client, namespace: str, since: int) -> None:
    wait_until(lambda: is_moved(client, namespace, since), f"new embeddings in {namespace}")
    cluster.wait_settled()


def semantic_request() -> reader_pb2.SearchMemoriesRequest:
    return reader_pb2.SearchMemoriesRequest(
        namespace=NS, text=QUESTION, mode=reader_pb2.SEARCH_MODE_SEMANTIC, top_k=TOP_K
    )


def searched(node: Node, cosines: Cosines) -> tuple[int, set[str]]:
    """How many hits the node finds, and of which embeddings their scores can be."""
    with Stubs(node.address) as stubs:
        found = stubs.reader.SearchMemories(semantic_request(), timeout=30)
    return len(found.hits), cosines.spaces(found)


class Cosines:
    """What a hit of one embedding space has for a score."""

    def __init__(self) -> None:
        self._wordllama = WordLlamaEmbedder()
        self._questions = self.of(QUESTION)

    def of(self, text: str) -> dict[str, np.ndarray]:
        (vector,) = self._wordllama.embed([text])
        assert vector is not None
        return {"wordllama": vector, "letters": letters_vector(text)}

    def spaces(self, found: SearchResult | reader_pb2.SearchMemoriesResponse) -> set[str]:
        """The spaces that all of the scores can be of."""
        possible = {"wordllama", "letters"}
        for hit in found.hits:
            vectors = self.of(hit.memory.content)
            possible &= {
                name
                for name in possible
                if abs(float(vectors[name] @ self._questions[name]) - hit.score) < 1e-3
            }
        return possible


class Traffic:
    """Searches each replica, and writes, until it is ended; errors and what searches found are kept."""

    def __init__(self, cluster: Cluster, cosines: Cosines) -> None:
        self._cluster = cluster
        self._cosines = cosines
        self._ending = threading.Event()
        self.problems: list[str] = []
        self.spaces: list[set[str]] = []
        self.written = 0
        self._threads = [threading.Thread(target=self._search), threading.Thread(target=self._write)]

    def _guarded(self, work: Callable[[Client], None]) -> None:
        with client_of(self._cluster) as client:
            while not self._ending.is_set():
                try:
                    work(client)
                except AgentMemError as error:
                    self.problems.append(f"{error.reason}: {error.message}")

    def _search(self) -> None:
        def search(client: Client) -> None:
            found = client.search(NS, QUESTION, mode="semantic", top_k=TOP_K)
            if len(found.hits) != TOP_K:
                self.problems.append(f"{len(found.hits)} hits at revision {found.applied_revision}")
            spaces = self._cosines.spaces(found)
            if not spaces:
                self.problems.append(f"a mix of embeddings at revision {found.applied_revision}")
            self.spaces.append(spaces)

        self._guarded(search)

    def _write(self) -> None:
        def write(client: Client) -> None:
            number = self.written
            client.add(NS, content(1000 + number), id=f"w{number}")
            client.update(NS, f"m{number % 5 * 2 + 11}", tags=[f"t{number}"])
            client.update(NS, f"w{number}", content=content(2000 + number))
            self.written += 1

        self._guarded(write)

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def check_nodes(nodes: list[Node]) -> None:
    """Ends the nodes; asserts that their stores are sound, and level with the first one's."""
    scans = []
    for node in nodes:
        assert node.terminate() == 0
        store = Store(
            node.data_dir / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB, read_only=True
        )
        try:
            assert verify(store).problems == []
            scans.append(scan(store))
        finally:
            store.close()
        check_scan(scans[-1])
    for other in scans[1:]:
        check_level(other, scans[0])


def is_cleared(node: Node) -> bool:
    """Whether its store has one vector for each of its versions at the most; read while the node runs."""
    store = Store(
        node.data_dir / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB, read_only=True
    )
    try:
        with store.read() as transaction:
            return not any(space.is_clearing for _, space in transaction.namespaces())
    finally:
        store.close()


def test_a_namespace_moves_while_it_is_written_and_searched(endpoint: Endpoint, tmp_path: Path) -> None:
    cosines = Cosines()
    with running(tmp_path, endpoint) as (cluster, client):
        before = fill(client, NS, 200)
        cluster.wait_searchable(before)
        then = {memory.id: memory.content for memory in client.list(NS, page_size=1000).memories}
        client.update(NS, "m11", content="something else")
        # An index of then is kept from here on.
        past = client.search(NS, QUESTION, mode="semantic", top_k=1000, as_of=before)
        assert (len(past.hits), cosines.spaces(past)) == (len(then), {"wordllama"})
        with Traffic(cluster, cosines) as traffic:
            wait_until(lambda: len(traffic.spaces) > 5, "searches")
            begun = client.reembed(NS, "openai")
            assert (begun.coming_model, begun.embedding_model[:9]) == ("letters", "wordllama")
            wait_moved(cluster, client, NS, begun.revision)
            seen = len(traffic.spaces)
            wait_until(lambda: len(traffic.spaces) > seen + 20, "searches")
        assert traffic.problems == []
        assert traffic.written > 0
        assert traffic.spaces[0] == {"wordllama"}
        assert traffic.spaces[-1] == {"letters"}
        # Once, and not back. (Both replicas answer, and switch when they hear of it.)
        stats = client.stats(NS).namespace
        assert (stats.embedding_model, stats.dimension) == ("letters", 26)
        assert stats.vectors == stats.memories
        assert stats.settings.embedder == "openai"

        # As if it had been of the other embedder from the beginning: an export of all that was written.
        cluster.wait_settled()
        client.update_namespace("fresh", embedder="openai")
        memories = [version.memory for version in client.export(NS, newest_only=True)]
        again = client.add_many("fresh", [NewMemory(memory.content) for memory in memories])
        cluster.wait_searchable(again.revision)
        for mode in ("semantic", "hybrid"):
            moved, fresh = (client.search(name, QUESTION, mode=mode, top_k=TOP_K) for name in (NS, "fresh"))
            assert [round(hit.score, 5) for hit in moved.hits] == [round(hit.score, 5) for hit in fresh.hits]
            assert {hit.memory.embedding_model for hit in moved.hits} == {"letters"}
        # The past has the texts of then, and answers with the new embeddings, for there are no others.
        past = client.search(NS, QUESTION, mode="semantic", top_k=1000, as_of=before)
        assert {hit.memory.id: hit.memory.content for hit in past.hits} == then
        assert cosines.spaces(past) == {"letters"}
        # What it was before has the new embeddings as well.
        (old,) = client.history(NS, "m10", include_embedding=True).versions[1:]
        assert np.allclose(old.memory.embedding or (), letters_vector(old.memory.content), atol=1e-6)
        cluster.wait_settled()
        wait_until(lambda: is_cleared(cluster.writer), "old vectors cleared")
        cluster.wait_settled()
        check_nodes(cluster.nodes)


def shut_in_the_middle(client: Client, endpoint: Endpoint) -> BegunReembedding:
    """Begins to replace embeddings, and returns when one batch has its own and the next is on its way."""
    endpoint.shut_after(2)  # one is asked for its dimension
    begun = client.reembed(NS, "openai")
    assert endpoint.waiting.wait(30)
    return begun


def in_the_middle(client: Client, since: int) -> bool:
    coming = client.stats(NS, consistency=at_least(since)).namespace.reembedding
    return coming is not None and 0 < coming.done_versions < coming.versions


def test_the_work_goes_on_behind_kill_9_of_each_process(endpoint: Endpoint, tmp_path: Path) -> None:
    cosines = Cosines()
    with running(tmp_path, endpoint) as (cluster, client):
        cluster.wait_searchable(fill(client, NS, 150))
        away, stays = cluster.replicas
        begun = shut_in_the_middle(client, endpoint)
        wait_until(lambda: in_the_middle(client, begun.revision), "the first batch on a replica")
        cluster.writer.kill()
        away.kill()
        assert searched(stays, cosines) == (TOP_K, {"wordllama"})
        endpoint.open()
        endpoint.shut_after(1)
        cluster.writer.restart()
        assert endpoint.waiting.wait(30)
        client.update(NS, "m1", tags=["new"])  # with its old vector
        # Another begins in the middle, and one comes back there.
        third = cluster.begin_replica(*endpoint.flags).wait_ready()
        stays.kill()
        stays.restart()
        cluster.wait_settled()
        for replica in (stays, third):
            assert searched(replica, cosines) == (TOP_K, {"wordllama"})
        endpoint.open()
        wait_moved(cluster, client, NS, begun.revision)
        wait_until(lambda: is_cleared(cluster.writer), "old vectors cleared")
        # What it needs for its next entries is gone.
        away.restart()
        cluster.wait_settled()
        assert any("snapshot" in line for line in away.log)
        for replica in cluster.replicas:
            assert searched(replica, cosines) == (TOP_K, {"letters"})
        check_nodes(cluster.nodes)


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_promoted_replica_goes_on_with_the_work(endpoint: Endpoint, tmp_path: Path, is_dead: bool) -> None:
    cosines = Cosines()
    with running(tmp_path, endpoint) as (cluster, client):
        cluster.wait_searchable(fill(client, NS, 150))
        successor = cluster.replicas[0]
        begun = shut_in_the_middle(client, endpoint)
        wait_until(lambda: in_the_middle(client, begun.revision), "the first batch on a replica")
        cluster.wait_settled()
        if is_dead:
            cluster.writer.kill()
            promote(successor)
        else:
            endpoint.shut_after(0)
            endpoint.gate.set()
            promote(successor)
        endpoint.open()
        if is_dead:
            cluster.writer.restart()
        wait_for_one_history(cluster.nodes, successor)
        with Client(successor.address, timeout_s=30.0) as later:
            wait_until(lambda: is_moved(later, NS, begun.revision), "new embeddings")
            wait_until(lambda: is_cleared(successor), "old vectors cleared")
            wait_for_one_history(cluster.nodes, successor)
        for replica in cluster.nodes:
            if replica is not successor:
                assert searched(replica, cosines) == (TOP_K, {"letters"})
        check_nodes([successor, *(node for node in cluster.nodes if node is not successor)])


@pytest.fixture(scope="module")
def calm(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Client]]:
    """A cluster for tests that harm none of its processes."""
    with running(tmp_path_factory.mktemp("calm"), endpoint, replicas=1) as (cluster, client):
        yield cluster, client


def test_what_cannot_be_done_is_refused_by_name(calm: tuple[Cluster, Client]) -> None:
    cluster, client = calm
    client.add("refusing", "x")
    with pytest.raises(InvalidArgument, match="embedder is 'multilingual'; this server has wordllama"):
        client.reembed("refusing", "multilingual")
    with pytest.raises(InvalidArgument, match="embedder is missing"):
        client.reembed("refusing", "")
    with pytest.raises(InvalidArgument, match="embedder is 'none', which makes no embeddings"):
        client.reembed("refusing", "none")
    with pytest.raises(NotFound, match="there is no namespace 'nowhere'"):
        client.reembed("nowhere", "openai")
    with pytest.raises(FailedPrecondition, match="agentmem reembed"):
        client.update_namespace("refusing", embedder="openai")
    with pytest.raises(InvalidArgument, match=r"settings.embedder is 'magic'; this server has wordllama"):
        client.update_namespace("refusing", embedder="magic")
    assert client.reembed("refusing", "wordllama").coming_model == ""

    # A node that was started without the embedder of a namespace names it.
    client.update_namespace("foreign", embedder="openai")
    added = client.add("foreign", "green tea")
    bare = cluster.begin_replica().wait_ready()
    cluster.wait_searchable(added.revision)
    request = reader_pb2.SearchMemoriesRequest(namespace="foreign", text="tea", top_k=1)
    with Stubs(bare.address) as stubs:
        _, reason, _, message = error_of(lambda: stubs.reader.SearchMemories(request))
    assert reason == "EMBEDDING_REQUIRED"
    assert "were made by 'letters' and this server embeds with 'wordllama" in message
    assert bare.terminate() == 0
    cluster.replicas.remove(bare)


def test_the_work_can_be_stopped_and_begun_again(endpoint: Endpoint, calm: tuple[Cluster, Client]) -> None:
    cluster, client = calm
    fill(client, NS, 100)
    begun = shut_in_the_middle(client, endpoint)
    assert client.reembed(NS, "openai").coming_model == "letters"
    stopped = client.reembed(NS, "wordllama")
    assert (stopped.embedding_model, stopped.coming_model) == (begun.embedding_model, "")
    endpoint.open()
    wait_until(lambda: is_cleared(cluster.writer), "vectors cleared")
    stats = client.stats(NS, consistency=at_least(stopped.revision)).namespace
    assert (stats.reembedding, stats.embedding_model) == (None, begun.embedding_model)
    # From where nothing of the first time is left, as a command.
    cli = Cli(cluster.writer.address, NS)
    failed(cli("reembed", "--embedder", "magic"), 2, "this server has wordllama, openai")
    document = cli.json("reembed", NS, "--embedder", "openai", "--wait")
    assert document.pop("revision") > stopped.revision
    assert document == {"namespace": NS, "embedding_model": "letters", "coming_embedding_model": ""}
    shown = cli.json("stats")["namespace"]
    assert (shown["embedding_model"], shown["coming_versions"]) == ("letters", 0)
    assert shown["embedder"] == cli.json("namespace", "show")["embedder"] == "openai"


def test_embeddings_that_callers_brought_are_replaced_too(
    endpoint: Endpoint, calm: tuple[Cluster, Client]
) -> None:
    cluster, client = calm
    client.add_many("brought", [NewMemory("x", embedding=[1.0, 0.0], embedding_model="mine")])
    endpoint.shut_after(0)
    assert client.reembed("brought", "openai").coming_model == "letters"
    assert endpoint.waiting.wait(30)
    with pytest.raises(FailedPrecondition, match=r"'mine'.*send an embedding"):
        client.add("brought", "y")
    # There is no embedder of the present ones that could be named.
    assert client.reembed("brought", "none").coming_model == ""
    endpoint.open()
    begun = client.reembed("brought", "openai")
    wait_moved(cluster, client, "brought", begun.revision)
    assert [memory.embedding_model for memory in client.list("brought").memories] == ["letters"]


def updated_in_a_batch(cluster: Cluster, namespace: str) -> writer_pb2.UpdateMemoryResponse:
    """The answer to the first of two updates: that of the content, which is embedded."""
    with grpc.insecure_channel(cluster.writer.address) as channel:
        batch = writer_pb2.BatchUpdateMemoriesRequest()
        for path in ("content", "importance"):
            request = batch.requests.add(namespace=namespace)
            request.memory.id, request.memory.content, request.memory.importance = "first", "black tea", 0.5
            request.update_mask.paths.append(path)
        answer = writer_pb2_grpc.WriterServiceStub(channel).BatchUpdateMemories(batch, timeout=60)
    first, second = (result.response.memory for result in answer.results)
    # It was carried out behind the other, as its first embedding was of no use.
    assert (second.version, first.version) == (2, 3)
    return answer.results[0].response


@pytest.mark.parametrize("method", ["add", "update", "batch"])
def test_a_write_that_was_on_its_way_all_the_while_gets_an_embedding_of_the_new_model(
    endpoint: Endpoint, calm: tuple[Cluster, Client], method: str
) -> None:
    cluster, client = calm
    namespace = f"on-the-way-{method}"
    client.update_namespace(namespace, embedder="openai")
    client.add(namespace, "green tea", id="first")
    endpoint.shut_after(0)
    with ThreadPoolExecutor(1) as executor:
        if method == "add":
            written: Future[Any] = executor.submit(client.add, namespace, "black tea", id="late")
        elif method == "batch":
            written = executor.submit(updated_in_a_batch, cluster, namespace)
        else:
            written = executor.submit(client.update, namespace, "first", content="black tea")
        assert endpoint.waiting.wait(30)
        with client_of(cluster) as other:
            begun = other.reembed(namespace, "wordllama")
            wait_moved(cluster, other, namespace, begun.revision)
        endpoint.open()
        revision = written.result(30).revision
    cluster.wait_searchable(revision)
    found = client.search(namespace, "black tea", mode="semantic")
    assert found.hits[0].memory.content == "black tea"
    assert abs(found.hits[0].score - 1) < 1e-3
    assert {hit.memory.embedding_model[:9] for hit in found.hits} == {"wordllama"}
