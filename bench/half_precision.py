"""What float16 changes of unit vectors: the order of an exact search, its cosines, the time to read.

``overlap@10`` is the share of the ten nearest in float32 that are among the ten nearest when float16 is made
float32 again; ``scaled again``, when it is brought back to unit length too. Rounding changes the length by up
to 1e-4, and near duplicates are closer to each other than that.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import best_us

from agentmem.cli.conversations import Conversation, Question
from agentmem.core.embedders import WordLlamaEmbedder

ASKED_CATEGORIES = (1, 2, 3, 4)
TOP_K = 10
SYNTHETIC_ROWS = 20_000
SYNTHETIC_QUERIES = 300
CENTRES = 200
TIMED_ROWS = 2_000

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Row = dict[str, Any]


def unit(rows: npt.NDArray[Any]) -> Floats:
    """The rows at unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def scaled(half: Halves) -> Floats:
    """One vector as a reader would decode it."""
    vector = half.astype(np.float32)
    vector /= np.sqrt(vector @ vector)
    return vector


def best_rows(queries: Floats, rows: Floats) -> npt.NDArray[np.int64]:
    """The rows with the highest cosines for each query, best first."""
    return np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :TOP_K]


def _overlap(exact: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    return fmean(len(set(left) & set(right)) / len(left) for left, right in zip(exact, other, strict=True))


def vector_row(kind: str, rows: Floats, queries: Floats) -> Row:
    """What float16 changes of an exact search of these rows."""
    halves = rows.astype(np.float16)
    decoded = halves.astype(np.float32)
    exact = best_rows(queries, rows)
    timed = list(halves[:TIMED_ROWS])
    return {
        "vectors": kind,
        "rows": len(rows),
        "dimension": rows.shape[1],
        "overlap@10": _overlap(exact, best_rows(queries, decoded)),
        "scaled again": _overlap(exact, best_rows(queries, unit(decoded))),
        "max cosine error": float(np.abs(queries @ (rows - unit(decoded)).T).max()),
        "decode us": best_us(lambda half: half.astype(np.float32), timed),
        "and scale us": best_us(scaled, timed),
    }


def synthetic_rows() -> list[Row]:
    """Vectors without structure, in clusters, and in clusters of near duplicates."""
    generator = np.random.default_rng(7)
    count = SYNTHETIC_ROWS + SYNTHETIC_QUERIES
    rows = []
    for dimension in (64, 768):
        noise = generator.standard_normal((count, dimension)) / dimension**0.5
        centres = unit(generator.standard_normal((CENTRES, dimension)))
        centres = centres[generator.integers(0, CENTRES, count)]
        for kind, vectors in (
            ("random", unit(noise)),
            ("clusters", unit(centres + 0.5 * noise)),
            ("near duplicates", unit(centres + 0.05 * noise)),
        ):
            rows.append(vector_row(kind, vectors[:SYNTHETIC_ROWS], vectors[SYNTHETIC_ROWS:]))
    return rows


def conversation_rows(loaded: Sequence[Conversation]) -> tuple[list[Row], list[Row]]:
    """Float16 on the embeddings of turns; and how much of the questions' evidence the ten nearest have."""
    embedder = WordLlamaEmbedder()

    def embedded(texts: Sequence[str]) -> Floats:
        vectors = embedder.embed(texts)
        return np.array([np.zeros(256) if vector is None else vector for vector in vectors], dtype=np.float32)

    recalls: dict[str, list[float]] = {"float32": [], "float16": []}
    turns, questions = [], []
    for each in loaded:
        asked = [question for question in each.questions if _is_asked(question)]
        if not asked:
            continue
        turns.append(embedded([f"{turn.speaker}: {turn.text}" for turn in each.turns]))
        questions.append(embedded([question.text for question in asked]))
        searched = {"float32": turns[-1], "float16": unit(turns[-1].astype(np.float16).astype(np.float32))}
        for name, rows in searched.items():
            for question, found in zip(asked, best_rows(questions[-1], rows), strict=True):
                hits = {each.turns[number].id for number in found}
                recalls[name].append(len(hits & set(question.evidence)) / len(question.evidence))
    if not turns:
        return [], []
    return (
        [vector_row("wordllama", np.concatenate(turns), np.concatenate(questions))],
        [
            {"vectors": name, "evidence recall@10": fmean(values), "questions": len(values)}
            for name, values in recalls.items()
        ],
    )


def _is_asked(question: Question) -> bool:
    return question.category in ASKED_CATEGORIES and bool(question.evidence)
