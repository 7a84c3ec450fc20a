"""Consistency and sessions of the client: what reads show on replicas that are behind, or die."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cluster import Cluster, held_back, wait_until

from agentmem.client import (
    EVENTUAL,
    STRONG,
    Client,
    Consistency,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Position,
    RevisionLost,
    Unavailable,
    at_least,
    consistency,
    max_staleness,
    session,
)
from agentmem.client.async_connection import Link
from agentmem.core.store import Change, Store
from agentmem.v1 import memory_pb2

MIB = 1024**2
# With two replicas, a read that is balanced over them asks each of them at least once in so many tries.
TRIES = 20
# The history of the cluster has this much of its first epoch; then its second one begins.
SHARED_REVISION = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A writer and two replicas, on a store in which a second epoch has begun."""
    path = tmp_path_factory.mktemp("sessions")
    store = Store(path / "writer" / "store", map_size_bytes=16 * MIB, max_map_size_bytes=64 * MIB)
    store.found_cluster()
    for number in range(SHARED_REVISION):
        change = Change(memory_pb2.Memory(namespace="old", id=f"m{number}", content="tea", version=1))
        store.commit(lambda transaction, change=change: transaction.append([change], 1))  # type: ignore[misc]
    store.commit(lambda transaction: transaction.begin_epoch(2, "writer", 1))
    store.close()
    with Cluster(path, replicas=2) as cluster:
        yield cluster


@pytest.fixture
def connected(cluster: Cluster) -> Iterator[Client]:
    """A client of the cluster, whose replicas have everything."""
    cluster.wait_settled()
    with Client(cluster.writer.address, timeout_s=30) as client:
        yield client


# How many memories, or versions of memory "a", each read shows.
READS: dict[str, Callable[[Any, str, Any], int]] = {
    "get": lambda reader, ns, how: int(reader.get(ns, "a", consistency=how) is not None),
    "get_many": lambda reader, ns, how: len(reader.get_many(ns, ["a"], consistency=how).memories),
    "list": lambda reader, ns, how: len(reader.list(ns, consistency=how).memories),
    "iterate": lambda reader, ns, how: len(list(reader.iterate(ns, consistency=how))),
    "history": lambda reader, ns, how: len(reader.history(ns, "a", consistency=how).versions),
    "iterate_history": lambda reader, ns, how: len(list(reader.iterate_history(ns, "a", consistency=how))),
    "stats": lambda reader, ns, how: int(reader.stats(ns, consistency=how).namespace.memories),
    "export": lambda reader, ns, how: len(list(reader.export(ns, consistency=how))),
}


def shown(name: str, reader: object, namespace: str, how: Consistency | None = None) -> int:
    try:
        return READS[name](reader, namespace, how)
    except NotFound:
        return 0


def test_reads_show_what_they_ask_for_though_all_replicas_are_behind(
    cluster: Cluster, connected: Client, namespace: str
) -> None:
    with held_back(*cluster.replicas):
        added = connected.add(namespace, "green tea", id="a")
        other = connected.session()
        assert added.epoch == 2
        for name in READS:
            # Without asking for it, a replica answers from what it has.
            assert shown(name, connected, namespace) == 0, name
            assert shown(name, other, namespace) == 0, name
            assert shown(name, connected, namespace, STRONG) == 1, name
        for how in (at_least(added), at_least(added.revision), at_least(added) & max_staleness(60)):
            assert shown("get", connected, namespace, how) == 1, how
        # The writer cannot search.
        with pytest.raises(Unavailable) as behind:
            connected.search(namespace, "tea", consistency=at_least(added), timeout_s=1.5)
        assert set(behind.value.attempts) == {replica.address for replica in cluster.replicas}
        with Client(cluster.writer.address) as asking:
            assert shown("get", asking, namespace, STRONG) == 1
            # The replicas would have had to ask it first.
            assert set(asking._client._router._loads) == {cluster.writer.address}
        with Client(cluster.writer.address, consistency=at_least(added)) as demanding:
            assert shown("get", demanding, namespace) == 1
            assert shown("get", demanding, namespace, EVENTUAL) == 0


