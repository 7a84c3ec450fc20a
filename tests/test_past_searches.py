"""Searches of the past: what they would have answered then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest
from memories import Replica, by_user, condition
from modelled_store import listed
from written_past import IDS, NAMESPACE, SECOND_US, START_US, USERS, WrittenPast

from agentmem.core.errors import AgentMemError
from agentmem.core.filters import compile_filter
from agentmem.core.history import Moment
from agentmem.core.records import FloatVector
from agentmem.replica import past_namespace
from agentmem.replica.past_namespace import PastBuilder
from agentmem.replica.past_views import PastView, PastViews
from agentmem.replica.search import Mode, SearchQuery, search
from agentmem.replica.view import View
from agentmem.server.commands import UpdateMemory
from agentmem.server.deletion import DeleteById
from agentmem.server.namespaces import UpdateNamespace
from agentmem.server.retention import PruneByAge
from agentmem.v1 import filter_pb2, memory_pb2, reader_pb2, writer_pb2


class Past:
    """Views of the past of a store that an indexer follows, and of what is written to it."""

    def __init__(self, replica: Replica, seed: int) -> None:
        self.replica = replica
        self.store = replica.store
        self.written = WrittenPast(replica.store, seed)
        self.views = PastViews(replica.store, lambda: replica.indexer.view)

    def at(self, moment: Moment, *, needs_text: bool = True) -> PastView:
        found = self.views.find(NAMESPACE, moment, needs_text=needs_text)
        return found or self.views._build(NAMESPACE, moment, needs_text)

    def ids(self, moment: Moment) -> list[str]:
        """Of all that a search of that moment finds."""
        past = self.at(moment, needs_text=False)
        query = SearchQuery(NAMESPACE, "", self.written.vector(), "semantic", None, 1000, past.time_us)
        return sorted(self.replica.ids([hit.ordinal for hit in search(past.view, query)]))

    def listed_ids(self, moment: Moment) -> list[str]:
        as_of = reader_pb2.AsOf()
        if moment.revision is not None:
            as_of.revision = moment.revision
        else:
            as_of.time.FromMicroseconds(moment.time_us or 0)
        return sorted(each.id for each in listed(self.store, NAMESPACE, self.written.now_us, as_of))


def ids_or_reason(read: Callable[[], list[str]]) -> list[str] | str:
    try:
        return read()
    except AgentMemError as error:
        return error.reason


@pytest.mark.parametrize("seed", range(4))
def test_a_search_of_the_past_sees_what_a_list_of_it_shows(tmp_path: Path, seed: int) -> None:
    """Whatever is written, ends, or is removed in between; while views of the past are kept."""
    with Replica(tmp_path) as replica:
        past = Past(replica, seed)
        draw = past.written.random
        outcomes = set()
        for _ in range(120):
            revision = past.written.step()
            replica.indexer.notify()
            spread_us = past.written.now_us - START_US + 2 * SECOND_US
            moments = [
                Moment(0, revision=draw.randint(0, revision)),
                Moment(0, time_us=START_US + draw.randrange(-1, spread_us)),
            ]
            # Again what may be kept, at the edges of what it is kept for.
            kept = [each.past for each in past.views._kept.values()]
            for each in draw.sample(kept, min(2, len(kept))):
                point = draw.choice((each.moments.first, each.moments.end - 1, each.moments.end))
                if each.by_time and abs(point - START_US) < 10**12:
                    moments.append(Moment(0, time_us=point))
                elif not each.by_time and point <= revision:
                    moments.append(Moment(0, revision=point))
            for moment in moments:
                if moment.time_us is not None:
                    # Of a time it answers with the commits that it has.
                    view = replica.wait_for_revision(revision)
                    if draw.random() < 0.05:
                        past.written.trim_log(view.revision)
                expected = ids_or_reason(partial(past.listed_ids, moment))
                assert ids_or_reason(partial(past.ids, moment)) == expected, moment
                outcomes.add(expected if isinstance(expected, str) else bool(expected))
        assert outcomes == {"HISTORY_PRUNED", True, False}
        past.views.close()


def test_the_present_is_no_answer_for_what_retention_forgot_whole(tmp_path: Path) -> None:
    """Nothing is left in the store that tells of a change since then."""
    with Replica(tmp_path) as replica:
        past = Past(replica, 1)
        written = past.written
        written.add(written.memory("kept"))
        written.now_us += SECOND_US
        written.add(written.memory("forgotten"))
        written.now_us += SECOND_US
        then_us = written.now_us
        written.now_us += SECOND_US
        written.run(DeleteById(NAMESPACE, ["forgotten"], False, None, None, 0))
        settings = writer_pb2.NamespaceSettings(max_version_age=timedelta(seconds=1))
        written.run(UpdateNamespace(NAMESPACE, settings, frozenset(("max_version_age",)), None))
        written.now_us += 10 * SECOND_US
        revision = written.run(PruneByAge(NAMESPACE))
        replica.indexer.notify()
        replica.wait_for_revision(revision)
        with replica.store.read() as transaction:
            assert not transaction.has_ended_since(1, then_us)
        assert ids_or_reason(partial(past.ids, Moment(0, time_us=then_us))) == "HISTORY_PRUNED"
        past.views.close()


@pytest.mark.parametrize("is_before", [True, False])
def test_what_is_kept_is_not_answered_from_when_later_versions_are_pruned(
    tmp_path: Path, is_before: bool
) -> None:
    """Then it cannot be told from the store what there was, and a list says so."""
    with Replica(tmp_path) as replica:
        past = Past(replica, 1)
        written = past.written
        written.add(written.memory("older"))
        settings = writer_pb2.NamespaceSettings(max_versions=2)
        revision = written.run(UpdateNamespace(NAMESPACE, settings, frozenset(("max_versions",)), None))
        moment = Moment(0, revision=revision)
        update_all(written, "older")
        if not is_before:
            assert past.ids(moment) == ["older"]
        written.add(written.memory("later"))
        update_all(written, "later")
        assert past.ids(moment) == ["older"]
        # The third version is one too many.
        update_all(written, "later")
        assert ids_or_reason(partial(past.listed_ids, moment)) == "HISTORY_PRUNED"
        assert ids_or_reason(partial(past.ids, moment)) == "HISTORY_PRUNED"
        past.views.close()


def test_a_build_shows_one_state_of_the_store_while_writes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_namespace, "CHUNK_RECORDS", 2)
    with Replica(tmp_path) as replica:
        written = WrittenPast(replica.store, 1)
        for memory_id in IDS:
            written.add(written.memory(memory_id))
        # At each look of the build at the store, all memories are at their next version.
        builder = PastBuilder(replica.store, lambda: update_all(written, *IDS))
        at_us = written.now_us + 3600 * SECOND_US
        built = builder.build(NAMESPACE, Moment(0, time_us=at_us))
        assert built is not None
        assert built.built_revision == len(IDS)
        assert sorted(replica.ids(list(built.namespace.live))) == sorted(IDS)
        with replica.store.read() as transaction:
            versions = {transaction.named_record(ordinal).memory.version for ordinal in built.namespace.live}
        assert versions == {1}
        assert written.store.position().revision > 2 * len(IDS)


def update_all(written: WrittenPast, *ids: str) -> None:
    for memory_id in ids:
        memory = memory_pb2.Memory(namespace=NAMESPACE, id=memory_id, user_id=f"user {written.now_us}")
        written.run(UpdateMemory(NAMESPACE, memory, frozenset(("user_id",)), None, None, None, 0))


FILTERS = (
    None,
    by_user(USERS[0]),
    compile_filter(condition("importance", filter_pb2.OPERATOR_GTE, 0.5)),
    compile_filter(condition("session_id", filter_pb2.OPERATOR_NE, "monday")),
)
QUESTIONS = ("blue boat", "tae at nihgt", "boat", "a walk in the rain")
MODES: tuple[Mode, ...] = get_args(Mode)


def answers(view: View, vector: FloatVector, at_us: int) -> list[list[tuple[int, float]]]:
    """What searches of every mode find: ordinals and scores."""
    found = []
    for mode, question, node in product(MODES, QUESTIONS, FILTERS):
        hits = search(view, SearchQuery(NAMESPACE, question, vector, mode, node, 5, at_us))
        found.append([(hit.ordinal, hit.score) for hit in hits])
    return found


def test_a_search_of_the_past_answers_as_it_did_then(tmp_path: Path) -> None:
    """The same hits with the same scores as those of an index that was made then."""
    with Replica(tmp_path) as replica:
        past = Past(replica, 5)
        written = past.written
        vector = written.vector()
        then: list[tuple[int, list[list[tuple[int, float]]]]] = []
        for number in range(25):
            written.now_us += 1
            if number % 4:
                revision = written.random.choice((written.add_some, written.update_some))()
            else:
                revision = written.delete_some()
            at_us = written.now_us - 1
            # Made anew: the one of long standing has counts of words of memories that are gone.
            with Replica(tmp_path / str(number), store=replica.store) as fresh:
                view = fresh.wait_for_revision(revision)
                then.append((revision, answers(swept(view), vector, at_us)))
        replica.indexer.notify()
        replica.wait_for_revision(revision)
        for revision, expected in then:
            # Also when the present would do, whose counts of words are not those of a new index.
            shown = past.views._build(NAMESPACE, Moment(0, revision=revision), True)
            found = answers(shown.view, vector, shown.time_us)
            assert [[ordinal for ordinal, _ in hits] for hits in found] == [
                [ordinal for ordinal, _ in hits] for hits in expected
            ]
            scores = [score for hits in expected for _, score in hits]
            assert [score for hits in found for _, score in hits] == pytest.approx(scores, rel=1e-5)
        past.views.close()


def swept(view: View) -> View:
    """A view as of its revision: what has expired is there until it is swept."""
    namespaces = {name: replace(each, keeps_expired=True) for name, each in view.namespaces.items()}
    return replace(view, namespaces=MappingProxyType(namespaces))
