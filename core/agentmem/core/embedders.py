"""Embedders: text to unit vectors.

    none        makes no embeddings; callers bring their own, or search by words
    wordllama   256 dimensions, ships its own weights, runs on the CPU (default)
    openai      any endpoint that speaks OpenAI's embeddings API
    multilingual   512 dimensions, one space for 16 languages, ships its own weights; see multilingual.py

A server has one or several of them. This is the only module that imports wordllama.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agentmem.core.errors import FailedPrecondition, Unavailable, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.multilingual import MULTILINGUAL_MODEL, MultilingualEmbedder
from agentmem.core.records import FloatVector
from agentmem.core.unit_vectors import unit_vectors

NO_EMBEDDER = "none"
EMBEDDER_NAMES = (NO_EMBEDDER, "wordllama", "openai", "multilingual")
WORDLLAMA_MODEL = "wordllama-l2-supercat-256"
OPENAI_TIMEOUT_S = 20.0
OPENAI_MAX_TEXTS = 256
OPENAI_MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        model: "" for the embedder that makes none.
        is_quick: whether a question takes less than a tenth of a millisecond, and nobody else is asked.
    """

    @property
    def model(self) -> str: ...

    @property
    def is_quick(self) -> bool: ...

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        """A unit vector, float32 [dimension], for each text; None for a text that has no meaning to it.

        Raises:
            Unavailable: ``EMBEDDER_FAILED``, the embedder could not answer now.
        """
        ...


class NoEmbedder:
    """The embedder of ``--embedder none``."""

    model = ""
    is_quick = True

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        return [None] * len(texts)


class WordLlamaEmbedder:
    """WordLlama's 256-dimensional static embeddings, from the weights in its wheel."""

    model = WORDLLAMA_MODEL
    is_quick = True

    def __init__(self) -> None:
        # Its tokenizer would share out the texts of each call among all cores: beside other work that takes
        # half as much again, and its callers wait for the slowest of its threads.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import wordllama

        # Its default path asks the network for the tokenizer; the wheel has it too.
        folder = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        # It would keep the tokens of 10,000 texts, some 50 MB, and hardly a text comes twice.
        self._model.tokenizer.model._resize_cache(0)

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        # Scaled here: wordllama's own scaling makes NaN of a text without known tokens.
        return unit_vectors(self._model.embed(list(texts), norm=False))


class OpenAIEmbedder:
    """An HTTP endpoint that speaks OpenAI's ``POST /embeddings``."""

    is_quick = False

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
                raise ValueError("another number of embeddings than of texts")
            return unit_vectors(np.array([row["embedding"] for row in rows], dtype=np.float64))
        # Of what the endpoint says only its status: its text may repeat what memories say, and is logged.
        except urllib.error.HTTPError as error:
            raise self._failed(f"HTTP status {error.code}") from error
        except (urllib.error.URLError, OSError) as error:
            raise self._failed(str(error)) from error
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            why = "its answer is not JSON with an embedding of numbers for each text"
            raise self._failed(why) from error

    def _failed(self, why: str) -> Unavailable:
        return Unavailable("EMBEDDER_FAILED", f"the embedder at {self._url} failed: {why}")


class Embedders:
    """The embedders of a server, each loaded when it is first used. Any thread may use them.

    A namespace with embeddings is of the embedder whose model made them. One without is of the embedder that
    was chosen for it, or of the server's first.
    """

    def __init__(
        self, names: Sequence[str], *, openai_url: str = "", openai_model: str = "", openai_api_key: str = ""
    ) -> None:
        """The first of the names, each one of EMBEDDER_NAMES, is for namespaces that chose none."""
        self.names = tuple(names)
        self._openai = openai_url, openai_model, openai_api_key
        models = {"wordllama": WORDLLAMA_MODEL, "multilingual": MULTILINGUAL_MODEL, "openai": openai_model}
        self._models = {name: models.get(name, "") for name in names}
        self._lock = threading.Lock()
        self._loaded: dict[str, Embedder] = {}

    def load_first(self) -> None:
        """Loads the one that most writes will need."""
        self.named(self.names[0])

    def named(self, name: str) -> Embedder:
        """The embedder of that name; "" stands for the first.

        Raises FailedPrecondition (``EMBEDDER_MISSING``) when this server does not have it.
        """
        name = name or self.names[0]
        if name == NO_EMBEDDER:
            return NoEmbedder()
        if name not in self.names:
            raise self.missing(name)
        loaded = self._loaded.get(name)
        if loaded is not None:
            return loaded  # without waiting while another is loaded
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = make_embedder(name, *self._openai)
            return self._loaded[name]

    def is_quick(self, name: str) -> bool:
        """Whether an embedder is loaded, and embeds a question in no time."""
        loaded = self._loaded.get(name)
        return loaded is not None and loaded.is_quick

    def check_name(self, name: str, field: str) -> None:
        """Raises InvalidArgument unless it is "none" or the name of one of them."""
        if name not in (NO_EMBEDDER, *self.names):
            raise invalid_field(field, f"is {name!r}; this server has {', '.join(self.names)}")

    def name_of(self, model: str) -> str:
        """The name of the embedder that embeds with a model; "" when there is none here."""
        return next((name for name, known in self._models.items() if model and known == model), "")

    def model_of(self, name: str) -> str:
        """The model that an embedder of this server embeds with, "" stands for the first; "" for "none"."""
        return self._models.get(name or self.names[0], "")

    def name_for(self, space: NamespaceState, advice: str) -> str:
        """The name of the embedder of a namespace.

        Args:
            advice: what to do when this server does not have it; for the error.

        Raises:
            FailedPrecondition: ``EMBEDDING_REQUIRED``, none here makes embeddings like the namespace's;
                ``EMBEDDER_MISSING``, the one that was chosen for it is not here.
        """
        chosen = space.embedder or self.names[0]
        name = self.name_of(space.model) if space.dimension else chosen
        if space.dimension and not name:
            if chosen != NO_EMBEDDER:
                raise self.required(space, advice)
            name = chosen
        if name not in (NO_EMBEDDER, *self.names):
            raise self.missing(name)
        return name

    def missing(self, name: str) -> FailedPrecondition:
        """The error for an embedder that this server does not have."""
        return FailedPrecondition(
            "EMBEDDER_MISSING",
            f"this server does not have the embedder {name!r}; it has {', '.join(self.names)}",
            embedder=name,
        )

    def required(self, space: NamespaceState, advice: str) -> FailedPrecondition:
        """The error for a text without an embedding that cannot be embedded in the namespace's space."""
        own = ", ".join(repr(model) for model in self._models.values() if model)
        return FailedPrecondition(
            "EMBEDDING_REQUIRED",
            f"the namespace's embeddings were made by {space.model or 'a model of the caller'!r} and this "
            f"server embeds with {own or 'none'}: {advice}",
            field="embedding",
            namespace_model=space.model,
        )


def make_embedder(name: str, openai_url: str, openai_model: str, openai_api_key: str) -> Embedder:
    """The embedder of that name, one of EMBEDDER_NAMES."""
    if name == "openai":
        return OpenAIEmbedder(openai_url, openai_model, openai_api_key)
    if name == "multilingual":
        return MultilingualEmbedder()
    return WordLlamaEmbedder() if name == "wordllama" else NoEmbedder()
