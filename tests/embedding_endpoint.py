"""An embeddings endpoint for tests: real HTTP, models anybody can check, and a gate that can be shut."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from agentmem.core.records import FloatVector

LETTERS = "abcdefghijklmnopqrstuvwxyz"
GATE_TIMEOUT_S = 15.0


def letters_vector(text: str) -> FloatVector:
    """What the endpoint makes of a text: its letters counted, at unit length. float32 [26]."""
    counts = np.array([text.count(letter) + 0.01 for letter in LETTERS])
    return np.asarray(counts / np.linalg.norm(counts), dtype=np.float32)


class Endpoint:
    """Counts letters. While its gate is shut, answers wait.

    Attributes:
        texts: how many were embedded.
        max_texts: when so many were, the gate shuts.
        waiting: a question came to the shut gate.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.texts = 0
        self.max_texts: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def shut_after(self, texts: int) -> None:
        """Lets about so many more texts pass."""
        self.waiting.clear()
        self.max_texts = self.texts + texts

    def open(self) -> None:
        self.max_texts = None
        self.gate.set()

    @property
    def flags(self) -> tuple[str, ...]:
        """For a server that embeds with it beside wordllama."""
        own = ("--openai-url", self.url, "--openai-model", "letters")
        return ("--embedder", "wordllama", "--embedder", "openai", *own)


@contextmanager
def serve_endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if endpoint.max_texts is not None and endpoint.texts >= endpoint.max_texts:
                endpoint.max_texts = None
                endpoint.gate.clear()
            if not endpoint.gate.is_set():
                endpoint.waiting.set()
                endpoint.gate.wait(GATE_TIMEOUT_S)
            endpoint.texts += len(body["input"])
            rows = [
                {"index": index, "embedding": letters_vector(text).tolist()}
                for index, text in enumerate(body["input"])
            ]
            data = json.dumps({"model": body["model"], "data": rows}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests are quiet."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # the server that asked was killed

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
