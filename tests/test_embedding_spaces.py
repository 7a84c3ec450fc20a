"""Embeddings that are replaced, in one store: what an index of it shows, and stores of the format before."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from memories import DEADLINE_S, MIB, NAMESPACE, Replica, condition, make_memory, segment_rows, unit_vectors
from store_scan import check_scan, scan

from agentmem.core.errors import Unavailable
from agentmem.core.exporting import ExportPlace, ExportQuery, export_frame
from agentmem.core.filters import Filter, compile_filter
from agentmem.core.history import Moment
from agentmem.core.layout import _NAMESPACE_OF_FORMAT_3, KEY, NamespaceState, decode_namespace, seal
from agentmem.core.records import FloatVector
from agentmem.core.store import Store, StoreFormatError
from agentmem.core.verification import verify
from agentmem.replica import indexer as indexer_module
from agentmem.replica.past_namespace import PastBuilder, PastMovedError
from agentmem.replica.past_views import PastViews
from agentmem.replica.view import View
from agentmem.server.reembedder import _of_no_use, _Place, _without_vector
from agentmem.server.reembedding import ClearVectors, EmbedVersions, ReembedNamespace, SwitchSpace
from agentmem.v1 import filter_pb2

# By model; the first is that of the vectors that the memories come with.
DIMENSIONS = {"": 4, "three": 3, "five": 5, "also five": 5}


def vector_of(model: str, ordinal: int) -> FloatVector:
    seed = 1000 * list(DIMENSIONS).index(model) + ordinal
    vector: FloatVector = unit_vectors(1, DIMENSIONS[model], seed=seed)[0]
    return vector


class Moving:
    """A store that is written, and whose embeddings are replaced, without a word to its indexer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.written = 0
        # How many memories there are after each revision.
        self.counts = {store.position().revision: 0}

    def run(self, command: Any) -> None:
        self.store.commit(lambda transaction: command.run(transaction, 1))
        self._note()

    def _note(self) -> None:
        with self.store.read() as transaction:
            space = transaction.namespace(NAMESPACE)
            self.counts[transaction.revision] = space.live_memories if space else 0

    def put(self, replica: Replica, count: int) -> None:
        """Of the model that the namespace has now, each in a commit of its own."""
        with self.store.read() as transaction:
            space = transaction.namespace(NAMESPACE)
            first = transaction.newest_ordinal + 1
        model = space.model if space else ""
        for ordinal in range(first, first + count):
            memory = make_memory(f"m{ordinal}")
            memory.embedding_model = model
            replica.write([memory], vector_of(model, ordinal)[None, :])
            self._note()

    def begin(self, model: str) -> None:
        self.run(ReembedNamespace(NAMESPACE, model, DIMENSIONS[model], None))

    def fill(self, model: str, most: int = 1000) -> None:
        found, _ = _without_vector(self.store, NAMESPACE, _Place())
        vectors = [(ordinal, vector_of(model, ordinal)) for ordinal, _ in found[:most]]
        with self.store.read() as transaction:
            space = transaction.namespace(NAMESPACE)
            assert space is not None
        self.run(EmbedVersions(NAMESPACE, space.coming_space, vectors))

    def switch(self) -> None:
        with self.store.read() as transaction:
            before = transaction.namespace(NAMESPACE)
            assert before is not None
        self.run(SwitchSpace(NAMESPACE, before.coming_space, "openai"))
        with self.store.read() as transaction:
            after = transaction.namespace(NAMESPACE)
            assert after is not None
        assert after.space == before.coming_space

    def clear(self) -> None:
        ordinals, _ = _of_no_use(self.store, NAMESPACE, _Place())
        self.run(ClearVectors(NAMESPACE, ordinals))
        self.run(ClearVectors(NAMESPACE, ()))


def check_whole(replica: Replica, view: View, counts: dict[int, int]) -> None:
    """Every memory of the revision is found, by the embeddings of one model."""
    namespace = view.namespaces.get(NAMESPACE)
    if namespace is None:
        assert counts[view.revision] == 0
        return
    state = namespace.state
    assert state.dimension == DIMENSIONS[state.model]
    hits = hits_of(replica, view, vector_of(state.model, 1))
    assert len(hits) == counts[view.revision]
    assert len(namespace.live) == counts[view.revision]


def hits_of(replica: Replica, view: View, question: FloatVector) -> Sequence[str]:
    return replica.search(view, vector=question, mode="semantic", top_k=1000)


