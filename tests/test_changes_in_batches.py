"""Several updates, or several deletions, in one call: each ends as it would have alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import grpc
import lmdb
import pytest
from calls import Memory, add, all_ids, check_failure, error_of, floats, get, outcome_of
from cluster import Cluster, Stubs
from google.protobuf.field_mask_pb2 import FieldMask

from agentmem.core.validation import MAX_CONTENT_BYTES
from agentmem.v1 import consistency_pb2, failure_pb2, filter_pb2, writer_pb2, writer_pb2_grpc

REQUESTS = 100
APPLIED = consistency_pb2.ACKNOWLEDGEMENT_LEVEL_APPLIED
LARGE_ANSWER = (("grpc.max_receive_message_length", 64 * 1024**2),)


def an_update(namespace: str, memory: Memory, *paths: str, **fields: Any) -> writer_pb2.UpdateMemoryRequest:
    return writer_pb2.UpdateMemoryRequest(
        namespace=namespace, memory=memory, update_mask=FieldMask(paths=paths), **fields
    )


def new_content(namespace: str, id: str, content: str, **fields: Any) -> writer_pb2.UpdateMemoryRequest:
    return an_update(namespace, Memory(id=id, content=content), "content", **fields)


def a_deletion(namespace: str, *ids: str, **fields: Any) -> writer_pb2.DeleteMemoriesRequest:
    return writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=ids, **fields)


def updates(stubs: Stubs, *requests: writer_pb2.UpdateMemoryRequest) -> list[Any]:
    batch = writer_pb2.BatchUpdateMemoriesRequest(requests=requests)
    return [outcome_of(result) for result in stubs.writer.BatchUpdateMemories(batch, timeout=60).results]


def deletions(stubs: Stubs, *requests: writer_pb2.DeleteMemoriesRequest) -> list[Any]:
    batch = writer_pb2.BatchDeleteMemoriesRequest(requests=requests)
    return [outcome_of(result) for result in stubs.writer.BatchDeleteMemories(batch, timeout=60).results]


def reasons(outcomes: list[Any]) -> list[str]:
    """Of failures; empty for what was done."""
    return [each.reason if isinstance(each, failure_pb2.Failure) else "" for each in outcomes]


def test_each_update_of_a_batch_ends_as_alone(writer: Stubs, namespace: str) -> None:
    other = f"{namespace}-b"
    add(writer, namespace, *(Memory(id=id, content=id, embedding=floats(1, 0)) for id in "abc"))
    add(writer, other, Memory(id="a", content="tea", importance=0.1))
    possible = [
        an_update(namespace, Memory(id="a", tags=["new"]), "tags", "user_id"),
        an_update(other, Memory(id="a", importance=0.5), "importance", expected_version=1),
        an_update(namespace, Memory(id="b", content="rum", embedding=floats(0, 1)), "content", "embedding"),
    ]
    impossible = [
        new_content("", "a", "tea"),
        new_content(namespace, "", "tea"),
        new_content(namespace, "never", "tea"),
        new_content(namespace, "c", ""),
        new_content(namespace, "c", "tea", expected_version=2),
        new_content(namespace, "c", "tea", request_id="r" * 200),
        new_content(namespace, "c", "tea", acknowledgement={"level": APPLIED, "replicas": 101}),
        an_update(namespace, Memory(id="c", content="tea")),
        an_update(namespace, Memory(id="c", content="tea"), "version"),
        an_update(namespace, Memory(id="c", namespace="elsewhere"), "tags"),
        an_update(namespace, Memory(id="c", embedding=floats(1, 2, 3)), "embedding"),
        an_update(namespace, Memory(id="c", embedding=b"abc"), "embedding"),
    ]
    outcomes = updates(writer, possible[0], *impossible, *possible[1:])
    for failure, request in zip(outcomes[1:-2], impossible, strict=True):
        check_failure(failure, partial(writer.writer.UpdateMemory, request))
    first, second, third = outcomes[0], *outcomes[-2:]
    assert first.revision < second.revision < third.revision
    assert {each.epoch for each in (first, second, third)} == {1}
    assert (list(first.memory.tags), second.memory.importance, third.memory.content) == (["new"], 0.5, "rum")
    for space, answer in ((namespace, first), (other, second), (namespace, third)):
        assert list(get(writer, space, answer.memory.id).memories) == [answer.memory]
        assert answer.memory.version == 2
    assert get(writer, namespace, "b", embedding=True).memories[0].embedding == floats(0, 1)
    assert get(writer, namespace, "c").memories[0].version == 1


def test_updates_of_a_batch_for_one_memory_are_done_in_their_order(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="0"))
    outcomes = updates(
        writer,
        new_content(namespace, "a", "1"),
        new_content(namespace, "a", "2", expected_version=2),
        new_content(namespace, "a", "not this", expected_version=2),
        an_update(namespace, Memory(id="a", tags=["x"]), "tags", expected_version=3),
    )
    assert reasons(outcomes) == ["", "", "VERSION_MISMATCH", ""]
    assert outcomes[2].metadata["version"] == "3"
    assert [each.memory.version for each in (*outcomes[:2], outcomes[3])] == [2, 3, 4]
    (newest,) = get(writer, namespace, "a").memories
    assert (newest.version, newest.content, list(newest.tags)) == (4, "2", ["x"])


def test_an_update_of_a_batch_that_comes_again_is_answered_and_not_repeated(
    writer: Stubs, namespace: str
) -> None:
    add(writer, namespace, Memory(id="a", content="0"), Memory(id="b", content="0"))
    one = new_content(namespace, "a", "1", expected_version=1, request_id="1")
    two = new_content(namespace, "b", "2", request_id="2")
    first, again, other = updates(writer, one, one, two)
    assert first == again
    assert updates(writer, two, one) == [other, first]
    assert writer.writer.UpdateMemory(one) == first
    assert reasons(updates(writer, new_content(namespace, "b", "3", request_id="2"))) == ["REQUEST_ID_REUSED"]
    assert [memory.version for memory in get(writer, namespace, "a", "b").memories] == [2, 2]


def test_new_contents_of_a_batch_get_their_own_embeddings(writer: Stubs, namespace: str) -> None:
    texts = [f"{word} and {other}" for word in ("tea", "rum", "milk") for other in ("honey", "lemon", "ice")]
    add(writer, f"{namespace}-alone", *(Memory(id=text, content=text) for text in texts))
    alone = {
        memory.id: memory.embedding
        for memory in get(writer, f"{namespace}-alone", *texts, embedding=True).memories
    }
    assert len(set(alone.values())) == len(texts)
    add(writer, namespace, *(Memory(id=text, content="water") for text in texts))
    untouched = an_update(namespace, Memory(id=texts[0], importance=0.5), "importance")
    outcomes = updates(writer, untouched, *(new_content(namespace, text, text) for text in texts[1:]))
    assert reasons(outcomes) == [""] * len(texts)
    stored = {memory.id: memory for memory in get(writer, namespace, *texts, embedding=True).memories}
    assert all(stored[text].embedding == alone[text] for text in texts[1:])
    assert stored[texts[0]].embedding not in alone.values()
    assert {memory.embedding_model for memory in stored.values()} == {stored[texts[0]].embedding_model}


def test_each_deletion_of_a_batch_ends_as_alone(writer: Stubs, namespace: str) -> None:
    other = f"{namespace}-b"
    add(writer, namespace, *(Memory(id=id, content=id) for id in "abcde"))
    add(writer, other, Memory(id="a", content="tea"))
    possible = [
        a_deletion(namespace, "a", "never"),
        a_deletion(namespace, "a", "b"),
        a_deletion(other, "a", expected_version=1),
        a_deletion(namespace, "a", "c", purge=True),
    ]
    impossible = [
        a_deletion("", "a"),
        a_deletion(namespace),
        a_deletion(namespace, ""),
        a_deletion(namespace, "d", "d"),
        a_deletion(namespace, "d", "e", expected_version=1),
        a_deletion(namespace, "d", expected_version=2),
        a_deletion(namespace, "never", expected_version=1),
        a_deletion(namespace, "d", request_id="r" * 200),
        a_deletion(namespace, "d", acknowledgement={"level": APPLIED, "replicas": 101}),
    ]
    outcomes = deletions(writer, *possible[:2], *impossible, *possible[2:])
    for failure, request in zip(outcomes[2:-2], impossible, strict=True):
        check_failure(failure, partial(writer.writer.DeleteMemories, request))
    done = outcomes[:2] + outcomes[-2:]
    # In their order: what the first has deleted is missing to the second.
    assert [list(each.deleted_ids) for each in done] == [["a"], ["b"], ["a"], ["a", "c"]]
    assert [list(each.missing_ids) for each in done] == [["never"], ["a"], [], []]
    revisions = [each.revision for each in done]
    assert revisions == sorted(set(revisions))
    assert [each.HasField("receipt") for each in done] == [False, False, False, True]
    assert (done[-1].receipt.revision, done[-1].receipt.version_count) == (done[-1].revision, 3)
    assert all_ids(writer, namespace) == {"d", "e"}
    assert all_ids(writer, other) == set()
    assert reasons(updates(writer, new_content(namespace, "b", "tea"))) == ["MEMORY_NOT_FOUND"]


def test_a_deletion_by_filter_is_not_for_a_batch(writer: Stubs, namespace: str) -> None:
    add(writer, namespace, Memory(id="a", content="tea"), Memory(id="b", content="rum"))
    everything = filter_pb2.Filter(condition={"field": "id", "operator": filter_pb2.OPERATOR_EXISTS})
    by_filter, by_id = deletions(
        writer,
        a_deletion(namespace, filter=everything),
        a_deletion(namespace, "b", filter=filter_pb2.Filter()),
    )
    assert (by_filter.reason, by_filter.metadata["field"]) == ("INVALID_FIELD", "filter")
    # One that says nothing is none, as alone.
    assert list(by_id.deleted_ids) == ["b"]
    assert all_ids(writer, namespace) == {"a"}


def test_a_deletion_of_a_batch_that_comes_again_is_answered_and_not_repeated(
    writer: Stubs, namespace: str
) -> None:
    add(writer, namespace, Memory(id="a", content="tea"))
    deletion = a_deletion(namespace, "a", request_id="1")
    first, again = deletions(writer, deletion, deletion)
    assert first == again
    add(writer, namespace, Memory(id="a", content="new"))
    assert deletions(writer, deletion) == [first]
    assert writer.writer.DeleteMemories(deletion) == first
    assert reasons(deletions(writer, a_deletion(namespace, "b", request_id="1"))) == ["REQUEST_ID_REUSED"]
    assert all_ids(writer, namespace) == {"a"}


def test_the_changes_of_a_batch_share_commits(writer: Stubs, shared_cluster: Cluster, namespace: str) -> None:
    ids = [f"m{number}" for number in range(REQUESTS)]
    add(writer, namespace, *(Memory(id=id, content="tea") for id in ids))
    path = str(shared_cluster.writer.data_dir / "store")
    environment = lmdb.open(path, max_dbs=32, readonly=True, create=False)
    try:
        before = environment.info()["last_txnid"]
        changed = updates(writer, *(an_update(namespace, Memory(id=id, tags=["x"]), "tags") for id in ids))
        between = environment.info()["last_txnid"]
        deleted = deletions(writer, *(a_deletion(namespace, id) for id in ids))
        after = environment.info()["last_txnid"]
    finally:
        environment.close()
    for outcomes, commits in ((changed, between - before), (deleted, after - between)):
        assert len({each.revision for each in outcomes}) == REQUESTS
        assert 1 <= commits <= REQUESTS // 4


@pytest.mark.parametrize("kind", ["update", "deletion"])
def test_each_change_of_a_batch_waits_for_the_replicas_it_asks_for(
    writer: Stubs, namespace: str, kind: str
) -> None:
    add(writer, namespace, *(Memory(id=id, content="tea") for id in "abc"))
    applied = consistency_pb2.Acknowledgement(level=APPLIED, replicas=2)
    applied.timeout.FromSeconds(60)
    too_many = consistency_pb2.Acknowledgement(level=APPLIED, replicas=3)
    too_many.timeout.FromMilliseconds(100)
    wanted: list[dict[str, Any]] = [{}, {"acknowledgement": applied}, {"acknowledgement": too_many}]
    if kind == "update":
        outcomes = updates(
            writer,
            *(new_content(namespace, id, "rum", **fields) for id, fields in zip("abc", wanted, strict=True)),
        )
    else:
        outcomes = deletions(
            writer, *(a_deletion(namespace, id, **fields) for id, fields in zip("abc", wanted, strict=True))
        )
    assert reasons(outcomes) == [""] * 3
    local, reached, missed = outcomes
    assert not local.HasField("acknowledged")
    assert (reached.acknowledged.reached, reached.acknowledged.applied) == (True, 2)
    assert not missed.acknowledged.reached


def test_batches_of_changes_have_bounds(writer: Stubs, replica: Stubs, namespace: str) -> None:
    ids = [f"m{number}" for number in range(501)]
    add(writer, namespace, *(Memory(id=id, content="tea") for id in ids))
    update, deletion = new_content(namespace, "m0", "rum"), a_deletion(namespace, "m0")
    many = a_deletion(namespace, *ids)
    for call in (
        lambda: updates(writer),
        lambda: updates(writer, *[update] * (REQUESTS + 1)),
        lambda: deletions(writer),
        lambda: deletions(writer, *[deletion] * (REQUESTS + 1)),
        lambda: deletions(writer, many, many),
    ):
        code, reason, metadata, _ = error_of(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert metadata["field"] == "requests"
    assert error_of(lambda: updates(replica, update))[1] == "NOT_WRITER"
    assert error_of(lambda: deletions(replica, deletion))[1] == "NOT_WRITER"
    assert all_ids(writer, namespace) == set(ids)
    assert get(writer, namespace, "m0").memories[0].version == 1


def test_the_answer_has_room_for_the_largest_memories(shared_cluster: Cluster, namespace: str) -> None:
    large = Memory(content="x" * MAX_CONTENT_BYTES, tags=[f"{number:0128}" for number in range(64)])
    large.metadata["ballast"].string_value = "z" * 65_000
    with grpc.insecure_channel(shared_cluster.writer.address, options=LARGE_ANSWER) as channel:
        stub = writer_pb2_grpc.WriterServiceStub(channel)
        for start in range(0, REQUESTS, 50):
            request = writer_pb2.AddMemoriesRequest(namespace=namespace)
            for number in range(start, start + 50):
                large.id = f"m{number}"
                large.embedding = floats(1, 0)
                request.memories.append(large)
            stub.AddMemories(request, timeout=60)
        batch = writer_pb2.BatchUpdateMemoriesRequest(
            requests=[
                an_update(namespace, Memory(id=f"m{number}", importance=0.5), "importance")
                for number in range(REQUESTS)
            ]
        )
        answer = stub.BatchUpdateMemories(batch, timeout=60)
    assert answer.ByteSize() > REQUESTS * MAX_CONTENT_BYTES
    assert [outcome_of(result).memory.version for result in answer.results] == [2] * REQUESTS
    shared_cluster.wait_settled()


def test_changes_that_were_answered_outlive_a_killed_writer(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=0) as cluster:
        stubs = Stubs(cluster.writer.address)
        ids = [f"m{number}" for number in range(REQUESTS)]
        add(stubs, "ns", *(Memory(id=id, content="old") for id in ids))
        changed = updates(stubs, *(new_content("ns", id, "new", request_id=id) for id in ids[:50]))
        deleted = deletions(stubs, *(a_deletion("ns", id) for id in ids[50:]))
        cluster.writer.kill()
        assert reasons(changed + deleted) == [""] * REQUESTS
        cluster.writer.restart()
        assert all_ids(stubs, "ns") == set(ids[:50])
        assert list(get(stubs, "ns", *ids[:50]).memories) == [each.memory for each in changed]
        assert updates(stubs, *(new_content("ns", id, "new", request_id=id) for id in ids[:50])) == changed
        stubs.channel.close()
