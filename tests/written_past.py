"""A store with a past: random writes, ends, retention, purges and imports, through the writer's commands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from modelled_store import exported, import_command

from agentmem.core.errors import AgentMemError
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.server.commands import AddMemories, Command, UpdateMemory
from agentmem.server.deletion import DeleteById
from agentmem.server.namespaces import UpdateNamespace
from agentmem.server.retention import PruneByAge, PruneByCount, SweepExpired, TrimLog
from agentmem.v1 import memory_pb2, writer_pb2

NAMESPACE = "tests"
START_US = 1_800_000_000_000_000
SECOND_US = 1_000_000
DIMENSION = 8
WORDS = ("boat", "blue", "harbour", "tea", "milk", "rain", "walk", "garden", "night", "train")
USERS = ("ana", "ben")
IDS = tuple(f"m{number}" for number in range(12))
MODEL = "drawn"


class WrittenPast:
    """Writes to a store as the writer would. ``now_us`` is the time of the next commit."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.now_us = START_US
        self.random = random.Random(seed)
        self._imports = 0

    def run(self, *commands: Command[Any]) -> int:
        """Carries out commands in one transaction, those that are refused left out; the newest revision."""

        def work(transaction: Any) -> int:
            for command in commands:
                try:
                    command.run(transaction, self.now_us)
                except AgentMemError as error:
                    if error.reason not in ("MEMORY_NOT_FOUND", "MEMORY_EXISTS"):
                        raise
            return int(transaction.revision)

        revision = self.store.commit(work)
        self.now_us += self.random.choice((0, 1, SECOND_US))
        return revision

    def add(self, *memories: memory_pb2.Memory, vectors: Sequence[FloatVector] | None = None) -> int:
        return self.run(self._addition(memories, vectors or [self.vector() for _ in memories]))

    @staticmethod
    def _addition(memories: Sequence[memory_pb2.Memory], vectors: Sequence[FloatVector]) -> AddMemories:
        policy = writer_pb2.DUPLICATE_POLICY_ADD
        return AddMemories(NAMESPACE, memories, list(vectors), policy, None, 0)

    def vector(self) -> FloatVector:
        row = np.array([self.random.gauss(0, 1) for _ in range(DIMENSION)], dtype=np.float32)
        return np.asarray(row / np.linalg.norm(row), dtype=np.float32)

    def memory(self, memory_id: str) -> memory_pb2.Memory:
        memory = memory_pb2.Memory(
            namespace=NAMESPACE,
            id=memory_id,
            content=" ".join(self.random.choices(WORDS, k=self.random.randint(1, 8))),
            user_id=self.random.choice(USERS),
            session_id=self.random.choice(("", "monday", "tuesday")),
            importance=self.random.choice((0.0, 0.5, 1.0)),
            embedding_model=MODEL,
        )
        if self.random.random() < 0.2:
            memory.expire_time.FromMicroseconds(self.now_us + self.random.choice((1, 2, 5)) * SECOND_US)
        return memory

    def add_some(self) -> int:
        """Adds memories, each with a revision of its own, or none when it is there."""
        ids = self.random.sample(IDS, self.random.randint(1, 4))
        return self.run(*(self._addition([self.memory(each)], [self.vector()]) for each in ids))

    def update_some(self) -> int:
        ids = self.random.sample(IDS, self.random.randint(1, 4))
        return self.run(*(self._update(self.memory(each)) for each in ids))

    def _update(self, memory: memory_pb2.Memory) -> UpdateMemory:
        fields = self.random.choice((("user_id",), ("content", "embedding"), ("session_id",)))
        vector = self.vector() if "embedding" in fields else None
        return UpdateMemory(NAMESPACE, memory, frozenset(fields), None, vector, None, 0)

    def delete_some(self, *, is_purge: bool = False) -> int:
        ids = self.random.sample(IDS, self.random.randint(1, 2))
        return self.run(*(DeleteById(NAMESPACE, [each], is_purge, None, None, 0) for each in ids))

    def sweep(self) -> int:
        return self.run(SweepExpired())

    def prune(self) -> int:
        """Retention by count or by age, set anew and carried out."""
        settings = writer_pb2.NamespaceSettings()
        field = self.random.choice(("max_versions", "max_version_age"))
        if field == "max_versions":
            settings.max_versions = self.random.choice((0, 2, 3))
        else:
            settings.max_version_age.FromMicroseconds(self.random.choice((3, 20)) * SECOND_US)
        self.run(UpdateNamespace(NAMESPACE, settings, frozenset((field,)), None))
        return self.run(PruneByCount(NAMESPACE, IDS), PruneByAge(NAMESPACE))

    def import_old(self, ahead_us: int = 0) -> int:
        """Brings memories under other ids, with versions as old as those that they are copies of.

        Args:
            ahead_us: how far ahead the clock was of the store that they come from.
        """
        self._imports += 1
        copies = list(exported(self.store, NAMESPACE, self.now_us))[:4]
        for version in copies:
            version.memory.id = f"old-{self._imports}-{version.memory.id}"
            time_us = version.memory.update_time.ToMicroseconds() + ahead_us
            version.memory.update_time.FromMicroseconds(time_us)
        return self.run(import_command(NAMESPACE, copies))

    def trim_log(self, keep_from_revision: int) -> None:
        self.run(TrimLog(max_bytes=0, max_age_us=0, keep_from_revision=keep_from_revision))

    def step(self) -> int:
        """Something at random; returns the newest revision."""
        actions: dict[Callable[[], int], int] = {
            self.add_some: 6,
            self.update_some: 6,
            self.delete_some: 3,
            self.sweep: 2,
            lambda: self.delete_some(is_purge=True): 1,
            self.prune: 2,
            self.import_old: 1,
            lambda: self.import_old(ahead_us=10 * SECOND_US): 1,
        }
        (action,) = self.random.choices(list(actions), list(actions.values()))
        return action()
