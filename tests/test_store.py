"""The store: what a commit writes, what a replica's copy of it holds, and what is refused."""

from __future__ import annotations

import copy
import random
import struct
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pytest

from agentmem.core.errors import AgentMemError, DataLoss
from agentmem.core.layout import NamespaceState
from agentmem.core.log import LOG_HEADER_BYTES, decode_entry, next_chain_hash
from agentmem.core.records import FloatVector, IdSource
from agentmem.core.store import Change, Removal, Store, StoreCorruptError, StoreFormatError, WriteTransaction
from agentmem.core.verification import verify
from agentmem.server.commands import AddMemories, UpdateMemory
from agentmem.server.embedding import EmbeddingOutdated, Made
from agentmem.server.reembedding import ReembedNamespace
from agentmem.v1 import memory_pb2, replication_pb2, writer_pb2

MIB = 1024**2


def open_store(path: Path, map_size_bytes: int = 64 * MIB, max_map_size_bytes: int = 1024 * MIB) -> Store:
    return Store(path, map_size_bytes=map_size_bytes, max_map_size_bytes=max_map_size_bytes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "writer")
    store.found_cluster()
    return store


def put(
    store: Store,
    memory_id: str,
    content: str = "text",
    time_us: int = 1,
    dimension: int = 4,
    coming_dimension: int = 0,
) -> int:
    """Adds or updates one memory; returns the revision."""

    def unit(dimension: int) -> FloatVector | None:
        return np.full(dimension, dimension**-0.5, dtype=np.float32) if dimension else None

    def work(transaction):  # type: ignore[no-untyped-def]
        state = transaction.id_state("ns", memory_id)
        memory = memory_pb2.Memory(
            namespace="ns", id=memory_id, content=content, version=state.version + 1 if state else 1
        )
        change = Change(memory, unit(dimension), coming_vector=unit(coming_dimension))
        return transaction.append([change], time_us)

    return int(store.commit(work))


def delete(store: Store, memory_id: str) -> int:
    def work(transaction):  # type: ignore[no-untyped-def]
        state = transaction.id_state("ns", memory_id)
        tombstone = memory_pb2.Memory(namespace="ns", id=memory_id, version=state.version + 1)
        return transaction.append([Change(tombstone, is_tombstone=True)], 1)

    return int(store.commit(work))


def ship(store: Store, after: int = 0, max_bytes: int = MIB) -> list[replication_pb2.ShippedEntry]:
    with store.read() as transaction:
        return transaction.shipped_entries(after, max_bytes)


def follower_of(store: Store, path: Path) -> Store:
    follower = open_store(path)
    position = store.position()
    follower.commit(lambda transaction: transaction.adopt_cluster(position.cluster_id))
    return follower


def _apply(transaction: WriteTransaction, entry: replication_pb2.ShippedEntry) -> None:
    transaction.apply(entry)


def contents(store: Store) -> list[tuple[str, int, str]]:
    with store.read() as transaction:
        found = []
        for memory_id, state in transaction.live_ids("ns"):
            record = transaction.record(state.ordinal)
            assert record is not None
            found.append((memory_id, state.version, record.memory.content))
        return found


def live_memories(store: Store) -> int:
    with store.read() as transaction:
        state = transaction.namespace("ns")
        return 0 if state is None else state.live_memories


def test_versions_are_kept_and_linked(store: Store) -> None:
    put(store, "a", "one")
    put(store, "a", "two")
    delete(store, "a")
    put(store, "a", "three")
    with store.read() as transaction:
        state = transaction.id_state("ns", "a")
        assert state is not None
        history = []
        ordinal = state.ordinal
        while ordinal:
            record = transaction.record(ordinal)
            assert record is not None
            memory = record.memory
            history.append((record.revision, memory.version, record.is_tombstone, memory.content))
            ordinal = record.previous_ordinal
    assert history == [(4, 4, False, "three"), (3, 3, True, ""), (2, 2, False, "two"), (1, 1, False, "one")]


def test_counts_follow_adds_updates_and_deletes(store: Store) -> None:
    for memory_id in "abc":
        put(store, memory_id)
    put(store, "a", "new")
    delete(store, "b")
    put(store, "c", dimension=0)  # a version without a vector
    with store.read() as transaction:
        state = transaction.namespace("ns")
    assert state is not None
    assert (state.number, state.dimension, state.live_memories, state.live_vectors) == (1, 4, 2, 1)


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(AgentMemError) as refused, store.read():
        pass
    assert refused.value.reason == "SHUTTING_DOWN"


def test_survives_reopening(store: Store, tmp_path: Path) -> None:
    put(store, "a", "one")
    position = store.position()
    store.close()
    reopened = open_store(tmp_path / "writer")
    reopened.found_cluster()
    assert reopened.position() == position
    assert contents(reopened) == [("a", 1, "one")]