def test_a_session_reads_its_writes_though_all_replicas_are_behind(
    cluster: Cluster, connected: Client, namespace: str
) -> None:
    with held_back(*cluster.replicas), ThreadPoolExecutor(len(READS)) as threads:
        first, second = connected.session(), connected.session()
        first.add(namespace, "green tea", id="a")
        with Client(cluster.writer.address, timeout_s=30) as elsewhere:
            told = elsewhere.session(first.token)
            for reader, expected in ((second, 0), (first, 1), (told, 1)):
                counts = threads.map(lambda name, reader=reader: shown(name, reader, namespace), READS)
                assert dict(zip(READS, counts, strict=True)) == dict.fromkeys(READS, expected), reader


WRITES: dict[str, Callable[[Any, str], object]] = {
    "add": lambda writer, ns: writer.add(ns, "green tea"),
    "add_many": lambda writer, ns: writer.add_many(ns, ["green tea", "black tea"]),
    "update": lambda writer, ns: writer.update(ns, "a", content="white tea"),
    "delete": lambda writer, ns: writer.delete(ns, "a"),
    "delete_matching": lambda writer, ns: writer.delete_matching(ns, everything=True),
    "update_namespace": lambda writer, ns: writer.update_namespace(ns, max_versions=5),
    "import_versions": lambda writer, ns: writer.import_versions(ns + "-copy", writer.export(ns)),
}


@pytest.mark.parametrize("name", WRITES)
def test_each_write_and_read_moves_the_session_on(connected: Client, namespace: str, name: str) -> None:
    first = connected.session()
    # By the session itself, which then has it to export wherever it reads.
    first.add(namespace, "tea", id="a")
    before = position(first.token)
    written: Any = WRITES[name](first, namespace)
    assert position(first.token) == Position(written.epoch, written.revision)
    assert written.revision > before.revision
    assert written.acknowledged is None
    second = connected.session()
    page = second.list(namespace, consistency=at_least(written))
    assert page.applied_revision >= written.revision
    assert position(second.token) == Position(page.epoch, page.applied_revision)


def position(token: str) -> Position:
    return session.parse_token(token)[1]


def test_searches_of_a_session_never_go_back(cluster: Cluster, connected: Client, namespace: str) -> None:
    """While one replica shows what it writes, and the other does not."""
    behind, level = cluster.replicas
    with held_back(behind):
        own = connected.session()
        for number in range(TRIES):
            own.add(namespace, f"green tea {number}", id=f"m{number}")
            found = own.search(namespace, "green tea", mode="text", top_k=100)
            assert len(found.hits) == number + 1
        reading = connected.session()
        most = 0
        for number in range(2 * TRIES):
            if number == TRIES:
                # The quicker one of the two may have been asked each time so far.
                wait_until(
                    lambda: len(reading.search(namespace, "green tea", mode="text", top_k=100).hits) == TRIES,
                    "the session reads from the one that has it all",
                )
                most = TRIES
                # What it saw on a replica that dies it goes on seeing.
                level.kill()
                with pytest.raises((Unavailable, DeadlineExceeded)):
                    reading.search(namespace, "green tea", mode="text", timeout_s=1)
                level.restart()
            seen = len(reading.search(namespace, "green tea", mode="text", top_k=100).hits)
            assert seen >= most
            most = max(most, seen)
        assert most == TRIES


def test_a_session_may_be_used_by_many_threads(connected: Client, namespace: str) -> None:
    own = connected.session()

    def work(number: int) -> None:
        for turn in range(5):
            id = f"m{number}-{turn}"
            added = own.add(namespace, "tea", id=id)
            assert position(own.token).revision >= added.revision
            assert own.get(namespace, id) is not None
            assert id in {hit.memory.id for hit in own.search(namespace, "tea", mode="text", top_k=100).hits}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


