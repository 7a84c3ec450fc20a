"""Compression dictionaries of a store: trained beside the writes, retired with what they were trained on."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agentmem.core.compression import TRAINING_SAMPLES
from agentmem.core.dictionaries import StoredDictionary, decode_dictionary
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.recompression import maintain_dictionaries
from agentmem.core.store import Change, Removal, Store, WriteTransaction
from agentmem.core.verification import verify
from agentmem.v1 import memory_pb2

MIB = 1024**2
WORDS = ("tea", "rain", "boat", "book", "walk", "city", "river", "friend", "dog", "music", "bread", "garden")


def memory(number: int, chance: random.Random) -> memory_pb2.Memory:
    made = memory_pb2.Memory(
        namespace="ns",
        id=f"m{number:05}",
        content=f"number {number}: " + " ".join(chance.choices(WORDS, k=20)),
        user_id="ana",
        session_id=f"session-{number // 20}",
        version=1,
    )
    made.update_time.FromSeconds(1_700_000_000 + number)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    yield store
    store.close()


def fill(store: Store, first: int, count: int) -> None:
    chance = random.Random(first)
    changes = [Change(memory(number, chance)) for number in range(first, first + count)]
    store.commit(lambda transaction: transaction.append(changes, 1))


def doc_bytes(store: Store, first: int, count: int) -> int:
    """What the records of some ordinals take."""
    with store.read() as transaction:
        values = [
            transaction._transaction.get(b"docs", ordinal.to_bytes(8, "big"))
            for ordinal in range(first, first + count)
        ]
    return sum(len(value or b"") for value in values)


def dictionary_ids(store: Store) -> list[int]:
    with store.read() as transaction:
        return [int.from_bytes(key, "big") for key in transaction.keys(b"dictionaries")]


def contents(store: Store) -> list[str]:
    with store.read() as transaction:
        return [
            transaction.named_record(state.ordinal).memory.content for _, state in transaction.live_ids("ns")
        ]


def test_a_namespace_of_some_size_gets_one_and_records_shrink(store: Store) -> None:
    fill(store, 0, TRAINING_SAMPLES - 1)
    maintain_dictionaries(store)
    assert dictionary_ids(store) == []
    fill(store, TRAINING_SAMPLES - 1, 1)
    maintain_dictionaries(store)
    assert dictionary_ids(store) == [1]
    fill(store, TRAINING_SAMPLES, 500)
    before = doc_bytes(store, 1, 500)
    after = doc_bytes(store, TRAINING_SAMPLES + 1, 500)
    assert after < 0.8 * before
    assert len(contents(store)) == TRAINING_SAMPLES + 500
    maintain_dictionaries(store)
    assert dictionary_ids(store) == [1]
    assert verify(store).problems == []


def test_it_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)
    fill(store, TRAINING_SAMPLES, 100)
    expected = contents(store)
    store.close()
    again = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    assert contents(again) == expected
    fill(again, TRAINING_SAMPLES + 100, 100)
    assert doc_bytes(again, TRAINING_SAMPLES + 101, 100) < 0.8 * doc_bytes(again, 1, 100)
    again.close()


def _remove(transaction: WriteTransaction, memory_id: str, is_purge: bool) -> None:
    state = transaction.id_state("ns", memory_id)
    assert state is not None
    transaction.append([Removal("ns", [state.ordinal], purged_id=memory_id if is_purge else "")], 1)


def test_it_retires_with_a_sample_and_takes_nothing_with_it(store: Store) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)
    fill(store, TRAINING_SAMPLES, 300)
    # One that came later is no reason.
    store.commit(partial(_remove, memory_id=f"m{TRAINING_SAMPLES + 7:05}", is_purge=True))
    maintain_dictionaries(store)
    assert dictionary_ids(store) == [1]
    expected = contents(store)
    sample = "m00003"
    with store.read() as transaction:
        state = transaction.id_state("ns", sample)
        assert state is not None
        text = transaction.named_record(state.ordinal).memory.content.encode()
    store.commit(partial(_remove, memory_id=sample, is_purge=True))
    expected.remove(text.decode())
    # Still to be read until everything is written again.
    assert contents(store) == expected
    maintain_dictionaries(store)
    assert contents(store) == expected
    assert dictionary_ids(store) == [2]
    with store.read() as transaction:
        assert list(transaction.compressed_with(1, 0)) == []
        assert state.ordinal not in _samples(transaction, 2)
    assert verify(store).problems == []


def _samples(transaction: ReadTransaction, dictionary_id: int) -> list[int]:
    value = transaction._transaction.get(b"dictionaries", dictionary_id.to_bytes(4, "big"))
    assert value is not None
    return list(decode_dictionary(value, dictionary_id).samples)


def test_a_retirement_that_was_cut_off_goes_on_after_a_restart(store: Store, tmp_path: Path) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)
    fill(store, TRAINING_SAMPLES, 300)
    store.commit(partial(_remove, memory_id="m00003", is_purge=True))
    expected = contents(store)
    store.close()
    again = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    assert again.dictionaries.retired() == [1]
    maintain_dictionaries(again)
    assert again.dictionaries.retired() == []
    assert 1 not in dictionary_ids(again)
    assert contents(again) == expected
    again.close()


def test_texts_that_share_nothing_get_none(store: Store) -> None:
    chance = random.Random(1)
    changes = []
    for number in range(TRAINING_SAMPLES):
        made = memory(number, chance)
        made.id = chance.randbytes(8).hex()
        made.content = chance.randbytes(300).hex()
        made.session_id = ""
        changes.append(Change(made))
    store.commit(lambda transaction: transaction.append(changes, 1))
    maintain_dictionaries(store)
    assert dictionary_ids(store) == []
    assert store.dictionaries.untrained() == []


def test_a_damaged_dictionary_is_named(store: Store) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)
    fill(store, TRAINING_SAMPLES, 10)

    def damage(transaction: WriteTransaction) -> None:
        key = (1).to_bytes(4, "big")
        value = bytearray(transaction._transaction.get(b"dictionaries", key) or b"")
        value[-1] ^= 1
        transaction._transaction.put(b"dictionaries", key, bytes(value))

    store.commit(damage)
    store.dictionaries.forget(1)
    assert any("dictionary 1 fails its checksum" in problem for problem in verify(store).problems)


def test_a_write_that_uses_it_and_retires_it_loses_nothing_to_maintenance(store: Store) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)
    beside = threading.Thread(target=maintain_dictionaries, args=(store,))

    def write(transaction: WriteTransaction) -> None:
        chance = random.Random(1)
        transaction.append([Change(memory(TRAINING_SAMPLES + number, chance)) for number in range(10)], 1)
        _remove(transaction, "m00003", is_purge=True)
        beside.start()
        beside.join(0.5)  # it must be waiting for this write by then

    store.commit(write)
    beside.join()
    assert len(contents(store)) == TRAINING_SAMPLES + 9
    assert verify(store).problems == []


def test_a_purge_just_behind_its_training_retires_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    take_up = store.dictionaries.take_up

    def take_up_late(dictionary_id: int, stored: StoredDictionary) -> None:
        store.commit(partial(_remove, memory_id="m00003", is_purge=True))
        take_up(dictionary_id, stored)

    monkeypatch.setattr(store.dictionaries, "take_up", take_up_late)
    maintain_dictionaries(store)
    monkeypatch.undo()
    assert store.dictionaries.retired() == [1]
    maintain_dictionaries(store)
    assert 1 not in dictionary_ids(store)


def test_a_purge_that_runs_again_retires_it_for_good(store: Store, tmp_path: Path) -> None:
    fill(store, 0, TRAINING_SAMPLES)
    maintain_dictionaries(store)

    def fail(transaction: WriteTransaction) -> None:
        _remove(transaction, "m00003", is_purge=True)
        raise ValueError

    with pytest.raises(ValueError):
        store.commit(fail)
    store.commit(partial(_remove, memory_id="m00003", is_purge=True))
    store.close()
    again = Store(tmp_path / "store", map_size_bytes=64 * MIB, max_map_size_bytes=64 * MIB)
    assert again.dictionaries.retired() == [1]
    again.close()
