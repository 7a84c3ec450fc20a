"""A search returns ``top_k`` while that many memories match, whichever share they are and however found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from drawn_filters import compiled, holds
from memories import NAMESPACE, Replica, condition, make_memory, segment_rows, unit_vectors

from agentmem.core.records import FloatVector
from agentmem.replica import planner
from agentmem.replica.search import Mode
from agentmem.replica.view import View
from agentmem.v1 import filter_pb2, memory_pb2

COUNT = 5000
SEAL_ROWS = 1200
DIMENSION = 16
QUESTION = "harbour"
QUERY = unit_vectors(1, DIMENSION, seed=99)[0]
SHARES = (1.0, 0.5, 0.1, 0.01, 0.002, 0.0002)
# The plans of a small namespace are exact scans and over-fetching. These prices make it choose otherwise.
PRICES: dict[str, dict[str, float]] = {
    "as measured": {},
    "segments": {},
    "named ordinals": {"PUSH_DOWN_NS_PER_ORDINAL": 0},
    "over-fetching": {"PUSH_DOWN_NS_PER_ORDINAL": 1e9},
}


def dear_scans(view: View) -> View:
    """The same view where scoring rows costs so much that segments are used."""
    return priced(view, 1000.0)


def priced(view: View, component_ns: float) -> View:
    namespace = view.namespaces[NAMESPACE]
    assert namespace.vectors is not None
    costs = planner.Costs(component_ns, component_ns)
    vectors = replace(namespace, vectors=replace(namespace.vectors, costs=costs))
    return replace(view, namespaces={NAMESPACE: vectors})


class Stored:
    """Memories of which most were deleted or written again since they were sealed."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.random = np.random.default_rng(7)
        self.vectors: dict[str, FloatVector] = {}
        self.live: dict[str, memory_pb2.Memory] = {}
        for start in range(0, COUNT, 500):
            self.write([f"m{number}" for number in range(start, start + 500)])
        # All of the namespace is sealed but the last rows.
        replica.wait_for(lambda view: sum(segment_rows(view)) >= COUNT - SEAL_ROWS)
        names = self.random.permutation([*self.live]).tolist()
        # Below the share at which a segment is written again for its dead rows.
        self.delete(names[:500])
        revision = self.write(names[500:900])
        self.view = replica.wait_for_revision(revision)

    def write(self, names: list[str]) -> int:
        rows = unit_vectors(len(names), DIMENSION, seed=int(self.random.integers(1 << 30)))
        memories = []
        # The earlier one happened, the further it is from the question, by meaning and by words.
        places = np.argsort(np.argsort(rows @ QUERY)) / len(names)
        for name, row, place in zip(names, rows, places.tolist(), strict=True):
            words = " ".join(["harbour"] * (1 + int(5 * place)) + ["boat"] * (8 - int(5 * place)))
            memory = make_memory(name, words, importance=float(self.random.random()))
            memory.event_time.FromMicroseconds(int(1_000_000 * place))
            self.live[name], self.vectors[name] = memory, row
            memories.append(memory)
        return self.replica.put(memories, rows)

    def delete(self, names: list[str]) -> None:
        self.replica.delete(names)
        for name in names:
            del self.live[name]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with Replica(tmp_path_factory.mktemp("replica"), seal_rows=SEAL_ROWS) as replica:
        yield Stored(replica)


def of_share(field: str, share: float) -> filter_pb2.Filter:
    """A filter that about this share of the memories match; at least some."""
    if field == "importance":
        return condition("importance", filter_pb2.OPERATOR_LT, share)
    start = int(400_000 * (1 - share))
    return condition(
        "event_time", filter_pb2.OPERATOR_BETWEEN, times_us=[start, start + int(1_000_000 * share)]
    )


@pytest.mark.parametrize("prices", PRICES)
@pytest.mark.parametrize("top_k", [1, 10, 50, 300])
def test_never_fewer_than_there_are(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, prices: str, top_k: int
) -> None:
    view = dear_scans(stored.view) if prices == "segments" else stored.view
    for name, price in PRICES[prices].items():
        monkeypatch.setattr(planner, name, price)
    for share in SHARES:
        for field in ("importance", "event_time"):
            message = of_share(field, share)
            matching = {name for name, memory in stored.live.items() if holds(message, memory)}
            for mode in get_args(Mode):
                found = stored.replica.search(
                    view, QUESTION, QUERY, mode=mode, node=compiled(message), top_k=top_k
                )
                what = (mode, share, field)
                assert len(found) == min(top_k, len(matching)), what
                assert set(found) <= matching, what
            if prices == "as measured" and top_k > 1 and matching:
                assert recall(stored, message, matching, top_k) >= 0.93, (share, field)


def recall(stored: Stored, message: filter_pb2.Filter, matching: set[str], top_k: int) -> float:
    """The share of the nearest that searches by meaning find."""
    found = wanted = 0
    names = sorted(matching)
    rows = np.array([stored.vectors[name] for name in names]).reshape(-1, DIMENSION)
    for query in unit_vectors(10, DIMENSION, seed=98):
        nearest = {names[row] for row in np.argsort(-(rows @ query))[:top_k]}
        hits = stored.replica.search(
            stored.view, vector=query, mode="semantic", node=compiled(message), top_k=top_k
        )
        found += len(nearest.intersection(hits))
        wanted += len(nearest)
    return found / wanted


def test_the_prices_choose_what_they_are_for(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not what was measured: that depends on what else the machine does.
    vectors = priced(stored.view, 0.001).namespaces[NAMESPACE].vectors
    assert vectors is not None
    assert vectors.segments
    assert len(vectors.tail.rows)
    few, most = (np.arange(1, count, dtype=np.uint64) for count in (50, 4000))
    for wanted in (few, most, None):
        assert isinstance(vectors.estimate(10, wanted, COUNT).plan, planner.ExactScan)
    assert not planner.pushes_down(50, COUNT, 64)
    dear = dear_scans(stored.view).namespaces[NAMESPACE].vectors
    assert dear is not None
    for wanted in (most, None):
        assert isinstance(dear.estimate(10, wanted, COUNT).plan, planner.Segments)
    for name, price in PRICES["named ordinals"].items():
        monkeypatch.setattr(planner, name, price)
    assert planner.pushes_down(50, COUNT, 64)