def test_a_failed_command_leaves_nothing(store: Store) -> None:
    put(store, "a", "one")

    def work(transaction):  # type: ignore[no-untyped-def]
        transaction.append([Change(memory_pb2.Memory(namespace="ns", id="b", version=1))], 1)
        raise AgentMemError("REASON", "no")

    with pytest.raises(AgentMemError):
        store.commit(work)
    assert contents(store) == [("a", 1, "one")]
    assert store.position().revision == 1
    # Nor does the next one go on from it.
    assert put(store, "b", "two") == 2
    assert live_memories(store) == 2
    assert verify(store).problems == []


def test_a_write_goes_on_from_the_one_before_it_and_from_no_earlier_one(store: Store) -> None:
    put(store, "a")
    left = copy.deepcopy(store._written)
    put(store, "b")
    # As by a thread that was held up behind its commit until another had committed, too.
    store._written = left
    assert put(store, "c") == 3
    assert live_memories(store) == 3
    assert verify(store).problems == []


def test_a_memory_that_comes_with_a_vector_gets_its_coming_one_too(store: Store) -> None:
    put(store, "a")
    store.commit(lambda transaction: ReembedNamespace("ns", "coming", 2, None).run(transaction, 1))
    memory = memory_pb2.Memory(namespace="ns", id="b", content="text")
    vector, coming = np.full(4, 0.5, dtype=np.float32), np.array([0.6, 0.8], dtype=np.float32)
    add = partial(AddMemories, "ns", [memory], [vector], writer_pb2.DUPLICATE_POLICY_ADD, None, 0)
    with pytest.raises(EmbeddingOutdated):
        store.commit(lambda transaction: add().run(transaction, 1))
    for made in (Made(), Made(vectors={"coming": coming})):  # without its embedder, and with it
        memory.id += "b"
        store.commit(partial(lambda made, transaction: add([made]).run(transaction, 1), made))
    with store.read() as transaction:
        space = transaction.namespace("ns")
        assert space is not None
        found = [transaction.coming_vector(space, ordinal) for ordinal in (2, 3)]
    assert found[0] is None
    assert found[1] is not None
    assert found[1].tolist() == coming.tolist()


def test_new_content_that_comes_with_a_vector_gets_its_coming_one_too(store: Store) -> None:
    put(store, "a")
    store.commit(lambda transaction: ReembedNamespace("ns", "coming", 2, None).run(transaction, 1))
    memory = memory_pb2.Memory(namespace="ns", id="a", content="new")
    fields = frozenset(("content", "embedding"))
    vector, coming = np.full(4, 0.5, dtype=np.float32), np.array([0.6, 0.8], dtype=np.float32)
    update = partial(UpdateMemory, "ns", memory, fields, None, vector, None, 0)
    with pytest.raises(EmbeddingOutdated):
        store.commit(lambda transaction: update().run(transaction, 1))
    made = [Made(vectors={"coming": coming})]
    answer = store.commit(lambda transaction: update(made).run(transaction, 1))
    assert answer.memory.version == 2
    with store.read() as transaction:
        space = transaction.namespace("ns")
        assert space is not None
        found = transaction.coming_vector(space, 2)
    assert found is not None
    assert found.tolist() == coming.tolist()


def test_a_full_map_grows(tmp_path: Path) -> None:
    store = open_store(tmp_path / "small", map_size_bytes=MIB)
    store.found_cluster()
    for number in range(40):
        put(store, f"m{number}", random.Random(number).randbytes(60_000).hex())
    assert store.map_size_bytes > MIB
    assert len(contents(store)) == 40 == live_memories(store)


def test_a_map_at_its_limit_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    store = open_store(tmp_path / "small", map_size_bytes=MIB, max_map_size_bytes=2 * MIB)
    store.found_cluster()
    written = 0
    reason = ""
    while not reason and written < 100:
        try:
            put(store, f"m{written:03}", random.Random(written).randbytes(60_000).hex())
            written += 1
        except AgentMemError as error:
            reason = error.reason
    assert reason == "STORE_FULL"
    assert written > 0
    assert len(contents(store)) == written == store.position().revision


def test_a_write_over_what_is_there_ends_the_transaction_whole(store: Store) -> None:
    put(store, "a", "one")
    before = store.position()

    def work(transaction: WriteTransaction) -> None:
        transaction._next_ordinal = 1  # as a store that contradicts itself would have it
        memory = memory_pb2.Memory(namespace="ns", id="b", content="two", version=1)
        transaction.append([Change(memory)], 1)

    with pytest.raises(StoreCorruptError, match="docs"):
        store.commit(work)
    assert store.position() == before
    assert contents(store) == [("a", 1, "one")]