def test_calls_that_fail_leave_a_session_where_it_was(
    cluster: Cluster, connected: Client, namespace: str
) -> None:
    own = connected.session()
    own.add(namespace, "tea", id="a")
    before = own.token
    for failing in (
        lambda: own.add(namespace, "tea", id="a"),
        lambda: own.update(namespace, "no such", content="tea"),
        lambda: own.history(namespace, "no such"),
        lambda: own.search(namespace, "", mode="text"),
    ):
        with pytest.raises(Exception, match=r"exists|no memory|no such|text"):
            failing()
        assert own.token == before
    cluster.writer.pause()
    try:
        with pytest.raises(OutcomeUnknown):
            own.add(namespace, "in doubt", timeout_s=0.3)
    finally:
        cluster.writer.resume()
    assert own.token == before
    wait_until(lambda: connected.topology().writer is not None, "the writer answers")


def test_a_revision_that_a_promotion_left_behind_is_lost(
    cluster: Cluster, connected: Client, namespace: str
) -> None:
    """The first epoch went up to revision 3; whoever saw its revision 4 or 5 saw what is no more."""
    cluster_id = uuid.UUID(connected.topology().cluster_id)

    def began_at(revision: int) -> str:
        return session.format_token(cluster_id, Position(1, revision))

    lost = connected.session(began_at(SHARED_REVISION + 2))
    for read in (
        lambda: lost.get(namespace, "a"),
        lambda: lost.search(namespace, "tea"),
        lambda: connected.get(namespace, "a", consistency=Consistency(Position(1, SHARED_REVISION + 2))),
    ):
        with pytest.raises(RevisionLost) as caught:
            read()
        assert caught.value.reason == "REVISION_LOST"
    # A write of the second epoch does not hide that, though its revision is higher.
    lost.add(namespace, "tea", id="a")
    for reader in (lost, lost, connected.session(lost.token)):
        with pytest.raises(RevisionLost):
            reader.get(namespace, "a")
    kept = connected.session(began_at(SHARED_REVISION))
    kept.add(namespace, "tea", id="b")
    assert kept.get(namespace, "b") is not None
    assert position(kept.token).epoch == 2


def test_a_token_of_another_cluster_is_refused(connected: Client, namespace: str) -> None:
    stray = connected.session(session.format_token(uuid.uuid4(), Position(1, 1)))
    for call in (
        lambda: stray.get(namespace, "a"),
        lambda: stray.search(namespace, "tea"),
        lambda: stray.add(namespace, "tea"),
        lambda: stray.delete(namespace, "a"),
    ):
        with pytest.raises(InvalidArgument, match="token is of cluster") as caught:
            call()
        assert caught.value.metadata["field"] == "token"


def changed(token: str, at: int) -> str:
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


GOOD = session.format_token(uuid.UUID(int=7), Position(3, 2**63))
SEEN = (Position(1, 7), Position(2, 8))
LONG = session.format_token(uuid.UUID(int=7), Position(3, 9), SEEN)


