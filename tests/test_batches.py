"""Several requests in one call: each ends as it would have alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import lmdb
import pytest
from calls import Memory, add, all_ids, check_failure, error_of, floats, get, outcome_of
from cluster import Cluster, Stubs, wait_until

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.embedders import Embedders
from agentmem.core.errors import AgentMemError
from agentmem.core.store import Store
from agentmem.server.embedding import TextEmbedder, Wish
from agentmem.v1 import consistency_pb2, failure_pb2, reader_pb2, reader_pb2_grpc, writer_pb2

MIB = 1024**2
REQUESTS = 100
SKIP = writer_pb2.DUPLICATE_POLICY_SKIP
APPLIED = consistency_pb2.ACKNOWLEDGEMENT_LEVEL_APPLIED
STRONG = consistency_pb2.Consistency(strong=True)
MODES = (
    reader_pb2.SEARCH_MODE_HYBRID,
    reader_pb2.SEARCH_MODE_SEMANTIC,
    reader_pb2.SEARCH_MODE_TEXT,
)


def adds(
    stubs: Stubs, *requests: writer_pb2.AddMemoriesRequest
) -> list[writer_pb2.AddMemoriesResponse | failure_pb2.Failure]:
    answer = stubs.writer.BatchAddMemories(writer_pb2.BatchAddMemoriesRequest(requests=requests), timeout=60)
    return [outcome_of(result) for result in answer.results]


def searches(
    stubs: Stubs, *requests: reader_pb2.SearchMemoriesRequest
) -> list[reader_pb2.SearchMemoriesResponse | failure_pb2.Failure]:
    batch = reader_pb2.BatchSearchMemoriesRequest(requests=requests)
    return [outcome_of(result) for result in stubs.reader.BatchSearchMemories(batch, timeout=60).results]


def an_add(namespace: str, *memories: Memory, **fields: Any) -> writer_pb2.AddMemoriesRequest:
    return writer_pb2.AddMemoriesRequest(namespace=namespace, memories=memories, **fields)


def test_each_add_of_a_batch_ends_as_alone(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="there", content="tea"))
    possible = [
        an_add(namespace, Memory(id="a", content="tea"), Memory(id="b", content="rum")),
        an_add(f"{namespace}-b", Memory(id="a", content="tea")),
        an_add(namespace, Memory(content="tea"), on_duplicate=SKIP),
    ]
    impossible = [
        an_add("", Memory(content="tea")),
        an_add(namespace),
        an_add(namespace, Memory(id="c", content="")),
        an_add(namespace, Memory(id="c", content="tea"), Memory(id="there", content="tea")),
        an_add(namespace, Memory(content="tea", embedding=floats(1, 2))),
        an_add(namespace, Memory(content="tea"), on_duplicate=9),
        an_add(namespace, Memory(content="tea"), request_id="r" * 200),
        an_add(namespace, Memory(content="tea"), acknowledgement={"level": APPLIED, "replicas": 101}),
    ]
    outcomes = adds(writer, possible[0], *impossible, *possible[1:])
    for failure, request in zip(outcomes[1:-2], impossible, strict=True):
        check_failure(failure, partial(writer.writer.AddMemories, request))
    first, second, third = outcomes[0], *outcomes[-2:]
    assert isinstance(first, writer_pb2.AddMemoriesResponse)
    assert isinstance(second, writer_pb2.AddMemoriesResponse)
    assert isinstance(third, writer_pb2.AddMemoriesResponse)
    assert [memory.id for memory in first.memories] == ["a", "b"]
    assert [memory.id for memory in third.memories] == ["there"]
    assert first.revision < second.revision <= third.revision
    assert {first.epoch, second.epoch, third.epoch} == {1}
    assert all_ids(writer, namespace) == {"there", "a", "b"}
    assert all_ids(writer, f"{namespace}-b") == {"a"}


def test_an_add_of_a_batch_that_comes_again_is_answered_and_not_repeated(
    writer: Stubs, namespace: str
) -> None:
    one = an_add(namespace, Memory(content="one"), request_id="1")
    two = an_add(namespace, Memory(content="two"), request_id="2")
    first = adds(writer, one, two)
    assert adds(writer, two, one) == first[::-1]
    assert writer.writer.AddMemories(one) == first[0]
    (reused,) = adds(writer, an_add(namespace, Memory(content="three"), request_id="2"))
    assert isinstance(reused, failure_pb2.Failure)
    assert reused.reason == "REQUEST_ID_REUSED"
    assert len(all_ids(writer, namespace)) == 2


def test_the_embeddings_of_a_batch_are_those_of_its_texts(writer: Stubs, namespace: str) -> None:
    texts = [f"{word} and {other}" for word in ("tea", "rum", "milk") for other in ("honey", "lemon", "ice")]
    alone = {}
    for text in texts:
        added = add(writer, f"{namespace}-alone", Memory(id=text, content=text))
        assert added.revision
        (stored,) = get(writer, f"{namespace}-alone", text, embedding=True).memories
        alone[text] = stored.embedding
    model = stored.embedding_model
    given = Memory(id="given", content="given", embedding=alone[texts[0]], embedding_model=model)
    requests = [
        an_add(namespace, *(Memory(id=text, content=text) for text in texts[:4])),
        an_add(namespace, Memory(id=texts[4], content=texts[4]), given),
        an_add(namespace, *(Memory(id=text, content=text) for text in texts[5:])),
    ]
    assert all(isinstance(each, writer_pb2.AddMemoriesResponse) for each in adds(writer, *requests))
    for text in texts:
        (stored,) = get(writer, namespace, text, embedding=True).memories
        assert stored.embedding == alone[text]
        assert stored.embedding_model == model


def test_the_adds_of_a_batch_share_commits(writer: Stubs, shared_cluster: Cluster, namespace: str) -> None:
    requests = [an_add(namespace, Memory(id=f"m{number}", content="tea")) for number in range(REQUESTS)]
    path = str(shared_cluster.writer.data_dir / "store")
    environment = lmdb.open(path, max_dbs=32, readonly=True, create=False)
    try:
        before = environment.info()["last_txnid"]
        outcomes = adds(writer, *requests)
        commits = environment.info()["last_txnid"] - before
    finally:
        environment.close()
    added = [each for each in outcomes if isinstance(each, writer_pb2.AddMemoriesResponse)]
    assert len({each.revision for each in added}) == REQUESTS
    assert 1 <= commits <= REQUESTS // 4


def test_each_add_of_a_batch_waits_for_the_replicas_it_asks_for(writer: Stubs, namespace: str) -> None:
    applied = consistency_pb2.Acknowledgement(level=APPLIED, replicas=2)
    applied.timeout.FromSeconds(60)
    too_many = consistency_pb2.Acknowledgement(level=APPLIED, replicas=3)
    too_many.timeout.FromMilliseconds(100)
    local, reached, missed = adds(
        writer,
        an_add(namespace, Memory(content="one")),
        an_add(namespace, Memory(content="two"), acknowledgement=applied),
        an_add(namespace, Memory(content="three"), acknowledgement=too_many),
    )
    assert isinstance(local, writer_pb2.AddMemoriesResponse)
    assert isinstance(reached, writer_pb2.AddMemoriesResponse)
    assert isinstance(missed, writer_pb2.AddMemoriesResponse)
    assert not local.HasField("acknowledged")
    assert (reached.acknowledged.reached, reached.acknowledged.applied) == (True, 2)
    assert not missed.acknowledged.reached
    assert len(all_ids(writer, namespace)) == 3


def test_each_search_of_a_batch_ends_as_alone(
    writer: Stubs, replica: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    contents = ["green tea", "black tea", "dark rum"]
    memories = [Memory(id=f"m{number}", content=content) for number, content in enumerate(contents)]
    revision = add(writer, namespace, *memories).revision
    shared_cluster.wait_searchable(revision)

    def a_search(text: str, **fields: Any) -> reader_pb2.SearchMemoriesRequest:
        demanded = consistency_pb2.Consistency(min_revision=revision)
        return reader_pb2.SearchMemoriesRequest(
            namespace=namespace, text=text, consistency=demanded, **fields
        )

    possible = [a_search(text, mode=mode, top_k=2) for text in ("tea", "rum") for mode in MODES]
    impossible = [
        a_search("", mode=reader_pb2.SEARCH_MODE_TEXT),
        a_search("tea", mode=9),
        a_search("tea", top_k=-1),
        reader_pb2.SearchMemoriesRequest(text="tea"),
        a_search("", embedding=floats(1, 2)),
    ]
    outcomes = searches(replica, *possible[:3], *impossible, *possible[3:])
    for failure, request in zip(outcomes[3:-3], impossible, strict=True):
        check_failure(failure, partial(replica.reader.SearchMemories, request))
    for found, request in zip(outcomes[:3] + outcomes[-3:], possible, strict=True):
        assert isinstance(found, reader_pb2.SearchMemoriesResponse)
        assert found.hits
        assert list(found.hits) == list(replica.reader.SearchMemories(request).hits)
        assert (found.epoch, found.applied_revision >= revision) == (1, True)


def test_each_search_of_a_batch_shows_what_it_demands(writer: Stubs, replica: Stubs, namespace: str) -> None:
    for number in range(10):
        add(writer, namespace, Memory(id=f"m{number}", content="tea"))
        assert f"m{number}" in strongly_found(replica, namespace, "tea")
    # One that waits for what does not come holds up its own answer alone.
    ahead = consistency_pb2.Consistency(min_revision=2**60)
    fresh, stale = searches(
        replica,
        reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea"),
        reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea", consistency=ahead),
    )
    assert isinstance(fresh, reader_pb2.SearchMemoriesResponse)
    assert isinstance(stale, failure_pb2.Failure)
    assert (stale.reason, stale.metadata["field"]) == ("REPLICA_STALE", "consistency.min_revision")


def strongly_found(replica: Stubs, namespace: str, text: str) -> set[str]:
    """In the end: on a busy machine a replica may need longer than a search waits."""
    request = reader_pb2.SearchMemoriesRequest(
        namespace=namespace, text=text, mode=reader_pb2.SEARCH_MODE_TEXT, top_k=100, consistency=STRONG
    )
    answers: list[reader_pb2.SearchMemoriesResponse] = []

    def is_answered() -> bool:
        (each,) = searches(replica, request)
        if isinstance(each, reader_pb2.SearchMemoriesResponse):
            answers.append(each)
        return bool(answers)

    wait_until(is_answered, "an answer")
    return {hit.memory.id for hit in answers[-1].hits}


def test_what_does_not_fit_one_answer_fails_alone(
    writer: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    large = [Memory(content="tea", embedding=floats(1, 0)) for _ in range(100)]
    for memory in large:
        memory.metadata["ballast"].string_value = "z" * 64_000
    revision = add(writer, namespace, *large).revision
    search = reader_pb2.SearchMemoriesRequest(
        namespace=namespace, text="tea", mode=reader_pb2.SEARCH_MODE_TEXT, top_k=100
    )
    search.consistency.min_revision = revision
    small = reader_pb2.SearchMemoriesRequest(namespace=f"{namespace}-none", text="tea")
    batch = reader_pb2.BatchSearchMemoriesRequest(requests=[search] * 10 + [small])
    options = [("grpc.max_receive_message_length", 64 * MIB)]
    shared_cluster.wait_searchable(revision)
    with grpc.insecure_channel(shared_cluster.replicas[0].address, options=options) as channel:
        answer = reader_pb2_grpc.ReaderServiceStub(channel).BatchSearchMemories(batch, timeout=60)
    outcomes = [outcome_of(result) for result in answer.results]
    failures = [each for each in outcomes if isinstance(each, failure_pb2.Failure)]
    assert {failure.reason for failure in failures} == {"ANSWER_TOO_LARGE"}
    # Six MB each.
    assert len(failures) == 3
    assert all(len(each.hits) == 100 for each in outcomes[:10] if each not in failures)
    assert isinstance(outcomes[-1], reader_pb2.SearchMemoriesResponse)


def test_a_batch_has_bounds(writer: Stubs, replica: Stubs, namespace: str) -> None:
    one = an_add(namespace, Memory(content="tea"))
    many = an_add(namespace, *(Memory(content="tea") for _ in range(501)))
    search = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea")
    for call in (
        lambda: adds(writer),
        lambda: adds(writer, *[one] * (REQUESTS + 1)),
        lambda: adds(writer, many, many),
        lambda: searches(replica),
        lambda: searches(replica, *[search] * (REQUESTS + 1)),
    ):
        code, reason, metadata, _ = error_of(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert metadata["field"] == "requests"
    assert all_ids(writer, namespace) == set()


def test_batches_go_where_single_calls_go(writer: Stubs, replica: Stubs, namespace: str) -> None:
    assert error_of(lambda: adds(replica, an_add(namespace, Memory(content="tea"))))[1] == "NOT_WRITER"
    search = reader_pb2.SearchMemoriesRequest(namespace=namespace, text="tea")
    assert error_of(lambda: searches(writer, search))[1] == "NOT_REPLICA"


class PickyEndpoint(BaseHTTPRequestHandler):
    """An embeddings endpoint that refuses a call with a certain text."""

    calls = 0

    def do_POST(self) -> None:
        type(self).calls += 1
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        if "refused" in texts:
            self.send_error(400)
            return
        rows = [{"index": index, "embedding": [len(text), 1.0]} for index, text in enumerate(texts)]
        data = json.dumps({"data": rows}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    PickyEndpoint.calls = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), PickyEndpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_texts_are_embedded_in_one_go_and_one_that_is_refused_harms_no_other(
    endpoint: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
    threads = BoundedThreads("tests", threads=1, max_calls=10)
    embedders = Embedders(["openai"], openai_url=endpoint, openai_model="lengths")
    embedder = TextEmbedder(store, embedders, threads)

    def embedded(*wishes: list[str]) -> list[Any]:
        outcomes = asyncio.run(
            embedder.embed_each([Wish("ns", wish, [False] * len(wish)) for wish in wishes])
        )
        return [
            outcome if isinstance(outcome, AgentMemError) else [made.vectors["lengths"] for made in outcome]
            for outcome in outcomes
        ]

    first, nothing, second = embedded(["a", "aaa"], [], ["aa"])
    assert PickyEndpoint.calls == 1
    assert [round(float(vector[0] / vector[1])) for vector in (*first, *second)] == [1, 3, 2]
    assert list(nothing) == []
    first, failed, second = embedded(["a"], ["aa", "refused"], ["aaa"])
    assert isinstance(failed, AgentMemError)
    assert failed.reason == "EMBEDDER_FAILED"
    assert [round(float(vector[0] / vector[1])) for vector in (*first, *second)] == [1, 3]
    threads.close()
    store.close()
