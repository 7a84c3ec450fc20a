"""Export and import over the wire: everything a namespace has, to the bit, in another store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from calls import add, error_of, floats, update
from cluster import Cluster, Stubs, wait_until

from agentmem.core.exporting import ExportPlace, ExportQuery, export_frame
from agentmem.core.history import Moment
from agentmem.core.store import Change, Removal, Store
from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory
Versions = list[memory_pb2.MemoryVersion]


def exported(stubs: Stubs, namespace: str, **fields: object) -> Versions:
    request = reader_pb2.ExportMemoriesRequest(namespace=namespace, **fields)  # type: ignore[arg-type]
    return [version for frame in stubs.reader.ExportMemories(request) for version in frame.versions]


def imported(
    stubs: Stubs,
    namespace: str,
    versions: Sequence[memory_pb2.MemoryVersion],
    on_conflict: writer_pb2.ImportConflict = writer_pb2.IMPORT_CONFLICT_FAIL,
) -> writer_pb2.ImportMemoriesResponse:
    def messages() -> Iterator[writer_pb2.ImportMemoriesRequest]:
        yield writer_pb2.ImportMemoriesRequest(namespace=namespace, on_conflict=on_conflict)
        for start in range(0, len(versions), 7):
            yield writer_pb2.ImportMemoriesRequest(versions=versions[start : start + 7])

    return stubs.writer.ImportMemories(messages())


def serialized(versions: Versions) -> list[bytes]:
    return [version.SerializeToString(deterministic=True) for version in versions]


def fill(stubs: Stubs, namespace: str) -> None:
    """Every kind of version: updates, deletions, re-adds, expiry, with and without embeddings."""
    rich = Memory(id="rich", content="tea", user_id="ana", tags=["x", "y"], importance=0.3)
    rich.metadata["list"].list_value.values.add().number_value = 0.1
    rich.metadata["flag"].bool_value = True
    rich.metadata["text"].string_value = "日本"
    rich.event_time.FromNanoseconds(1_234_567_890_123_456_789)
    short = Memory(id="short", content="soon gone")
    short.ttl.FromTimedelta(timedelta(milliseconds=50))
    lasting = Memory(id="lasting", content="stays a while")
    lasting.ttl.FromTimedelta(timedelta(days=400))
    add(stubs, namespace, rich, short, lasting)
    for number in range(4):
        update(stubs, namespace, Memory(id="rich", content=f"tea {number}"), "content")
    update(stubs, namespace, Memory(id="rich", embedding=floats(*[0.37] * 256)), "embedding")
    stubs.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["rich"]))
    add(stubs, namespace, Memory(id="rich", content="again"), Memory(content="with an id of the server"))
    many = [Memory(id=f"m{number:03}", content=f"text {number} " * 400) for number in range(200)]
    add(stubs, namespace, *many)
    swept = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id="short")
    wait_until(lambda: len(stubs.reader.GetMemoryHistory(swept).versions) == 2, "short is swept")


def test_an_import_of_an_export_exports_the_same(writer: Stubs, namespace: str, tmp_path: Path) -> None:
    fill(writer, namespace)
    first = exported(writer, namespace)
    assert len({version.memory.id for version in first}) == 204
    assert {version.kind for version in first} == {1, 2, 3}
    with Cluster(tmp_path, replicas=1, writer_flags=("--embedder", "none")) as other:
        stubs = Stubs(other.writer.address)
        answer = imported(stubs, namespace, first)
        assert (answer.imported_versions, answer.skipped_versions) == (len(first), 0)
        assert serialized(exported(stubs, namespace)) == serialized(first)
        other.wait_searchable(answer.revision)
        replica = Stubs(other.replicas[0].address)
        assert serialized(exported(replica, namespace)) == serialized(first)
        # Once more changes nothing; or fails, when that was asked for.
        again = imported(stubs, namespace, first, writer_pb2.IMPORT_CONFLICT_SKIP)
        assert (again.imported_versions, again.skipped_versions) == (0, len(first))
        assert error_of(lambda: imported(stubs, namespace, first))[:2] == (
            grpc.StatusCode.ALREADY_EXISTS,
            "MEMORY_EXISTS",
        )
        # What was there before the import is there as of then.
        moment = next(version.memory.update_time for version in first if version.memory.content == "tea 2")
        past = reader_pb2.GetMemoriesRequest(
            namespace=namespace, ids=["rich"], as_of=reader_pb2.AsOf(time=moment)
        )
        assert stubs.reader.GetMemories(past).memories[0].content == "tea 2"
        replica.channel.close()
        stubs.channel.close()


def test_an_import_that_broke_goes_on_with_skip(writer: Stubs, namespace: str) -> None:
    fill(writer, namespace)
    versions = exported(writer, namespace)
    target = namespace + "-copy"
    for version in versions:
        version.memory.namespace = ""
    half = versions[: len(versions) // 2]
    imported(writer, target, half)
    answer = imported(writer, target, versions, writer_pb2.IMPORT_CONFLICT_SKIP)
    assert answer.skipped_versions == len(half)
    copy = exported(writer, target)
    for version in copy:
        version.memory.namespace = ""
    assert serialized(copy) == serialized(versions)


def test_retention_by_count_holds_for_an_import(writer: Stubs, namespace: str) -> None:
    request = writer_pb2.UpdateNamespaceRequest(
        namespace=namespace, settings=writer_pb2.NamespaceSettings(max_versions=2)
    )
    request.update_mask.paths.append("max_versions")
    writer.writer.UpdateNamespace(request)
    time.sleep(2.5)  # so that the sweeper has looked through the namespace
    versions = [version(memory=Memory(version=number)) for number in range(1, 7)]
    assert imported(writer, namespace, versions).imported_versions == 6
    assert [each.memory.version for each in exported(writer, namespace)] == [5, 6]


def test_an_export_can_be_narrowed(writer: Stubs, namespace: str) -> None:
    fill(writer, namespace)
    newest = exported(writer, namespace, newest_only=True)
    assert len(newest) == len({version.memory.id for version in newest}) == 203
    assert all(version.kind == memory_pb2.VERSION_KIND_WRITTEN for version in newest)
    by_id = filter_pb2.Filter(
        condition=filter_pb2.Condition(
            field="id",
            operator=filter_pb2.OPERATOR_EQ,
            values=[filter_pb2.FilterValue(string_value="rich")],
        )
    )
    assert [version.memory.version for version in exported(writer, namespace, filter=by_id)] == [*range(1, 9)]


def test_an_export_is_of_one_revision_whatever_is_written_meanwhile(writer: Stubs, namespace: str) -> None:
    fill(writer, namespace)
    expected = serialized(exported(writer, namespace))
    frames = writer.reader.ExportMemories(reader_pb2.ExportMemoriesRequest(namespace=namespace))
    seen: Versions = list(next(frames).versions)
    update(writer, namespace, Memory(id="m199", content="changed"), "content")
    add(writer, namespace, Memory(id="zz", content="new"))
    writer.writer.DeleteMemories(writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=["m198"]))
    for frame in frames:
        seen += frame.versions
    assert serialized(seen) == expected


def test_an_empty_namespace_exports_its_revision(writer: Stubs, namespace: str) -> None:
    revision = add(writer, namespace + "-other", Memory(content="tea")).revision
    (frame,) = writer.reader.ExportMemories(reader_pb2.ExportMemoriesRequest(namespace=namespace))
    assert not frame.versions
    assert frame.applied_revision >= revision


def version(**fields: object) -> memory_pb2.MemoryVersion:
    memory = Memory(id="a", content="tea", version=1)
    for name in ("create_time", "update_time", "event_time"):
        getattr(memory, name).FromSeconds(1000)
    good = memory_pb2.MemoryVersion(memory=memory, kind=memory_pb2.VERSION_KIND_WRITTEN)
    good.MergeFrom(memory_pb2.MemoryVersion(**fields))  # type: ignore[arg-type]
    return good


def without(name: str) -> memory_pb2.MemoryVersion:
    changed = version()
    changed.memory.ClearField(name)
    return changed


def later(seconds: int, **fields: object) -> memory_pb2.MemoryVersion:
    changed = version(memory=Memory(**fields))  # type: ignore[arg-type]
    changed.memory.update_time.FromSeconds(seconds)
    return changed


@pytest.mark.parametrize(
    ("versions", "field"),
    [
        ([without("id")], "versions[0].memory.id"),
        ([without("content")], "versions[0].memory.content"),
        ([without("version")], "versions[0].memory.version"),
        ([version(memory=Memory(version=2**63))], "versions[0].memory.version"),
        ([without("update_time")], "versions[0].memory.update_time"),
        ([without("event_time")], "versions[0].memory.event_time"),
        ([version(memory=Memory(namespace="other"))], "versions[0].memory.namespace"),
        ([version(revision=7)], "versions[0].revision"),
        ([version(kind=9)], "versions[0].kind"),
        ([version(kind=memory_pb2.VERSION_KIND_DELETED)], "versions[0].memory.content"),
        ([version(memory=Memory(embedding=b"123"))], "versions[0].memory.embedding"),
        ([version(memory=Memory(importance=3))], "versions[0].memory.importance"),
        ([later(1000), later(900, version=2)], "versions.memory.update_time"),
    ],
)
def test_versions_that_cannot_be_are_refused(
    writer: Stubs, namespace: str, versions: Versions, field: str
) -> None:
    code, _, metadata, _ = error_of(lambda: imported(writer, namespace, versions))
    assert (code, metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert not exported(writer, namespace)


def test_a_memory_of_the_last_version_number_goes_on(writer: Stubs, namespace: str) -> None:
    last = 2**63 - 1
    expired = version(memory=Memory(id="expired"))
    expired.memory.expire_time.FromSeconds(2000)
    versions = [version(), expired]
    for each in versions:
        each.memory.version = last
    imported(writer, namespace, versions)
    changed = update(writer, namespace, Memory(id="a", content="coffee"), "content")
    assert changed.memory.version == last + 1
    request = reader_pb2.GetMemoryHistoryRequest(namespace=namespace, id="expired")
    wait_until(
        lambda: writer.reader.GetMemoryHistory(request).versions[0].memory.version == last + 1, "it is swept"
    )


def test_an_import_names_its_namespace(writer: Stubs, namespace: str) -> None:
    assert error_of(lambda: writer.writer.ImportMemories(iter(())))[2]["field"] == "namespace"
    assert error_of(lambda: imported(writer, "", [version()]))[1] == "NAMESPACE_REQUIRED"
    two = [
        writer_pb2.ImportMemoriesRequest(namespace=namespace, versions=[version()]),
        writer_pb2.ImportMemoriesRequest(namespace="another"),
    ]
    assert error_of(lambda: writer.writer.ImportMemories(iter(two)))[2]["field"] == "namespace"


def test_the_versions_of_a_memory_are_looked_up_once_for_all_frames(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", map_size_bytes=64 * 1024**2, max_map_size_bytes=64 * 1024**2)
    for number in range(1, 61):
        each = Memory(namespace="ns", id="a", version=number, content=f"{number} " * 10_000)
        store.commit(lambda transaction, each=each: transaction.append([Change(each)], 1))  # type: ignore[misc]
    query = ExportQuery("ns", Moment(0, revision=60), matcher=None, newest_only=False)
    frame, place = export_frame(store, query, ExportPlace())
    numbers = [version.memory.version for version in frame.versions]
    assert place is not None
    # A version that is removed meanwhile is left out.
    gone = Removal("ns", [numbers[-1] + 1])
    store.commit(lambda transaction: transaction.append([gone], 1))
    frames = 1
    while place is not None:
        frame, place = export_frame(store, query, place)
        numbers += [version.memory.version for version in frame.versions]
        frames += 1
    assert numbers == [number for number in range(1, 61) if number != gone.ordinals[0]]
    assert frames > 3
    store.close()
