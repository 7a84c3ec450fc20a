"""A store that is written to at random, its replicas, and what a watch of it has to tell.

What each commit did is noted right behind it, from its entry and the records that it wrote, while these are
there. So it is known later of every change what it was, and since when it may be gone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from modelled_store import START_US, open_store

from agentmem.core.changes import ChangeReader, Place, PositionAhead, Step, WatchQuery, start_place
from agentmem.core.errors import AgentMemError, FailedPrecondition
from agentmem.core.filters import Filter
from agentmem.core.log import Operation
from agentmem.core.purged_ordinals import PurgedOrdinals
from agentmem.core.store import Change, Store, WriteTransaction
from agentmem.server.commands import AddMemories, Command, UpdateMemory
from agentmem.server.deletion import DeleteById
from agentmem.server.importing import ImportVersions
from agentmem.server.namespaces import UpdateNamespace
from agentmem.server.retention import PruneByAge, PruneByCount, SweepExpired
from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory
ADD = writer_pb2.DUPLICATE_POLICY_ADD
EPISODIC = memory_pb2.MEMORY_TYPE_EPISODIC
NAMESPACES = ("watched", "other")
IDS = tuple("abcdef")
USERS = ("ana", "ben")
STEP_US = 1_000_000
KINDS = (
    *("add", "add", "add", "update", "update", "update", "update"),
    *("delete", "purge", "sweep", "age", "count", "settings", "import"),
)


@dataclass(frozen=True)
class Told:
    """What one operation of the log was when it was written.

    Attributes:
        memory: what it wrote; None of a purge, and of a version that went in the same commit.
        before: the live version that it replaced.
    """

    revision: int
    index: int
    count: int
    operation: Operation
    memory: Memory | None
    is_tombstone: bool
    before: Memory | None


class WatchedLog:
    """The writer's store and what was noted of it."""

    def __init__(self, path: Path, seed: str) -> None:
        self.random = random.Random(seed)
        self.store = open_store(path / "writer")
        self.store.found_cluster()
        self.replicas = [open_store(path / name) for name in ("first", "second")]
        for replica in self.replicas:
            cluster_id = self.store.position().cluster_id
            replica.commit(lambda transaction, of=cluster_id: transaction.adopt_cluster(of))  # type: ignore[misc]
        self.purged = [PurgedOrdinals() for _ in self.nodes]
        self.now_us = START_US
        self.told: list[Told] = []
        # By ordinal: the revision that removed it, and how.
        self.removed: dict[int, tuple[int, Operation.Kind]] = {}
        self._memories: dict[int, Memory] = {}
        self._imported = 0

    @property
    def nodes(self) -> list[Store]:
        return [self.store, *self.replicas]

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    # Writing

    def write(self) -> None:
        """One or more commands, drawn, in one commit."""
        self.now_us += self.random.choice((1, STEP_US, 10 * STEP_US))
        commands = [self._drawn() for _ in range(self.random.choice((1, 1, 2)))]
        head = self.store.position().revision

        def work(transaction: WriteTransaction) -> None:
            for command in commands:
                try:
                    command.run(transaction, self.now_us)
                except AgentMemError as error:
                    if error.reason not in ("MEMORY_EXISTS", "MEMORY_NOT_FOUND"):
                        raise

        self.store.commit(work)
        self._note(head)

    def run(self, command: Command[object]) -> None:
        """This command in a commit of its own."""
        head = self.store.position().revision
        self.store.commit(lambda transaction: command.run(transaction, self.now_us))
        self._note(head)

    def _drawn(self) -> Command[object]:
        draw = self.random
        namespace = draw.choice(("watched", "watched", "other"))
        ids = draw.sample(IDS, draw.randint(1, 4))
        kind = draw.choice(KINDS)
        if kind == "add":
            memories = [self._memory(namespace, each) for each in ids]
            return AddMemories(namespace, memories, [None] * len(ids), ADD, None, 0)
        if kind == "update":
            memory = self._memory(namespace, ids[0])
            paths = frozenset(("content", "user_id"))
            return UpdateMemory(namespace, memory, paths, None, None, None, 0)
        if kind in ("delete", "purge"):
            return DeleteById(namespace, ids, kind == "purge", None, None, 0)
        if kind == "sweep":
            return SweepExpired()
        if kind == "age":
            return PruneByAge(namespace)
        if kind == "count":
            return PruneByCount(namespace, IDS)
        if kind == "import":
            return self._import(namespace)
        settings = writer_pb2.NamespaceSettings(max_versions=draw.choice((0, 0, 1, 2, 5)))
        settings.max_version_age.FromMicroseconds(draw.choice((0, 0, 20 * STEP_US)))
        return UpdateNamespace(namespace, settings, {"max_versions", "max_version_age"}, None)

    def _memory(self, namespace: str, memory_id: str) -> Memory:
        memory = Memory(
            id=memory_id, namespace=namespace, content=f"at {self.now_us} {memory_id}", type=EPISODIC
        )
        memory.user_id = self.random.choice(USERS)
        if self.random.random() < 0.3:
            memory.ttl.FromMicroseconds(self.random.choice((STEP_US, 5 * STEP_US, 3600 * STEP_US)))
        return memory

    def _import(self, namespace: str) -> ImportVersions:
        """The whole life of a memory, written in one entry."""
        self._imported += 1
        changes = []
        for version in range(1, self.random.randint(2, 6)):
            memory = Memory(id=f"i{self._imported}", namespace=namespace, version=version, type=EPISODIC)
            memory.content, memory.user_id = f"imported {version}", self.random.choice(USERS)
            memory.update_time.FromMicroseconds(START_US + version)
            changes.append(Change(memory))
        return ImportVersions(namespace, changes, False, 0)

    def _note(self, head: int) -> None:
        with self.store.read() as transaction:
            entries = [
                transaction.log_entry(revision) for revision in range(head + 1, transaction.revision + 1)
            ]
            for entry in entries:
                for index, operation in enumerate(entry.operations, 1):
                    record = transaction.record(operation.ordinal) if operation.ordinal else None
                    if record is not None:
                        self._memories[operation.ordinal] = record.memory
                    told = Told(
                        entry.revision,
                        index,
                        len(entry.operations),
                        operation,
                        None if record is None else record.memory,
                        record is not None and record.is_tombstone,
                        self._memories.get(operation.replaced_ordinal),
                    )
                    self.told.append(told)
                    for ordinal in operation.removed_ordinals:
                        self.removed[ordinal] = (entry.revision, operation.kind)

    def replicate(self, replica: Store) -> None:
        """Some entries, as the writer ships them now."""
        with self.store.read() as transaction:
            shipped = transaction.shipped_entries(replica.position().revision, self.random.choice((1, 3000)))

        def work(transaction: WriteTransaction) -> None:
            for entry in shipped:
                transaction.apply(entry)

        replica.commit(work)


