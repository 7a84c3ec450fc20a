"""A store and its replica, driven at random, against a model of what the API promises.

By default it goes through the same examples every time, and shows a failure as it found it: to make it
smaller takes minutes. For others, and failures made small, as long as that takes:

    pytest tests/test_model.py --hypothesis-profile=long --timeout=0
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from drawn_requests import (
    HOUR_US,
    IDS,
    KINDS,
    NAMESPACES,
    SPANS_US,
    NamedFilter,
    WriteRequest,
    adds,
    deletes,
    embeddings,
    expectations,
    expiring_at,
    filters,
    foreign_version,
    ids,
    memories,
    namespace_updates,
    namespaces,
    request_ids,
    updates,
    written_over,
)
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model import COMING_MODELS
from modelled_replica import ModelledReplica
from modelled_store import ModelledStore, exported, import_command, open_store
from store_scan import check_scan, scan

from agentmem.core.verification import verify
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

DAY_US = 24 * 3600 * 1_000_000
# In memory, where there is such a folder: what a sync takes is not what is tested here.
SHARED_MEMORY = Path("/dev/shm")

waits_us = st.sampled_from((*SPANS_US, *SPANS_US, DAY_US - 1, DAY_US, 2 * DAY_US))
which = st.integers(0, 1)
lives = st.lists(memories() | memories() | st.none(), min_size=1, max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """The rules are what callers, the sweeper, the clock and the network do."""

    def __init__(self) -> None:
        super().__init__()
        folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="agentmem-model-", dir=folder))
        self.writer = ModelledStore(self._folder / "writer")
        # Two, so that one may be far behind.
        self.replicas = [ModelledReplica(self.writer, self._folder / name) for name in ("first", "second")]
        self._seen = -1

    def teardown(self) -> None:
        try:
            # Not behind a failure, which it would hide.
            if sys.exc_info()[0] is None:
                for replica in self.replicas:
                    replica.follow_step_by_step()
                for store in (self.writer.store, *(replica.store for replica in self.replicas)):
                    assert verify(store).problems == []
                self.look_back_at_all()
                self.move_to_an_empty_store()
        finally:
            for replica in self.replicas:
                replica.store.close()
            self.writer.store.close()
            shutil.rmtree(self._folder)

    # Callers

    @rule(request=adds(), as_time=st.booleans())
    def add(self, request: writer_pb2.AddMemoriesRequest, as_time: bool) -> None:
        self.writer.send(self._timed(request, as_time))

    @rule(request=updates(), as_time=st.booleans(), expectation=expectations)
    def update(self, request: writer_pb2.UpdateMemoryRequest, as_time: bool, expectation: str) -> None:
        self._expect(request, request.memory.id, expectation)
        self.writer.send(self._timed(request, as_time))

    @rule(request=deletes(), expectation=expectations)
    def delete(self, request: writer_pb2.DeleteMemoriesRequest, expectation: str) -> None:
        if len(request.ids) == 1:
            self._expect(request, request.ids[0], expectation)
        self.writer.send(request)

    @rule(
        namespace=namespaces,
        meaning=filters,
        purge=st.booleans(),
        request_id=request_ids,
        meanwhile=st.lists(updates() | deletes() | adds(), max_size=1),
    )
    def delete_by_filter(
        self,
        namespace: str,
        meaning: NamedFilter,
        purge: bool,
        request_id: str,
        meanwhile: list[WriteRequest],
    ) -> None:
        request = writer_pb2.DeleteMemoriesRequest(
            namespace=namespace, filter=meaning.message, purge=purge, request_id=request_id
        )
        # One that took the same request_id meanwhile would be another case.
        meanwhile = [each for each in meanwhile if not each.request_id]
        self.writer.delete_by_filter(request, meaning, meanwhile)

    @rule(
        namespace=namespaces,
        memory_id=ids,
        life=lives,
    )
    def live_on(self, namespace: str, memory_id: str, life: list[memory_pb2.Memory | None]) -> None:
        """Writes to one id, adds or updates as it may be; None deletes."""
        for memory in life:
            is_there = memory_id in self.writer.model.space(namespace).live(self.writer.now_us)
            if memory is None:
                self.writer.send(writer_pb2.DeleteMemoriesRequest(namespace=namespace, ids=[memory_id]))
            else:
                memory.id = memory_id
                self.writer.send(written_over(namespace, memory, is_there=is_there))

    @rule(
        namespace=st.sampled_from((*NAMESPACES, "")),
        memory_id=ids,
        given=st.lists(memories(), min_size=1, max_size=3),
        embedded=st.lists(st.just(b"") | embeddings, min_size=3, max_size=3),
        ttl_us=st.sampled_from((0, *SPANS_US)),
        policy=st.sampled_from((writer_pb2.DUPLICATE_POLICY_SKIP, writer_pb2.DUPLICATE_POLICY_MERGE)),
        own_id=st.booleans(),
    )
    def add_alike(
        self,
        namespace: str,
        memory_id: str,
        given: list[memory_pb2.Memory],
        embedded: list[bytes],
        ttl_us: int,
        policy: writer_pb2.DuplicatePolicy,
        own_id: bool,
    ) -> None:
        """Memories of one owner and content: of what is over its time and there yet, or of one that is live.

        Without a namespace, in a new one: it gets its first embedding here.
        """
        if not namespace:
            namespace = f"new-{self.writer.model.revision}"
            for memory, embedding in zip(given, embedded, strict=False):
                memory.embedding, memory.embedding_model = embedding, ""
        there = self.writer.model.space(namespace).undeleted()
        over = [version for version in there.values() if not version.is_live(self.writer.now_us)]
        known = (over or [there[memory_id]])[0] if memory_id in there or over else None
        original = given[0] if known is None else known.memory
        for memory in given:
            memory.content, memory.user_id = original.content, original.user_id
            memory.agent_id = original.agent_id
            if ttl_us:
                memory.ttl.FromMicroseconds(ttl_us + len(memory.tags))
        given[0].id = memory_id if own_id else ""
        self.writer.send(
            writer_pb2.AddMemoriesRequest(namespace=namespace, memories=given, on_duplicate=policy)
        )

    @rule(request=namespace_updates())
    def update_namespace(self, request: writer_pb2.UpdateNamespaceRequest) -> None:
        self.writer.send(request)

    @rule(
        namespace=namespaces,
        model=st.sampled_from(("", *COMING_MODELS, *COMING_MODELS)),
        steps=st.sampled_from((0, 1, 2, 4, 8)),
        most=st.sampled_from((1, 100)),
    )
    def reembed(self, namespace: str, model: str, steps: int, most: int) -> None:
        """Asks for other embeddings, or stops that, and works on it."""
        self.writer.reembed(namespace, model)
        self.work_on_embeddings(namespace, steps, most)

    @rule(namespace=namespaces, steps=st.sampled_from((1, 2, 4, 8)), most=st.sampled_from((1, 100)))
    def work_on_embeddings(self, namespace: str, steps: int, most: int) -> None:
        for _ in range(steps):
            self.writer.work_on_embeddings(namespace, most)
            self.everything_agrees()

    @rule(requests=st.lists(adds() | updates() | deletes(), min_size=2, max_size=3))
    def write_together(self, requests: list[WriteRequest]) -> None:
        self.writer.send(*requests)

    @precondition(lambda self: self.writer.sent)
    @rule(place=st.integers(0, 100), back=st.booleans())
    def send_again(self, place: int, back: bool) -> None:
        sent = self.writer.sent
        request = sent[-1 - place % min(3, len(sent))] if back else sent[place % len(sent)]
        if isinstance(request, writer_pb2.DeleteMemoriesRequest) and not request.ids:
            return  # by filter: that rule sends them again
        self.writer.send(request)

    @rule(source=namespaces, destination=namespaces, skips=st.booleans(), from_version=st.integers(1, 4))
    def import_exported(self, source: str, destination: str, skips: bool, from_version: int) -> None:
        versions = [
            version
            for version in exported(self.writer.store, source, self.writer.now_us)
            if version.memory.version >= from_version
        ]
        if versions:
            self.writer.import_versions(destination, versions, skips=skips)

    @rule(
        namespace=namespaces,
        request=adds(),
        version=st.integers(1, 6),
        kind=st.sampled_from(KINDS),
        after_us=st.sampled_from((-DAY_US, -1, 0, 1, DAY_US)),
        skips=st.booleans(),
    )
    def import_version(
        self,
        namespace: str,
        request: writer_pb2.AddMemoriesRequest,
        version: int,
        kind: memory_pb2.VersionKind,
        after_us: int,
        skips: bool,
    ) -> None:
        """One of another store, whose clock may be wrong."""
        now_us = self.writer.now_us
        given = foreign_version(request.memories[0], version, kind, now_us + after_us)
        self.writer.import_versions(namespace, [given], skips=skips)

    # The clock, the sweeper, the disk

    @rule(span_us=waits_us)
    def wait(self, span_us: int) -> None:
        self.writer.now_us += span_us
        self._seen = -1

    @rule(beside_us=st.sampled_from((-1, 0, 0, 1)), sweeps=st.booleans())
    def wait_for_an_end(self, beside_us: int, sweeps: bool) -> None:
        """Until a memory expires, to the microsecond."""
        ends_us = [us + beside_us for us in self.writer.model.expire_times()]
        self.writer.now_us = min(
            (us for us in ends_us if us > self.writer.now_us), default=self.writer.now_us
        )
        self._seen = -1
        if sweeps:
            self.everything_agrees()
            self.writer.sweep()

    @rule(namespace=namespaces)
    def sweep(self, namespace: str) -> None:
        self.writer.sweep()
        self.writer.prune_by_age(namespace)
        self.writer.prune_by_count(namespace, list(self.writer.model.space(namespace).memories))

    @rule(namespace=namespaces, count=st.sampled_from((0, 1, 2)), age_us=st.sampled_from((0, 1, HOUR_US)))
    def retain(self, namespace: str, count: int, age_us: int) -> None:
        """Other settings, and the sweep that follows."""
        settings = writer_pb2.NamespaceSettings(max_versions=count)
        request = writer_pb2.UpdateNamespaceRequest(namespace=namespace, settings=settings)
        request.update_mask.paths.append("max_versions")
        if age_us:
            request.update_mask.paths.append("max_version_age")
            request.settings.max_version_age.FromMicroseconds(age_us)
        self.writer.send(request)
        self.sweep(namespace)

    @rule(
        max_bytes=st.sampled_from((0, 500, 2000, 100_000)),
        max_age_us=st.sampled_from((*SPANS_US, 2 * DAY_US)),
        keep=st.sampled_from(("replica", "replica", "replica", "nothing")),
    )
    def trim_log(self, max_bytes: int, max_age_us: int, keep: str) -> None:
        slowest = min(replica.revision for replica in self.replicas)
        keep_from = slowest + 1 if keep == "replica" else 2**64 - 1
        self.writer.trim_log(max_bytes, max_age_us, keep_from)
        self._seen = -1

    @rule()
    def reopen(self) -> None:
        self.writer.reopen()
        self._seen = -1

    # Reads

    @rule(
        namespace=namespaces,
        place=st.integers(0, 1000),
        beside_us=st.sampled_from((-1, 0, 1)),
        some=st.lists(ids, min_size=1, unique=True),
        meaning=st.none() | filters,
    )
    def look_back(
        self, namespace: str, place: int, beside_us: int, some: list[str], meaning: NamedFilter | None
    ) -> None:
        """At a revision and at a time, and all of it in an export."""
        revision = place % (self.writer.model.revision + 1)
        self.writer.check_as_of(namespace, reader_pb2.AsOf(revision=revision), some, meaning)
        for replica in self.replicas:
            replica.check_as_of(revision)
        times = sorted({self.writer.now_us, *self.writer.model.all_times_us()})
        as_of = reader_pb2.AsOf()
        as_of.time.FromMicroseconds(times[place % len(times)] + beside_us)
        self.writer.check_as_of(namespace, as_of, some, meaning)
        self.writer.check_export(namespace, meaning, newest_only=bool(place % 2))
        self.writer.check_export_begun_at(namespace, revision)

    def look_back_at_all(self) -> None:
        for namespace in self.writer.model.spaces:
            for revision in range(self.writer.model.revision + 1):
                self.writer.check_as_of(namespace, reader_pb2.AsOf(revision=revision), IDS, None)
            for time_us in self.writer.model.all_times_us():
                as_of = reader_pb2.AsOf()
                as_of.time.FromMicroseconds(time_us)
                self.writer.check_as_of(namespace, as_of, IDS, None)
            self.writer.check_export(namespace, None, newest_only=False)

    def move_to_an_empty_store(self) -> None:
        """Export, import, export."""
        moved = open_store(self._folder / "moved")
        moved.found_cluster()
        for namespace in self.writer.model.spaces:
            versions = list(exported(self.writer.store, namespace, self.writer.now_us))
            if versions:
                run = import_command(namespace, versions).run
                moved.commit(partial(run, time_us=self.writer.now_us))
            assert list(exported(moved, namespace, self.writer.now_us)) == versions
        check_scan(scan(moved))
        moved.close()

    # The network

    @rule(replica=which, max_bytes=st.sampled_from((1, 1000, 100_000)))
    def receive(self, replica: int, max_bytes: int) -> None:
        """A frame is on its way, and the store may go on before it arrives."""
        self.replicas[replica].receive(max_bytes)

    @rule(replica=which, count=st.integers(1, 4), again=st.booleans())
    def apply(self, replica: int, count: int, again: bool) -> None:
        self.replicas[replica].apply(count)
        self.replicas[replica].check()
        if again:
            self.replicas[replica].apply_again(count)

    @rule(replica=which, in_steps=st.booleans())
    def catch_up(self, replica: int, in_steps: bool) -> None:
        if in_steps:
            self.replicas[replica].follow_step_by_step()
        else:
            self.replicas[replica].catch_up()

    @rule(
        replica=which,
        namespace=namespaces,
        memory_id=ids,
        life=lives,
        count=st.sampled_from((1, 2)),
    )
    def fall_behind(
        self,
        replica: int,
        namespace: str,
        memory_id: str,
        life: list[memory_pb2.Memory | None],
        count: int,
    ) -> None:
        """What a memory went through has been pruned by the time that it is sent."""
        self.replicas[replica].catch_up()
        self.retain(namespace, 0, 0)
        self.live_on(namespace, memory_id, life)
        self.retain(namespace, count, 0)
        self.replicas[replica].follow_step_by_step()

    @rule(replica=which, how=st.sampled_from(("reopened", "from a copy", "from nothing")))
    def restart(self, replica: int, how: str) -> None:
        if how == "reopened":
            self.replicas[replica].reopen()
        elif how == "from a copy":
            self.replicas[replica].start_from_copy()
        else:
            self.replicas[replica].start_over()
        self.replicas[replica].check()

    # After every step

    @invariant()
    def everything_agrees(self) -> None:
        if self._seen == self.writer.model.revision:
            return
        self._seen = self.writer.model.revision
        assert self.writer.store.position().revision == self.writer.model.revision
        check_scan(scan(self.writer.store))
        self.writer.check_reads()

    # Requests made of drawn ones

    def _timed(
        self,
        request: writer_pb2.AddMemoriesRequest | writer_pb2.UpdateMemoryRequest,
        as_time: bool,
    ) -> WriteRequest:
        """With an expire_time in place of a ttl."""
        if isinstance(request, writer_pb2.AddMemoriesRequest):
            given = list(request.memories)
        else:
            given = [] if "ttl" in request.update_mask.paths else [request.memory]
        for memory in given if as_time else ():
            expiring_at(memory, self.writer.now_us)
        return request

    def _expect(
        self,
        request: writer_pb2.UpdateMemoryRequest | writer_pb2.DeleteMemoriesRequest,
        memory_id: str,
        expectation: str,
    ) -> None:
        """Sets the right or a wrong expected_version."""
        if expectation:
            versions = self.writer.model.space(request.namespace).memories.get(memory_id)
            newest = versions[-1].memory.version if versions else 1
            request.expected_version = newest if expectation == "right" else newest + 1


TestStore = StoreMachine.TestCase
if settings.get_current_profile_name() == "default":
    TestStore.settings = settings(TestStore.settings, max_examples=150, phases=(Phase.generate,))
