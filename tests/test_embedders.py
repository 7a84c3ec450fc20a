"""Embedders: what they make of texts, and the processes run with each of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster, client_of

from agentmem.client import AgentMemError, NewMemory
from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.embedders import Embedders, OpenAIEmbedder, WordLlamaEmbedder
from agentmem.core.errors import Unavailable
from agentmem.core.layout import NamespaceState
from agentmem.core.process_metrics import anonymous_memory_bytes
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.server.embedding import MAX_INLINE_CHARACTERS, TextEmbedder, Wish


class Endpoint(BaseHTTPRequestHandler):
    """An embeddings endpoint that counts letters: real HTTP, a model anybody can check."""

    answer_status = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/embeddings" or self.headers["Authorization"] != "Bearer secret":
            self.send_error(404)
            return
        rows = [
            {"index": index, "embedding": [text.count(letter) + 0.01 for letter in "abcdefgh"]}
            for index, text in enumerate(body["input"])
        ]
        data = json.dumps({"model": body["model"], "data": rows[::-1]}).encode()
        self.send_response(type(self).answer_status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests are quiet."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(Endpoint) as url:
        yield url


def test_wordllama_makes_unit_vectors() -> None:
    cat, kitten, tax, nothing = WordLlamaEmbedder().embed(["a cat", "a kitten", "income tax law", ""])
    assert nothing is None
    assert cat is not None
    assert kitten is not None
    assert tax is not None
    assert cat.shape == (256,)
    assert cat.dtype == np.float32
    assert np.isclose(np.linalg.norm(cat), 1, rtol=1e-5)
    assert cat @ kitten > cat @ tax


def test_short_texts_of_writes_are_embedded_on_the_event_loop_when_that_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []
    embed = WordLlamaEmbedder.embed

    def noted(self: WordLlamaEmbedder, texts: Sequence[str]) -> list[FloatVector | None]:
        kinds.append(threading.current_thread().name.partition("_")[0])
        return embed(self, texts)

    monkeypatch.setattr(WordLlamaEmbedder, "embed", noted)
    store = Store(tmp_path / "store", map_size_bytes=1 << 20, max_map_size_bytes=1 << 20)
    threads = BoundedThreads("writes", threads=1, max_calls=8)
    embedder = TextEmbedder(store, Embedders(["wordllama"]), threads)
    for text in ("tea", "milk", "x" * (MAX_INLINE_CHARACTERS + 1)):  # the first one loads the embedder
        (made,) = asyncio.run(embedder.embed(Wish("ns", [text], [False])))
        assert made.for_space(NamespaceState(number=0), "ns")[0] is not None
    threads.close()
    store.close()
    assert kinds == ["writes", "MainThread", "writes"]


def test_wordllama_keeps_nothing_of_the_texts() -> None:
    embedder = WordLlamaEmbedder()
    said = "something that was said about the garden and the weather " * 3

    def grown_bytes(first: int) -> int:
        before = anonymous_memory_bytes()
        for number in range(first, first + 3000):
            embedder.embed([f"{number} {said}"])
        after = anonymous_memory_bytes()
        assert before is not None
        assert after is not None
        return after - before

    grown_bytes(0)  # what it takes to work at all
    assert grown_bytes(3000) < 3000 * 1000


def test_openai_keeps_the_order_of_texts(endpoint: str) -> None:
    first, second = OpenAIEmbedder(endpoint, "letters", "secret").embed(["aaa", "bbb"])
    assert first is not None
    assert second is not None
    assert first.argmax() == 0
    assert second.argmax() == 1


def test_openai_failures_say_where(endpoint: str) -> None:
    with pytest.raises(Unavailable, match=r"404") as refused:
        OpenAIEmbedder(endpoint, "letters", "wrong key").embed(["a"])
    assert refused.value.reason == "EMBEDDER_FAILED"
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        OpenAIEmbedder("http://127.0.0.1:9/v1", "letters", "").embed(["a"])


class Repeater(Endpoint):
    """An endpoint that says the texts again when it fails."""

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"][0]
        if text.startswith("reason"):
            self.send_error(400, text)
        elif text.startswith("status"):
            self.wfile.write(f"{text}\r\n\r\n".encode())
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"index": 0, "embedding": [text]}]}).encode())


@pytest.mark.parametrize("where", ["reason", "status", "embedding"])
def test_what_an_endpoint_says_of_texts_is_not_repeated(where: str) -> None:
    with serving(Repeater) as url, pytest.raises(Unavailable) as refused:
        OpenAIEmbedder(url, "letters", "").embed([f"{where} of my secret"])
    assert url in refused.value.message
    assert "secret" not in refused.value.message


def test_a_cluster_with_an_endpoint(endpoint: str, tmp_path: Path) -> None:
    flags = (
        *("--embedder", "openai", "--openai-url", endpoint),
        *("--openai-model", "letters", "--openai-api-key", "secret"),
    )
    with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster, client_of(cluster) as client:
        cluster.begin_replica(*flags).wait_ready()
        added = client.add_many("ns", ["aaaa", "bbbb", "cccc"])
        cluster.wait_searchable(added.revision)
        hits = client.search("ns", "bb", mode="semantic").hits
        assert hits[0].memory.content == "bbbb"
        assert hits[0].memory.embedding_model == "letters"


def test_a_cluster_without_an_embedder(tmp_path: Path) -> None:
    flags = ("--embedder", "none")
    with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster, client_of(cluster) as client:
        cluster.begin_replica(*flags).wait_ready()
        client.add("words", "only words here")
        own = [
            NewMemory(content="east", embedding=(1.0, 0.0)),
            NewMemory(content="north", embedding=(0.0, 1.0)),
        ]
        cluster.wait_searchable(client.add_many("vectors", own).revision)
        assert len(client.search("words", "words").hits) == 1
        nearest = client.search("vectors", embedding=(0.9, 0.1), mode="semantic").hits
        assert [hit.memory.content for hit in nearest] == ["east", "north"]
        with pytest.raises(AgentMemError) as refused:
            client.search("vectors", "east", mode="semantic")
        assert refused.value.reason == "EMBEDDING_REQUIRED"