class Watcher:
    """Someone who watches, is cut off again and again, and goes on wherever there is a node.

    Each step is compared with what was noted.
    """

    def __init__(self, log: WatchedLog, matcher: Filter | None, *, skip_pruned: bool) -> None:
        self.position = reader_pb2.WatchPosition()
        self.changes = 0
        self.pruned = 0
        self._log = log
        self._matcher = matcher
        self._skip_pruned = skip_pruned

    def watch(self, node: int, steps: int, *, to_the_end: bool = True) -> bool:
        """Goes on at a node; whether it is level with it then.

        Args:
            to_the_end: the last message of all arrives whole.
        """
        store = self._log.nodes[node]
        with store.read() as transaction:
            try:
                place = start_place(transaction, self.position)
            except PositionAhead:
                assert node
                assert self.position.revision > transaction.revision
                return False
        reader = self._reader(node, place, self._skip_pruned)
        for _ in range(steps):
            try:
                step = reader.step()
            except FailedPrecondition as error:
                if error.reason != "HISTORY_PRUNED" or self._skip_pruned:
                    raise
                self._step_over_pruned(node, reader.place, int(error.metadata["revision"]))
                return False
            if step.is_level:
                if reader.has_gap:
                    # What removed it comes with a later entry.
                    assert node
                    assert store.position().revision < self._log.store.position().revision
                    return False
                assert step.place.revision == store.position().revision
            self._take(node, step, skip_pruned=self._skip_pruned, to_the_end=to_the_end)
            if step.is_level or not to_the_end:
                return step.is_level and to_the_end
        return False

    def _reader(self, node: int, place: Place, skip_pruned: bool) -> ChangeReader:
        query = WatchQuery("watched", self._matcher, skip_pruned=skip_pruned)
        return ChangeReader(self._log.nodes[node], query, place, self._log.purged[node])

    def _step_over_pruned(self, node: int, place: Place, revision: int) -> None:
        """Leaves out one version that retention has removed, as the watcher now asks to."""
        self.pruned += 1
        following = [
            told for told in self._between(place, None) if self._is_removed(told, Operation.KIND_PRUNE)
        ]
        assert following[0].revision == revision
        self._take(node, self._reader(node, place, True).step(), skip_pruned=True, to_the_end=True)

    def _between(self, begin: Place, end: Place | None) -> list[Told]:
        """The operations on the namespace between two places."""
        return [
            told
            for told in self._log.told
            if told.operation.namespace_number == self._number
            and told.operation.kind != Operation.KIND_PRUNE
            and _is_behind(told, begin)
            and (end is None or not _is_behind(told, end))
        ]

    @property
    def _number(self) -> int:
        with self._log.store.read() as transaction:
            space = transaction.namespace("watched")
        return space.number if space else 0

    def _is_removed(self, told: Told, kind: Operation.Kind) -> bool:
        return self._log.removed.get(told.operation.ordinal, (0, None))[1] == kind

    def _take(self, node: int, step: Step, *, skip_pruned: bool, to_the_end: bool) -> None:
        """Compares a step with what it should have told, and moves on behind it, or behind a part of it."""
        begin = Place(1, self.position.revision, self.position.operation)
        sent = list(step.changes)
        for told in self._between(begin, step.place):
            options = self._options(told, node, skip_pruned)
            if sent and sent[0].position.revision == told.revision and _as_told(sent[0]) in options:
                if not told.is_tombstone and told.memory is not None:
                    assert sent[0].memory == told.memory
                del sent[0]
            else:
                assert None in options, (told, sent[:1])
        assert not sent
        self.changes += len(step.changes)
        self.position = step.place.to_proto()
        if not to_the_end and step.changes:
            # Cut off behind one of them: what came later comes again.
            self.position = self._log.random.choice(step.changes).position
            assert self.position.epoch == 1

    def _options(self, told: Told, node: int, skip_pruned: bool) -> list[tuple[object, ...] | None]:
        """What may come for an operation; None for nothing."""
        operation = told.operation
        if operation.kind == Operation.KIND_PURGE:
            return [(reader_pb2.CHANGE_KIND_PURGED, operation.purged_id_digest)]
        options: list[tuple[object, ...] | None] = []
        if self._is_removed(told, Operation.KIND_PURGE) or (
            skip_pruned and self._is_removed(told, Operation.KIND_PRUNE)
        ):
            options.append(None)
            if not node or told.memory is None:
                return options
        assert told.memory is not None, told
        memory = told.memory
        matches = self._matches(memory) and not told.is_tombstone
        left = told.before is not None and self._matches(told.before)
        # A version before it that is gone may have matched.
        maybe_left = left or operation.replaced_ordinal in self._log.removed
        if told.is_tombstone:
            kind = (
                reader_pb2.CHANGE_KIND_EXPIRED
                if memory.HasField("expire_time")
                else reader_pb2.CHANGE_KIND_DELETED
            )
            comes = left or self._matcher is None
        else:
            kind = (
                reader_pb2.CHANGE_KIND_UPDATED if operation.replaced_ordinal else reader_pb2.CHANGE_KIND_ADDED
            )
            comes = matches or left
        if comes or maybe_left:
            options.append((kind, memory.id, memory.version, matches))
        if not comes:
            options.append(None)
        return options

    def _matches(self, memory: Memory) -> bool:
        return self._matcher is None or self._matcher.matches(memory)


def _is_behind(told: Told, place: Place) -> bool:
    operation = place.operation or told.count + 1
    return (told.revision, told.index) > (place.revision, operation)


def _as_told(change: reader_pb2.MemoryChange) -> tuple[object, ...]:
    if change.kind == reader_pb2.CHANGE_KIND_PURGED:
        assert not change.HasField("memory")
        return (change.kind, change.purged_id_digest)
    return (change.kind, change.memory.id, change.memory.version, change.matches)
