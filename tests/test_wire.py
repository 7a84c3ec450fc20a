"""Answers put together from stored bytes are the messages that protobuf would make."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from cluster import wait_until
from hypothesis import given
from hypothesis import strategies as st
from memories import MIB, NAMESPACE, make_memory

from agentmem.core import wire
from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.consistency import Demand
from agentmem.core.errors import AgentMemError, InvalidArgument
from agentmem.core.layout import KEY, NamespaceState, decode_live_ordinal, encode_id_state
from agentmem.core.memory_bytes import has_ended, memories_bytes
from agentmem.core.reader_service import StoreReader
from agentmem.core.reading import get_memories
from agentmem.core.records import may_expire
from agentmem.core.signals import Signal
from agentmem.core.store import Change, Store
from agentmem.core.validation import MAX_ID_BYTES, check_ids
from agentmem.core.watching import Watches
from agentmem.replica.search_answers import answer_bytes, hit_bytes, outcome_bytes
from agentmem.replica.view import View
from agentmem.v1 import failure_pb2, memory_pb2, reader_pb2

Memory = memory_pb2.Memory


@given(st.integers(0, 2**64 - 1), st.floats(allow_nan=False), st.binary(max_size=300), st.integers(0, 20_000))
def test_fields_are_as_protobuf_writes_them(value: int, score: float, text: bytes, size: int) -> None:
    hit = reader_pb2.SearchHit(score=score)
    if score or str(score) == "-0.0":
        assert wire.double(2, score) == hit.SerializeToString()
    assert reader_pb2.SearchHit.FromString(wire.double(2, score)) == hit
    assert wire.number(3, value) == reader_pb2.GetMemoriesResponse(applied_revision=value).SerializeToString()
    assert wire.delimited(11, text) == (Memory(embedding=text).SerializeToString() or b"\x5a\x00")
    whole = Memory(content="a" * size).SerializeToString()
    assert wire.head(3, size) == (whole[: len(whole) - size] or b"\x1a\x00")


def test_an_answer_to_a_search_is_what_its_parts_say() -> None:
    memories = [Memory(id="a", content="tea" * 100), Memory(id="b")]
    hits = [
        reader_pb2.SearchHit(memory=memories[0], score=0.5, signals=reader_pb2.SearchSignals(cosine=0.5)),
        reader_pb2.SearchHit(memory=memories[1], score=0.0),
    ]
    explanation = reader_pb2.SearchExplanation(live_memories=3, tokens=["tea"])
    expected = reader_pb2.SearchMemoriesResponse(
        hits=hits, applied_revision=300, epoch=2, explanation=explanation
    )
    made = [
        hit_bytes(hit.memory.SerializeToString(), hit.score, hit.signals if hit.HasField("signals") else None)
        for hit in hits
    ]
    answer = answer_bytes(made, View(revision=300, epoch=2), explanation)
    assert reader_pb2.SearchMemoriesResponse.FromString(answer) == expected
    failure = failure_pb2.Failure(reason="NOPE")
    batch = outcome_bytes(answer) + outcome_bytes(failure) + outcome_bytes(answer_bytes((), View(), None))
    results = reader_pb2.BatchSearchMemoriesResponse.FromString(batch).results
    assert [each.WhichOneof("outcome") for each in results] == ["response", "failure", "response"]
    assert (results[0].response, results[1].failure) == (expected, failure)


@given(st.builds(Memory, content=st.text(), version=st.integers(0, 2**63), id=st.text(max_size=300)))
def test_no_expire_time_is_overlooked(memory: memory_pb2.Memory) -> None:
    memory.expire_time.FromMicroseconds(5_000_000)
    encoded = memory.SerializeToString()
    assert may_expire(encoded)
    assert (has_ended(encoded, 4_999_999), has_ended(encoded, 5_000_000)) == (False, True)
    memory.ClearField("expire_time")
    assert not has_ended(memory.SerializeToString(), 2**62)


def test_the_bytes_of_memories_are_those_of_their_records(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
    vectors = np.eye(2, dtype=np.float32)
    changes = [
        Change(make_memory("long", content="tea " * 200), vectors[0]),
        Change(make_memory("short", content="tea")),
    ]
    store.commit(lambda transaction: transaction.append(changes, 1))
    with store.read() as transaction:
        (name, state) = next(transaction.namespaces())
        ordinals = [transaction.id_state(name, id).ordinal for id in ("long", "short")]  # type: ignore[union-attr]

        def found(space: NamespaceState, *, include_embedding: bool) -> list[memory_pb2.Memory]:
            made = memories_bytes(
                transaction, space, ordinals, store.memories, include_embedding=include_embedding
            )
            return [Memory.FromString(each or b"") for each in made]

        assert found(state, include_embedding=False) == [
            transaction.named_record(ordinal).memory for ordinal in ordinals
        ]
        assert [each.embedding for each in found(state, include_embedding=True)] == [
            vectors[0].tobytes(),
            b"",
        ]
        assert list(memories_bytes(transaction, state, [max(ordinals) + 1], store.memories)) == [None]
    store.close()


def test_several_calls_in_one_thread_end_each_by_itself() -> None:
    threads = BoundedThreads("tests", threads=1, max_calls=3)
    names: set[str] = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        return 1 // number

    async def ask() -> None:
        outcomes = await threads.run_each([lambda: work(1), lambda: work(0), lambda: work(-1)])
        assert [str(each) for each in outcomes] == ["1", "integer division or modulo by zero", "-1"]
        assert threads.calls == 0
        with pytest.raises(AgentMemError) as refused:
            await threads.run_each([lambda: 1] * 4)
        assert refused.value.reason == "OVERLOADED"

    asyncio.run(ask())
    assert len(names) == 1
    threads.close()


def test_what_has_not_begun_does_not_when_its_caller_is_gone() -> None:
    threads = BoundedThreads("tests", threads=1, max_calls=3)
    begun, go_on, after = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    async def ask() -> None:
        asking = asyncio.create_task(threads.run_each([wait, after.set]))
        await asyncio.to_thread(begun.wait)
        asking.cancel()
        await asyncio.wait([asking])
        go_on.set()
        await threads.run(lambda: None)  # behind it in the one thread
        assert asking.cancelled()

    asyncio.run(ask())
    assert not after.is_set()
    threads.close()


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        ([], "ids"),
        (["a", ""], "ids[1]"),
        (["a", "b", "a"], "ids[2]"),
        (["a", "b\n"], "ids[1]"),
        (["a" * MAX_ID_BYTES, "ä" * MAX_ID_BYTES], "ids[1]"),
    ],
)
def test_a_wrong_id_is_named_by_its_place(ids: list[str], field: str) -> None:
    check_ids(["a", "ä" * (MAX_ID_BYTES // 2), "c" * MAX_ID_BYTES], "ids")
    with pytest.raises(InvalidArgument) as raised:
        check_ids(ids, "ids")
    assert raised.value.metadata["field"] == field


def test_an_id_that_was_deleted_names_nothing_live() -> None:
    assert decode_live_ordinal(encode_id_state(7, 1, False), "a") == 7
    assert decode_live_ordinal(encode_id_state(7, 2, True), "a") == 0
    with pytest.raises(AgentMemError, match="'a' fails its checksum"):
        decode_live_ordinal(encode_id_state(7, 1, False)[:-1] + b"\1", "a")


def test_a_store_closes_when_the_last_read_has_ended(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
    closing = threading.Thread(target=store.close, daemon=True)
    with store.read():
        closing.start()
        wait_until(lambda: store._environment._closed, "the close has begun")
        assert closing.is_alive()
    closing.join(10.0)
    assert not closing.is_alive()


class _Reader(StoreReader):
    async def reach(self, demand: Demand, wait_s: float) -> None:
        raise AssertionError("nothing is demanded")


def test_only_a_short_answer_to_a_get_is_put_together_in_the_event_loop(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB)
    ids = [f"m{number}" for number in range(9)]
    changes = [Change(make_memory(each, content=each * 60_000)) for each in ids]
    store.commit(lambda transaction: transaction.append(changes, 1))
    reader = _Reader(store, Watches(store, Signal(), is_writer=True))  # type: ignore[abstract]

    def found(ids: list[str]) -> list[str]:
        request = reader_pb2.GetMemoriesRequest(namespace=NAMESPACE, ids=ids)
        answer = asyncio.run(reader.GetMemories(request, None))  # type: ignore[arg-type]
        return [each.content[:2] for each in reader_pb2.GetMemoriesResponse.FromString(answer).memories]

    assert found(ids) == ids
    # Without threads what needs none goes on.
    reader._threads.close()
    assert found(ids[:8]) == ids[:8]
    with pytest.raises(RuntimeError, match="after shutdown"):
        found(ids)
    reader.close()
    store.close()


def test_a_record_that_is_missing_is_no_missing_memory(tmp_path: Path) -> None:
    store = Store(
        tmp_path / "store", map_size_bytes=16 * MIB, max_map_size_bytes=16 * MIB, memory_cache_bytes=0
    )
    store.commit(lambda transaction: transaction.append([Change(make_memory("a"))], 1))
    request = reader_pb2.GetMemoriesRequest(namespace=NAMESPACE, ids=["a", "b"])
    answer = reader_pb2.GetMemoriesResponse.FromString(get_memories(store, request, 0))
    assert ([each.id for each in answer.memories], list(answer.missing_ids)) == (["a"], ["b"])
    store._environment.commit(lambda transaction: transaction.delete(b"docs", KEY.pack(1)))
    with pytest.raises(AgentMemError) as raised:
        get_memories(store, request, 0)
    assert raised.value.reason == "MISSING_RECORD"
    store.close()
