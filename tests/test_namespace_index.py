"""A namespace on the writing side: what is taken up together is what one by one would give."""

from __future__ import annotations

import numpy as np
import pytest
from memories import make_memory

from agentmem.core.layout import NamespaceState
from agentmem.replica import namespace_index
from agentmem.replica.namespace_index import NamespaceIndex
from agentmem.replica.ordinals import OrdinalSet, ordinal_array
from agentmem.replica.view import NamespaceView


def index_of(memories: int, dropped: dict[int, int], *, views: bool) -> NamespaceView:
    """Args: dropped: by ordinal, behind which put it ends."""
    index = NamespaceIndex("ns", NamespaceState(number=1, dimension=2), lambda ordinals: ())
    for ordinal in range(1, memories + 1):
        memory = make_memory(
            f"m{ordinal}", session_id=f"s{ordinal % 3}", user_id="ann" if ordinal % 2 else ""
        )
        vector = np.array([1, ordinal], dtype=np.float32)
        index.put(ordinal, memory, vector / np.linalg.norm(vector) * np.float32(1.001))
        for ended, behind in dropped.items():
            if behind == ordinal:
                assert index.drop(ended)
        if views:
            index.view()
    return index.view()


@pytest.mark.parametrize("most", [5, 1024])
def test_taken_up_together_or_one_by_one_it_is_the_same(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(namespace_index, "MAX_WAITING_MEMORIES", most)
    # Ended by what comes next, while both wait; and later.
    dropped = {3: 4, 7: 7, 2: 11, 12: 12}
    together, alone = (index_of(12, dropped, views=views) for views in (False, True))
    live = ordinal_array(together.live)
    assert live.tolist() == ordinal_array(alone.live).tolist() == [1, 4, 5, 6, 8, 9, 10, 11]
    assert together.facet_rows == alone.facet_rows == 12
    for field in ("user_id", "session_id", "id"):
        counts = [sorted(view.facets.counts(field, view.live)) for view in (together, alone)]
        assert counts[0] == counts[1]
    places = [
        view.facets.session_places(live, view.facets.rows_of(live, 12), view.live, 12)
        for view in (together, alone)
    ]
    assert np.array_equal(places[0].ranks, places[1].ranks)
    query = np.array([1, 0], dtype=np.float32)
    for view in (together, alone):
        assert view.vectors is not None
        hits = view.vectors.search(query, 12, OrdinalSet(view.live), view.live)
        assert hits.ordinals.tolist() == live.tolist()
        np.testing.assert_allclose(hits.cosines, 1 / np.sqrt(1 + live.astype(np.float64) ** 2), rtol=1e-6)