@pytest.mark.parametrize("seed", range(6))
def test_each_view_has_all_memories_in_one_space_however_far_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The indexer hears of the store at moments drawn at random, and publishes whenever it may."""
    monkeypatch.setattr(indexer_module, "MAX_BATCH_OPERATIONS", 1)
    monkeypatch.setattr(indexer_module, "MIN_PUBLISH_PAUSE_S", 0.0)
    drawn = random.Random(seed)
    with Replica(tmp_path, seal_rows=8) as replica:
        moving = Moving(replica.store)

        def notify(share: float = 0.3) -> None:
            if drawn.random() < share:
                replica.indexer.notify()
            if drawn.random() < share / 2:
                replica.indexer.notify()
                replica.wait_for_revision(moving.store.position().revision)

        moving.put(replica, 12)
        notify(1.0)
        for model in ("three", "five"):
            moving.begin(model)
            notify()
            moving.put(replica, 2)
            moving.fill(model, most=3)
            notify()
            moving.put(replica, 1)
            moving.fill(model)
            notify()
            moving.switch()
            notify()
            moving.put(replica, 2)
            if drawn.random() < 0.7:
                notify()
            moving.clear()
            notify()
        moving.begin("three")
        moving.fill("three", most=4)
        notify()
        moving.run(ReembedNamespace(NAMESPACE, "five", DIMENSIONS["five"], None))
        moving.put(replica, 1)
        moving.clear()
        replica.indexer.notify()
        view = replica.wait_for_revision(moving.store.position().revision)
        assert view.namespaces[NAMESPACE].state.model == "five"
        for each in replica.views:
            check_whole(replica, each, moving.counts)
        check_scan(scan(replica.store))
        question = vector_of("five", 3)
        assert hits_of(replica, view, question)[0] == "m3"


def test_segments_of_replaced_embeddings_are_given_up(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    question = vector_of("five", 5)
    with Replica(tmp_path, seal_rows=10, store=store) as replica:
        moving = Moving(store)
        moving.put(replica, 30)
        replica.indexer.notify()
        replica.wait_for(lambda view: sum(segment_rows(view)) == 30)
        (old,) = (replica.index_path / "segments").iterdir()
        moving.begin("five")
        moving.fill("five")
        moving.switch()
        replica.indexer.notify()
        revision = store.position().revision
        view = replica.wait_for(lambda view: view.revision == revision and sum(segment_rows(view)) == 30)
        assert hits_of(replica, view, question)[0] == "m5"
        assert not old.exists()
        (new,) = (replica.index_path / "segments").iterdir()
    # What a crash before the old segment is removed leaves, and what one of another space looks like.
    moving.clear()
    moving.begin("also five")
    moving.fill("also five")
    moving.switch()
    with Replica(tmp_path, seal_rows=1000, store=store) as replica:
        view = replica.wait_for_revision(store.position().revision)
        assert segment_rows(view) == []
        assert not new.exists()
        assert hits_of(replica, view, vector_of("also five", 7))[0] == "m7"
    store.close()


def of_model(model: str) -> Filter:
    found = compile_filter(condition("embedding_model", filter_pb2.OPERATOR_EQ, model))
    assert found is not None
    return found


def test_filters_and_exports_know_of_the_switch(tmp_path: Path) -> None:
    with Replica(tmp_path) as replica:
        moving = Moving(replica.store)
        moving.put(replica, 3)
        moving.begin("five")
        moving.fill("five")
        revision = replica.store.position().revision
        query = ExportQuery(NAMESPACE, Moment(2, revision=revision), None, newest_only=False, space=0)
        frame, place = export_frame(replica.store, query, ExportPlace())
        assert len(frame.versions) == 3
        assert place is not None
        moving.switch()
        with pytest.raises(Unavailable, match="were replaced meanwhile: export again"):
            export_frame(replica.store, query, place)
        moving.put(replica, 1)
        replica.indexer.notify()
        view = replica.wait_for_revision(replica.store.position().revision)
        assert replica.search(view, node=of_model("five")) == ["m4", "m3", "m2", "m1"]
        moving.clear()
        moving.begin("also five")
        moving.fill("also five")
        moving.switch()
        replica.indexer.notify()
        view = replica.wait_for_revision(replica.store.position().revision)
        assert replica.search(view, node=of_model("five")) == []
        assert replica.search(view, node=of_model("also five")) == ["m4", "m3", "m2", "m1"]


def test_an_index_of_the_past_is_of_one_space(tmp_path: Path) -> None:
    """The switch comes when its versions are known, and none of its vectors is read."""
    with Replica(tmp_path) as replica:
        moving = Moving(replica.store)
        moving.put(replica, 3)
        revision = replica.store.position().revision
        moving.begin("five")
        moving.fill("five")
        chunks = iter(range(100))

        def switch_at_the_second() -> None:
            if next(chunks) == 1:
                moving.switch()

        builder = PastBuilder(replica.store, switch_at_the_second)
        with pytest.raises(PastMovedError):
            builder.build(NAMESPACE, Moment(2, revision=revision))
        past = builder.build(NAMESPACE, Moment(2, revision=revision))
        assert past is not None
        assert past.namespace.state.model == "five"
        assert past.namespace.vectors is not None
        assert len(past.namespace.vectors.tail.ordinals) == 3


def test_a_past_that_is_kept_ends_with_its_space(tmp_path: Path) -> None:
    with Replica(tmp_path) as replica:
        moving = Moving(replica.store)
        moving.put(replica, 3)
        moment = Moment(2, revision=replica.store.position().revision)
        moving.put(replica, 1)
        views = PastViews(replica.store, lambda: replica.indexer.view)

        def build() -> NamespaceState:
            past = asyncio.run(views.build(NAMESPACE, moment, needs_text=False, wait_s=DEADLINE_S))
            assert len(past.view.namespaces[NAMESPACE].live) == 3
            return past.view.namespaces[NAMESPACE].state

        assert build().model == ""
        moving.begin("five")
        assert build().model == ""
        moving.fill("five")
        assert views.find(NAMESPACE, moment, needs_text=False) is not None
        moving.switch()
        assert views.find(NAMESPACE, moment, needs_text=False) is None
        assert build().model == "five"
        views.close()


@pytest.mark.parametrize(
    ("is_filling", "problem"),
    [(True, "3 versions with a coming vector and has 2"), (False, "ordinal 2 has a vector that is of no")],
)
def test_vectors_that_are_lost_or_in_the_wrong_place_are_named(
    tmp_path: Path, is_filling: bool, problem: str
) -> None:
    with Replica(tmp_path) as replica:
        moving = Moving(replica.store)
        moving.put(replica, 3)
        if is_filling:
            moving.begin("three")
            moving.fill("three")
        assert verify(replica.store).problems == []
    with lmdb.open(str(tmp_path / "store"), max_dbs=32) as environment:
        present, other = environment.open_db(b"vectors"), environment.open_db(b"vectors2")
        key = KEY.pack(2)
        with environment.begin(write=True) as transaction:
            if is_filling:
                assert transaction.delete(key, db=other)
            else:
                transaction.put(key, transaction.get(key, db=present) or b"", db=other)
    store = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB, read_only=True)
    found = verify(store).problems
    store.close()
    assert any(problem in each for each in found), found


def as_format_3(path: Path) -> None:
    """Makes the store what the release before would have written."""
    with lmdb.open(str(path), max_dbs=32) as environment:
        meta, namespaces = environment.open_db(b"meta"), environment.open_db(b"namespaces")
        with environment.begin(write=True) as transaction:
            for key, value in list(transaction.cursor(db=namespaces)):
                state = decode_namespace(value, key.decode())
                numbers = [getattr(state, name) for name in list(state.__slots__)[:11]]
                old = seal(_NAMESPACE_OF_FORMAT_3.pack(*numbers) + state.model.encode())
                transaction.put(key, old, db=namespaces)
            transaction.put(b"format", struct.pack("<I", 3), db=meta)
            transaction.drop(environment.open_db(b"vectors2", txn=transaction))


def test_a_store_of_the_format_before_is_upgraded_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with Replica(tmp_path) as replica:
        Moving(replica.store).put(replica, 3)
        with replica.store.read() as transaction:
            space = transaction.namespace(NAMESPACE)
    as_format_3(path)

    def open_store(path: Path, *, read_only: bool = False) -> Store:
        return Store(path, map_size_bytes=MIB, max_map_size_bytes=64 * MIB, read_only=read_only)

    with pytest.raises(StoreFormatError, match=r"format 3, of an earlier.*when a server opens it"):
        open_store(path, read_only=True)
    open_store(path).close()
    store = open_store(path, read_only=True)
    assert verify(store).problems == []
    with store.read() as transaction:
        assert transaction.namespace(NAMESPACE) == space
        vector = transaction.vector(space, 2) if space else None
    assert vector is not None
    assert np.allclose(vector, vector_of("", 2))
    store.close()
