"""Embeddings of requests: several are decoded as each alone would be."""

from __future__ import annotations

import numpy as np
import pytest

from agentmem.core.errors import InvalidArgument
from agentmem.core.validation import DECODED_BYTES, MAX_DIMENSION, decode_embedding, decode_embeddings


def test_together_they_are_to_the_bit_what_each_is_alone() -> None:
    generator = np.random.default_rng(7)
    for dimension in (1, 3, 256, 1024):
        rows = 2 * DECODED_BYTES // (4 * dimension) + 3 if dimension > 3 else 50
        vectors = generator.standard_normal((rows, dimension)).astype("<f4")
        vectors[::3] *= 1e-9
        vectors[1::3] /= np.linalg.norm(vectors[1::3], axis=1, keepdims=True)
        given = [vector.tobytes() for vector in vectors]
        for keep_within in (0.0, 1e-3):
            together = decode_embeddings(given, keep_within=keep_within)
            alone = [decode_embedding(each, "embedding", keep_within=keep_within) for each in given]
            assert [None if each is None else each.tobytes() for each in together] == [
                each.tobytes() for each in alone
            ]
            assert all(each is not None and each.dtype == np.float32 for each in together)


def test_what_is_wrong_is_left_to_be_named() -> None:
    good = np.array([3, 4], dtype="<f4").tobytes()
    wrong = [
        np.array([0, 0], dtype="<f4").tobytes(),
        np.array([np.nan, 1], dtype="<f4").tobytes(),
        np.array([np.inf, 1], dtype="<f4").tobytes(),
        np.array([1, 2, 3], dtype="<f4").tobytes(),
        b"",
    ]
    found = decode_embeddings([good, *wrong, good])
    assert [None if each is None else each.tolist() for each in found] == [
        [np.float32(0.6), np.float32(0.8)],
        *[None] * len(wrong),
        [np.float32(0.6), np.float32(0.8)],
    ]
    for each in wrong[:3]:
        with pytest.raises(InvalidArgument):
            decode_embedding(each, "embedding")
    assert decode_embeddings([b"abc", b"abc"]) == [None, None]
    assert decode_embeddings([bytes(4 * (MAX_DIMENSION + 1))]) == [None]
    assert decode_embeddings([]) == []