@pytest.mark.parametrize(
    "token",
    ["", "am1.", GOOD[:-1], GOOD + "A", "am2." + GOOD[4:], GOOD.replace(GOOD[9], "+"), 7, b"am1."]
    + [changed(GOOD, at) for at in range(4, len(GOOD), 5)]
    + [LONG[:52], changed(LONG, 40), changed(LONG, 60)],
    ids=str,
)
def test_a_malformed_token_is_refused(client: Client, token: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.session(token)
    assert caught.value.metadata["field"] == "token"


def test_a_token_holds_a_place_and_is_safe_in_a_url(client: Client) -> None:
    assert session.parse_token(GOOD) == (uuid.UUID(int=7), Position(3, 2**63), ())
    assert session.parse_token(LONG) == (uuid.UUID(int=7), Position(3, 9), SEEN)
    assert (len(GOOD), len(LONG)) == (52, 96)
    assert set(GOOD) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    # Before anything was seen, the token fits any cluster.
    assert session.parse_token(client.session().token) == (uuid.UUID(int=0), Position(), ())
    assert client.session(client.session().token).get("no such namespace", "a") is None


@pytest.mark.parametrize(
    ("known", "seen", "expected"),
    [
        (Position(1, 5), Position(1, 7), Position(1, 7)),
        (Position(1, 7), Position(1, 5), Position(1, 7)),
        (Position(1, 7), Position(2, 8), Position(2, 8)),
        (Position(2, 8), Position(1, 7), Position(2, 8)),
        # The second epoch began before revision 7 of the first: that one is lost, and the next read says so.
        (Position(1, 7), Position(2, 6), Position(1, 7)),
        (Position(2, 6), Position(1, 7), Position(1, 7)),
        (Position(), Position(2, 6), Position(2, 6)),
        (Position(0, 9), Position(2, 6), Position(0, 9)),
    ],
)
def test_of_two_positions_the_one_that_implies_the_other(
    known: Position, seen: Position, expected: Position
) -> None:
    assert consistency.later(known, seen) == expected
    assert (Consistency(known) & Consistency(seen)).at_least == expected


@pytest.mark.parametrize(
    ("written", "position", "unproven"),
    [
        ([Position(1, 5), Position(1, 7)], Position(1, 7), ()),
        ([Position(1, 5), Position(2, 8)], Position(2, 8), (Position(1, 5),)),
        ([Position(1, 5), Position(2, 8), Position(3, 9)], Position(3, 9), (Position(1, 5), Position(2, 8))),
        # One of the two was left behind; which of them, a later promotion may decide.
        ([Position(1, 9), Position(2, 7), Position(2, 8)], Position(1, 9), (Position(2, 8),)),
        # By a writer that did not know yet that it had been replaced.
        ([Position(2, 8), Position(1, 7)], Position(2, 8), (Position(1, 7),)),
    ],
)
def test_a_session_forgets_nothing_that_it_wrote(
    written: list[Position], position: Position, unproven: tuple[Position, ...]
) -> None:
    own = session.AsyncSession(Link("127.0.0.1:1"))
    for each in written:
        own._wrote(each)
    assert session.parse_token(own.token)[1:] == (position, unproven)
    # The answer to a read shows what was known before.
    own._saw(Position(position.epoch + 1, position.revision))
    assert session.parse_token(own.token)[1:] == (Position(position.epoch + 1, position.revision), unproven)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([Position(2, 8)], True),
        ([Position(2, 8), Position(1, 7)], True),
        ([Position(3, 8), Position(2, 8), Position(1, 7)], True),
        ([Position(0, 9), Position(2, 8)], True),
        ([Position(1, 9), Position(2, 8)], False),
        ([Position(3, 9), Position(1, 9), Position(2, 8)], False),
    ],
)
def test_positions_that_one_history_may_have(positions: list[Position], expected: bool) -> None:
    assert consistency.are_of_one_history(positions) is expected


def test_conditions_combine() -> None:
    both = at_least(5) & max_staleness(2) & max_staleness(timedelta(seconds=3)) & STRONG
    assert both == Consistency(Position(0, 5), timedelta(seconds=2), strong=True)
    message = consistency.to_proto(both)
    assert message is not None
    assert (message.min_revision, message.min_epoch, message.strong) == (5, 0, True)
    assert message.max_staleness.ToTimedelta() == timedelta(seconds=2)
    assert consistency.to_proto(EVENTUAL) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: at_least("5"),  # type: ignore[arg-type]
        lambda: at_least(-1),
        lambda: at_least(True),
        lambda: at_least(2**64),
        lambda: max_staleness(0),
        lambda: max_staleness("2s"),  # type: ignore[arg-type]
        lambda: Client("localhost:1", consistency="strong"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_consistency_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.metadata["field"] == "consistency"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
