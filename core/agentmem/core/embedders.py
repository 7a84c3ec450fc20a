"""Embedders: text to unit vectors.

    none        makes no embeddings; callers bring their own, or search by words
    wordllama   256 dimensions, ships its own weights, runs on the CPU (default)
    openai      any endpoint that speaks OpenAI's embeddings API

This is the only module that imports wordllama.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agentmem.core.errors import FailedPrecondition, Unavailable
from agentmem.core.records import FloatVector

EMBEDDER_NAMES = ("none", "wordllama", "openai")
WORDLLAMA_MODEL = "wordllama-l2-supercat-256"
OPENAI_TIMEOUT_S = 20.0
OPENAI_MAX_TEXTS = 256
OPENAI_MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Embedder(Protocol):
    """Turns texts into vectors. ``model`` is "" for the embedder that makes none."""

    @property
    def model(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        """A unit vector, float32 [dimension], for each text; None for a text that has no meaning to it.

        Raises:
            Unavailable: ``EMBEDDER_FAILED``, the embedder could not answer now.
        """
        ...


class NoEmbedder:
    """The embedder of ``--embedder none``."""

    model = ""

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        return [None] * len(texts)


class WordLlamaEmbedder:
    """WordLlama's 256-dimensional static embeddings, from the weights in its wheel."""

    model = WORDLLAMA_MODEL

    def __init__(self) -> None:
        import wordllama

        # Its default path asks the network for the tokenizer; the wheel has it too.
        folder = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        # Scaled here: wordllama's own scaling makes NaN of a text without known tokens.
        return _unit_vectors(self._model.embed(list(texts), norm=False))


class OpenAIEmbedder:
    """An HTTP endpoint that speaks OpenAI's ``POST /embeddings``."""

    def __init__(self, url: str, model: str, api_key: str) -> None:
        """``url`` is the base, such as ``https://api.openai.com/v1``."""
        self.model = model
        self._url = url.rstrip("/") + "/embeddings"
        self._api_key = api_key

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        vectors: list[FloatVector | None] = []
        for start in range(0, len(texts), OPENAI_MAX_TEXTS):
            vectors += self._embed_batch(texts[start : start + OPENAI_MAX_TEXTS])
        return vectors

    def _embed_batch(self, texts: Sequence[str]) -> list[FloatVector | None]:
        body = json.dumps({"model": self.model, "input": list(texts)}).encode()
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=OPENAI_TIMEOUT_S) as response:
                answer = json.loads(response.read(OPENAI_MAX_ANSWER_BYTES))
            rows = sorted(answer["data"], key=lambda row: row["index"])
            if len(rows) != len(texts):
                raise ValueError(f"{len(rows)} embeddings for {len(texts)} texts")
            return _unit_vectors(np.array([row["embedding"] for row in rows], dtype=np.float64))
        except (urllib.error.URLError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("EMBEDDER_FAILED", f"the embedder at {self._url} failed: {error}") from error


def _unit_vectors(rows: np.typing.NDArray[Any]) -> list[FloatVector | None]:
    lengths = np.linalg.norm(rows, axis=1)
    return [
        np.asarray(row / length, dtype=np.float32) if np.isfinite(length) and length > 0 else None
        for row, length in zip(rows, lengths, strict=True)
    ]


def make_embedder(name: str, openai_url: str, openai_model: str, openai_api_key: str) -> Embedder:
    """The embedder of that name, one of EMBEDDER_NAMES."""
    if name == "openai":
        return OpenAIEmbedder(openai_url, openai_model, openai_api_key)
    return WordLlamaEmbedder() if name == "wordllama" else NoEmbedder()


def embedding_required(namespace_model: str, own_model: str, advice: str) -> FailedPrecondition:
    """The error for a text without an embedding that this server cannot embed in the namespace's space."""
    return FailedPrecondition(
        "EMBEDDING_REQUIRED",
        f"the namespace's embeddings were made by {namespace_model or 'a model of the caller'!r} and this "
        f"server embeds with {own_model or 'none'!r}: {advice}",
        field="embedding",
        namespace_model=namespace_model,
    )
