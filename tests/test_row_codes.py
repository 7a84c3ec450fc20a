"""Codes of rows: whatever the rows are, the nearest are among those whose codes look near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from memories import unit_vectors

from agentmem.replica.namespace_vectors import NamespaceVectors
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.row_codes import CodeColumn, Question, RowCodes, contenders
from agentmem.replica.vectors import MIN_CODED_ROWS

TOP_K = 10
Rows = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[np.float64]) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def spread() -> Rows:
    return unit_vectors(2_000, 64)


def near_duplicates() -> Rows:
    """So near to each other that their codes are mostly the same."""
    noise = np.random.default_rng(1).standard_normal((2_000, 64))
    return unit(np.ones((1, 64)) + 0.002 * noise)


def uneven() -> Rows:
    """One component is so large that the codes of the others are coarse."""
    rows = np.random.default_rng(2).standard_normal((2_000, 64))
    rows[:, 0] = 60
    return unit(rows)


def sparse() -> Rows:
    rows = np.zeros((2_000, 64))
    places = np.random.default_rng(3).integers(0, 64, (2_000, 3))
    np.put_along_axis(rows, places, np.random.default_rng(4).uniform(0.1, 1, places.shape), axis=1)
    return unit(rows)


def with_zeros() -> Rows:
    rows = unit_vectors(2_000, 64).copy()
    rows[::7] = 0
    return rows


KINDS = [spread, near_duplicates, uneven, sparse, with_zeros]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@each_kind
def test_the_nearest_are_among_the_contenders(kind: Callable[[], Rows]) -> None:
    rows = kind()
    codes = RowCodes.of(rows)
    for query in (*unit_vectors(30, 64, seed=5), *rows[:30], np.zeros(64, dtype=np.float32)):
        question = Question(query)
        found = contenders(question.products(codes), question.margin(codes.residual), TOP_K)
        cosines = rows.astype(np.float64) @ query
        nearest = np.sort(cosines)[-TOP_K]
        assert set(np.flatnonzero(cosines >= nearest).tolist()) <= set(found.tolist())


def test_few_contend_when_codes_tell_rows_apart() -> None:
    codes = RowCodes.of(unit_vectors(10_000, 256))
    for query in unit_vectors(20, 256, seed=6):
        question = Question(query)
        found = contenders(question.products(codes), question.margin(codes.residual), TOP_K)
        assert TOP_K <= len(found) < 500


def test_codes_do_not_depend_on_how_rows_came() -> None:
    rows = unit_vectors(3_000, 32)
    together = RowCodes.of(rows)
    column = CodeColumn(RowCodes.of(rows[:0]))
    for row in rows[:20]:
        column.extend(row[np.newaxis])
    column.extend(rows[20:])
    assert column.view().equals(together)
    assert column.view().residual == together.residual


@each_kind
@pytest.mark.parametrize("count", [MIN_CODED_ROWS - 1, MIN_CODED_ROWS, 2_000])
def test_a_scan_by_codes_is_exact(kind: Callable[[], Rows], count: int) -> None:
    rows = kind()[:count]
    vectors = NamespaceVectors(64)
    for ordinal, row in enumerate(rows, 1):
        vectors.add(ordinal, row)
    view, live = vectors.view(), OrdinalSet(range(1, count + 1))
    some = OrdinalSet(range(1, count + 1, 2))
    for query in unit_vectors(20, 64, seed=8):
        for allowed in (live, some):
            hits = view.search(query, TOP_K, allowed, live)
            cosines = rows[np.array(list(allowed)) - 1] @ query
            np.testing.assert_allclose(hits.cosines, np.sort(cosines)[::-1][:TOP_K], atol=1e-6)