def test_the_chain_covers_every_entry(store: Store) -> None:
    for number in range(5):
        put(store, f"m{number}")
    chain_hash = bytes(32)
    for shipped in ship(store):
        chain_hash = next_chain_hash(chain_hash, shipped.log_value[LOG_HEADER_BYTES:])
    assert chain_hash == store.position().chain_hash


def test_a_follower_becomes_equal(store: Store, tmp_path: Path) -> None:
    for number in range(20):
        put(store, f"m{number}", f"text {number}")
    put(store, "m3", "changed")
    delete(store, "m4")
    follower = follower_of(store, tmp_path / "replica")
    while shipped := ship(store, follower.position().revision, max_bytes=500):
        for entry in shipped:
            follower.commit(partial(_apply, entry=entry))
    assert follower.position() == store.position()
    assert contents(follower) == contents(store)
    with follower.read() as copy, store.read() as original:
        assert copy.namespace("ns") == original.namespace("ns")


def test_a_follower_that_was_away_removes_all_that_was_pruned(store: Store, tmp_path: Path) -> None:
    follower = follower_of(store, tmp_path / "follower")
    put(store, "a", "one")
    delete(store, "a")
    for entry in ship(store):
        follower.commit(partial(_apply, entry=entry))
    put(store, "a", "two")
    put(store, "a", "three")
    for ordinals in ([1], [3, 2]):
        removal = Removal("ns", ordinals)
        store.commit(lambda transaction, removal=removal: transaction.append([removal], 1))  # type: ignore[misc]
    for entry in ship(store, after=2):
        follower.commit(partial(_apply, entry=entry))
    assert follower.position() == store.position()
    assert contents(follower) == contents(store) == [("a", 4, "three")]
    assert verify(follower).problems == verify(store).problems == []
    follower.close()


def test_an_entry_applied_twice_counts_once(store: Store, tmp_path: Path) -> None:
    put(store, "a")
    follower = follower_of(store, tmp_path / "replica")
    for _ in range(2):
        follower.commit(lambda transaction: transaction.apply(ship(store)[0]))
    assert follower.position() == store.position()


def remove(store: Store, *ordinals: int, is_purge: bool) -> int:
    """Prunes or purges versions of one memory, given newest first."""
    removal = Removal("ns", ordinals, purged_id="a" if is_purge else "")
    return store.commit(lambda transaction: transaction.append([removal], 1))


def follow(store: Store, follower: Store) -> None:
    for entry in ship(store, follower.position().revision):
        follower.commit(partial(_apply, entry=entry))


def test_a_follower_knows_the_dimension_of_embeddings_that_it_never_gets(
    store: Store, tmp_path: Path
) -> None:
    put(store, "a", dimension=4)
    remove(store, 1, is_purge=True)
    follower = follower_of(store, tmp_path / "replica")
    follow(store, follower)
    with follower.read() as copy, store.read() as original:
        assert copy.namespace("ns") == original.namespace("ns")
        assert original.namespace("ns") == NamespaceState(number=1, dimension=4)


def test_a_follower_that_missed_a_version_between_drops_what_ended_before_it(
    store: Store, tmp_path: Path
) -> None:
    follower = follower_of(store, tmp_path / "replica")
    put(store, "a", "one")
    delete(store, "a")
    follow(store, follower)
    put(store, "a", "two")
    put(store, "a", "three")
    remove(store, 3, 2, 1, is_purge=False)  # so the follower is never sent "two"
    follow(store, follower)
    with follower.read() as copy, store.read() as original:
        assert original.superseded(1, until_us=10, limit=10) == []
        assert copy.superseded(1, until_us=10, limit=10) == []


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _damage_log(entry: replication_pb2.ShippedEntry) -> None:
    entry.log_value = _flip(entry.log_value, len(entry.log_value) - 1)


def _damage_record(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].record = _flip(entry.records[0].record, 30)


def _damage_vector(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].vector = _flip(entry.records[0].vector, 7)


def _lose_vector(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].vector = b""


def _damage_coming_vector(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].coming_vector = entry.records[0].coming_vector[:-1] + b"x"


def _lose_coming_vector(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].coming_vector = b""


def _other_coming_vector(entry: replication_pb2.ShippedEntry) -> None:
    entry.records[0].coming_vector = entry.records[0].vector


def _lose_record(entry: replication_pb2.ShippedEntry) -> None:
    del entry.records[0]


