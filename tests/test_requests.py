"""Requests that come again, and texts that do: carried out once, answered alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from calls import add, all_ids, error_of, floats, get
from cluster import Cluster, Stubs

from agentmem.v1 import memory_pb2, writer_pb2

Memory = memory_pb2.Memory
ADD, SKIP, MERGE = (
    writer_pb2.DUPLICATE_POLICY_ADD,
    writer_pb2.DUPLICATE_POLICY_SKIP,
    writer_pb2.DUPLICATE_POLICY_MERGE,
)
CALLERS = 32


def added(
    stubs: Stubs,
    namespace: str,
    *memories: Memory,
    request_id: str = "",
    on_duplicate: writer_pb2.DuplicatePolicy = ADD,
) -> writer_pb2.AddMemoriesResponse:
    return stubs.writer.AddMemories(
        writer_pb2.AddMemoriesRequest(
            namespace=namespace, memories=memories, request_id=request_id, on_duplicate=on_duplicate
        )
    )


def outcomes(response: writer_pb2.AddMemoriesResponse) -> list[int]:
    return [memory.outcome for memory in response.memories]


def test_an_add_that_comes_again_is_answered_and_not_repeated(writer: Stubs, namespace: str) -> None:
    first = added(writer, namespace, Memory(content="once"), request_id="r")
    added(writer, namespace, Memory(content="another"))
    assert added(writer, namespace, Memory(content="once"), request_id="r") == first
    assert len(all_ids(writer, namespace)) == 2


def test_an_update_that_comes_again_is_answered_with_its_own_version(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="one"))
    request = writer_pb2.UpdateMemoryRequest(
        namespace=namespace, memory=Memory(id="a", content="two"), expected_version=1, request_id="u"
    )
    request.update_mask.paths.append("content")
    first = writer.writer.UpdateMemory(request)
    later = writer_pb2.UpdateMemoryRequest(namespace=namespace, memory=Memory(id="a", content="three"))
    later.update_mask.paths.append("content")
    writer.writer.UpdateMemory(later)
    # Though the expected version has long gone.
    assert writer.writer.UpdateMemory(request) == first
    assert get(writer, namespace, "a").memories[0].content == "three"


def test_a_delete_that_comes_again_deletes_nothing_new(writer: Stubs, namespace: str) -> None:
    request = writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a"], request_id="d")
    first = writer.writer.DeleteMemories(request)
    assert first.missing_ids == ["a"]
    add(writer, namespace, Memory(id="a", content="came later"))
    assert writer.writer.DeleteMemories(request) == first
    assert all_ids(writer, namespace) == {"a"}


def test_a_request_id_is_for_one_request(writer: Stubs, namespace: str) -> None:
    added(writer, namespace, Memory(content="one"), request_id="r")
    code, reason, metadata, _ = error_of(
        lambda: added(writer, namespace, Memory(content="two"), request_id="r")
    )
    assert (code, reason, metadata["field"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
        "request_id",
    )
    other = error_of(
        lambda: writer.writer.DeleteMemories(
            writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["x"], request_id="r")
        )
    )
    assert other[1] == "REQUEST_ID_REUSED"
    # In another namespace it is another id.
    assert outcomes(added(writer, namespace + "-b", Memory(content="two"), request_id="r")) == [
        writer_pb2.ADD_OUTCOME_ADDED
    ]


def test_a_refused_request_may_be_sent_again_when_it_has_become_possible(
    writer: Stubs, namespace: str
) -> None:
    add(writer, namespace, Memory(id="a", content="in the way"))

    def again() -> writer_pb2.AddMemoriesResponse:
        return added(writer, namespace, Memory(id="a", content="mine"), request_id="r")

    assert error_of(again)[1] == "MEMORY_EXISTS"
    writer.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["a"]))
    assert again().memories[0].version == 3


def test_the_same_request_from_many_at_once_is_carried_out_once(writer: Stubs, namespace: str) -> None:
    ready = threading.Barrier(CALLERS)

    def call(_: int) -> bytes:
        ready.wait()
        answer = added(writer, namespace, Memory(content="from all"), request_id="same")
        return answer.SerializeToString()

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = set(callers.map(call, range(CALLERS)))
    assert len(answers) == 1
    assert len(all_ids(writer, namespace)) == 1


def test_outcomes_outlive_a_killed_writer(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        first = added(stubs, "ns", Memory(content="once"), request_id="r")
        cluster.writer.kill()
        cluster.writer.restart()
        assert added(stubs, "ns", Memory(content="once"), request_id="r") == first
        assert len(all_ids(stubs, "ns")) == 1
        stubs.channel.close()


def test_32_callers_with_one_text_leave_one_memory(writer: Stubs, namespace: str) -> None:
    ready = threading.Barrier(CALLERS)

    def call(number: int) -> str:
        ready.wait()
        policy = SKIP if number % 2 else MERGE
        memory = Memory(content="Ana likes tea", user_id="ana")
        return added(writer, namespace, memory, on_duplicate=policy).memories[0].id

    with ThreadPoolExecutor(CALLERS) as callers:
        ids = set(callers.map(call, range(CALLERS)))
    assert len(ids) == 1
    assert all_ids(writer, namespace) == ids


def test_a_duplicate_has_the_same_owner_and_content(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(content="tea", user_id="ana", session_id="1"))
    same = Memory(content="tea", user_id="ana", session_id="2", tags=["new"])
    assert outcomes(added(writer, namespace, same, on_duplicate=SKIP)) == [writer_pb2.ADD_OUTCOME_SKIPPED]
    for other in (
        Memory(content="tea", user_id="bob"),
        Memory(content="tea", user_id="ana", agent_id="cook"),
        Memory(content="Tea", user_id="ana"),
    ):
        assert outcomes(added(writer, namespace, other, on_duplicate=SKIP)) == [writer_pb2.ADD_OUTCOME_ADDED]
    assert outcomes(added(writer, namespace, same)) == [writer_pb2.ADD_OUTCOME_ADDED]
    assert len(all_ids(writer, namespace)) == 5


def test_a_batch_sees_its_own_duplicates(writer: Stubs, namespace: str) -> None:
    response = added(
        writer,
        namespace,
        Memory(id="a", content="tea", tags=["x"]),
        Memory(content="tea", tags=["y"]),
        Memory(id="c", content="rum"),
        on_duplicate=MERGE,
    )
    assert [(memory.id, memory.version) for memory in response.memories] == [("a", 1), ("a", 1), ("c", 1)]
    (tea,) = get(writer, namespace, "a").memories
    assert list(tea.tags) == ["x", "y"]


def test_a_merge_brings_both_together_as_a_new_version(writer: Stubs, namespace: str) -> None:
    old = Memory(id="a", content="tea", tags=["x"], importance=0.9, type=memory_pb2.MEMORY_TYPE_SEMANTIC)
    old.metadata["kept"].number_value = 1
    old.metadata["changed"].string_value = "old"
    add(writer, namespace, old)
    new = Memory(content="tea", tags=["x", "y"], importance=0.2, session_id="s")
    new.metadata["changed"].string_value = "new"
    new.metadata["added"].bool_value = True
    response = added(writer, namespace, new, on_duplicate=MERGE)
    assert [(memory.id, memory.version, memory.outcome) for memory in response.memories] == [
        ("a", 2, writer_pb2.ADD_OUTCOME_MERGED)
    ]
    (merged,) = get(writer, namespace, "a").memories
    assert (list(merged.tags), merged.importance, merged.session_id) == (["x", "y"], 0.9, "s")
    assert merged.type == memory_pb2.MEMORY_TYPE_SEMANTIC
    assert merged.metadata["kept"].number_value == 1
    assert merged.metadata["changed"].string_value == "new"
    assert merged.metadata["added"].bool_value
    # Nothing new: no new version.
    assert added(writer, namespace, new, on_duplicate=MERGE).memories[0].version == 2


def test_a_merge_over_a_limit_is_refused_whole(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="tea", tags=[f"t{number}" for number in range(60)]))
    more = Memory(content="tea", tags=[f"u{number}" for number in range(5)])
    code, _, metadata, _ = error_of(lambda: added(writer, namespace, more, on_duplicate=MERGE))
    assert (code, metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "memories[0].tags")
    assert get(writer, namespace, "a").memories[0].version == 1


def test_a_merge_into_more_than_a_replica_can_be_sent_is_refused(
    writer: Stubs, shared_cluster: Cluster, namespace: str
) -> None:
    texts = [f"text {number}" for number in range(1000)]
    for start in range(0, 1000, 250):
        large = [Memory(content=text) for text in texts[start : start + 250]]
        for memory in large:
            memory.metadata["ballast"].string_value = "z" * 64_000
        add(writer, namespace, *large)
    small = [Memory(content=text, tags=["x"]) for text in texts]
    _, _, metadata, message = error_of(lambda: added(writer, namespace, *small, on_duplicate=MERGE))
    assert (metadata["field"], "send fewer" in message) == ("memories", True)
    assert outcomes(added(writer, namespace, *small[:800], on_duplicate=MERGE))[0] != 0
    shared_cluster.wait_settled()


def test_a_merge_brings_the_first_embedding_and_its_dimension(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0, writer_flags=("--embedder", "none")) as cluster:
        stubs = Stubs(cluster.writer.address)
        add(stubs, "ns", Memory(id="a", content="tea"))
        same = Memory(content="tea", embedding=floats(1, 0, 0))
        other = Memory(content="rum", embedding=floats(1, 0))
        reason = error_of(lambda: added(stubs, "ns", same, other, on_duplicate=MERGE))[1]
        assert reason == "DIMENSION_MISMATCH"
        # An embedding of a model without a name is news as well.
        assert added(stubs, "ns", same, on_duplicate=MERGE).memories[0].version == 2
        assert get(stubs, "ns", "a", embedding=True).memories[0].embedding == same.embedding
        assert added(stubs, "ns", same, on_duplicate=MERGE).memories[0].version == 2
        stubs.channel.close()