def _other_record(entry: replication_pb2.ShippedEntry) -> None:
    from agentmem.core.records import Record, encode_record

    memory = memory_pb2.Memory(namespace="ns", id="b", content="forged", version=1)
    entry.records[0].record = encode_record(Record(2, 0, False, memory))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_damage_log, "CORRUPT_LOG"),
        (_damage_record, "CORRUPT_RECORD"),
        (_damage_vector, "CORRUPT_VECTOR"),
        (_lose_vector, "RECORD_MISMATCH"),
        (_lose_record, "RECORDS_MISSING"),
        (_other_record, "RECORD_MISMATCH"),
        (_damage_coming_vector, "CORRUPT_VECTOR"),
        (_lose_coming_vector, "RECORD_MISMATCH"),
        (_other_coming_vector, "RECORD_MISMATCH"),
    ],
)
def test_a_damaged_entry_is_not_applied(store: Store, tmp_path: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    put(store, "a")
    store.commit(lambda transaction: ReembedNamespace("ns", "coming", 2, None).run(transaction, 1))
    put(store, "b", coming_dimension=2)
    follower = follower_of(store, tmp_path / "replica")
    first, begun, second = ship(store)
    follower.commit(lambda transaction: transaction.apply(first))
    follower.commit(lambda transaction: transaction.apply(begun))
    before = follower.position()
    damage(second)
    with pytest.raises(DataLoss) as refused:
        follower.commit(lambda transaction: transaction.apply(second))
    assert refused.value.reason == reason
    assert follower.position() == before
    assert contents(follower) == [("a", 1, "text")]


def test_a_gap_and_another_history_are_not_applied(store: Store, tmp_path: Path) -> None:
    for memory_id in "abc":
        put(store, memory_id)
    follower = follower_of(store, tmp_path / "replica")
    first, _, third = ship(store)
    with pytest.raises(DataLoss) as gap:
        follower.commit(lambda transaction: transaction.apply(third))
    assert gap.value.reason == "LOG_GAP"

    other = open_store(tmp_path / "other")
    other.found_cluster()
    put(other, "x", "of another history")
    put(other, "y")
    follower.commit(lambda transaction: transaction.apply(first))
    with pytest.raises(DataLoss) as chain:
        follower.commit(lambda transaction: transaction.apply(ship(other)[1]))
    assert chain.value.reason == "CHAIN_MISMATCH"
    assert contents(follower) == [("a", 1, "text")]


def test_damage_on_disk_is_named_and_not_served(store: Store, tmp_path: Path) -> None:
    put(store, "a", "the content")
    store.close()
    path = tmp_path / "writer"
    with lmdb.open(str(path), max_dbs=20) as environment:
        docs = environment.open_db(b"docs")
        with environment.begin(write=True) as transaction:
            key = struct.pack(">Q", 1)
            value = transaction.get(key, db=docs)
            assert value is not None
            transaction.put(key, _flip(value, len(value) - 3), db=docs)
    reopened = open_store(path)
    with reopened.read() as snapshot, pytest.raises(DataLoss, match="ordinal 1"):
        snapshot.record(1)


def test_a_newer_format_is_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "writer"
    with lmdb.open(str(path), max_dbs=20) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"format", struct.pack("<I", 99), db=meta)
    with pytest.raises(StoreFormatError, match="format 99"):
        open_store(path)


def test_a_store_is_made_whole_beside_its_place(tmp_path: Path) -> None:
    path = tmp_path / "store"
    # What a cut in the first moments leaves.
    (tmp_path / "store.new").mkdir()
    (tmp_path / "store.new" / "data.mdb").write_bytes(b"half")
    path.mkdir()
    store = open_store(path)
    store.found_cluster()
    put(store, "a", "one")
    assert contents(store) == [("a", 1, "one")]
    assert not (tmp_path / "store.new").exists()


def test_a_folder_with_other_files_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "letter.txt").write_text("dear Ana")
    with pytest.raises(StoreFormatError, match="not a store"):
        open_store(tmp_path / "store")
    assert (tmp_path / "store" / "letter.txt").read_text() == "dear Ana"


def test_files_that_are_not_a_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a store " * 1000)
    with pytest.raises(StoreFormatError):
        open_store(tmp_path)


def test_a_log_entry_carries_its_operations(store: Store) -> None:
    put(store, "a")
    put(store, "a", "two")
    delete(store, "a")
    with store.read() as transaction:
        entries = [transaction.log_entry(revision) for revision in (1, 2, 3)]
        value = transaction.log_value(2)
    assert value is not None
    assert decode_entry(value, 2)[0] == entries[1]
    assert [(entry.operations[0].ordinal, entry.operations[0].replaced_ordinal) for entry in entries] == [
        (1, 0),
        (2, 1),
        (3, 2),
    ]


def test_ids_are_version_7_and_in_order() -> None:
    source = IdSource()
    ids = [source.next() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(memory_id[14] == "7" and memory_id[19] in "89ab" for memory_id in ids)
