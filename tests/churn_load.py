"""Reads of every kind while memories are updated, deleted and added again.

Each answer is held against what was acknowledged before the read began. Each id has one owner, which writes
it, one write after the other. A version counts on through deletions, so what was acknowledged is one number
for each id: the least version that a read which begins now may return.

    update to version v     v
    deletion of version v   v + 2: v + 1 is the deletion
    add as version v        v
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentmem.client import (
    EVENTUAL,
    STRONG,
    Client,
    Consistency,
    Field,
    Memory,
    SearchMode,
    Session,
)

IDS_OF_AN_OWNER = 24
GROUPS = 4
TOP_K = 50
CALL_TIMEOUT_S = 60.0
KINDS = ("get", "list", *SearchMode)
WORDS = ("harbour", "boat", "quay", "sail", "anchor")


@dataclass
class Ledger:
    """What was written and acknowledged. Every attribute is read and written under the lock.

    Attributes:
        least: by id, the least version that a read which begins now may return.
        contents: of each version that was written, when its write was answered.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    least: dict[str, int] = field(default_factory=dict)
    contents: dict[tuple[str, int], str] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def written(self, memory_id: str, version: int, content: str) -> None:
        with self.lock:
            self.least[memory_id] = version
            self.contents[memory_id, version] = content

    def deleted(self, memory_id: str, version: int) -> None:
        with self.lock:
            self.least[memory_id] = version + 2

    def now(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        with self.lock:
            return dict(self.least) if ids is None else {each: self.least.get(each, 0) for each in ids}

    def check(self, kind: str, least: dict[str, int], found: Sequence[Memory], group: str) -> None:
        """Notes what is wrong with an answer: what was dead, has another content, or does not match."""
        with self.lock:
            self.reads[kind] += 1
            for memory in found:
                what = f"{kind}: {memory.id} version {memory.version}"
                if memory.version < least.get(memory.id, 0):
                    self.violations.append(f"{what}, dead since {least[memory.id]}")
                known = self.contents.get((memory.id, memory.version))
                if known is not None and known != memory.content:
                    self.violations.append(f"{what} is {memory.content!r}, written as {known!r}")
                if group and group not in memory.tags:
                    self.violations.append(f"{what} is not of {group}")
            ids = [memory.id for memory in found]
            if len(set(ids)) != len(ids):
                self.violations.append(f"{kind}: an id comes twice: {ids}")


class Owner:
    """Writes its ids, and reads in its session what it wrote."""

    def __init__(self, number: int, client: Client, namespace: str, ledger: Ledger, seed: int) -> None:
        self._session: Session = client.session()
        self._namespace = namespace
        self._ledger = ledger
        self._random = random.Random(f"owner {number} {seed}")
        self._ids = [f"o{number}-{each}" for each in range(IDS_OF_AN_OWNER)]
        # The newest version of each id that is there.
        self._versions: dict[str, int] = {}
        self._count = 0

    def step(self) -> None:
        memory_id = self._random.choice(self._ids)
        self._count += 1
        group = f"g{self._random.randrange(GROUPS)}"
        content = f"{' '.join(self._random.choices(WORDS, k=4))} {memory_id} {self._count}"
        if memory_id not in self._versions:
            self._session.add(self._namespace, content, id=memory_id, tags=[group], timeout_s=CALL_TIMEOUT_S)
            added = self._session.get(self._namespace, memory_id)
            assert added is not None
            self._versions[memory_id] = added.version
            self._ledger.written(memory_id, added.version, content)
            self._ledger.writes["add"] += 1
        elif self._random.random() < 0.3:
            self._session.delete(self._namespace, [memory_id], timeout_s=CALL_TIMEOUT_S)
            self._ledger.deleted(memory_id, self._versions.pop(memory_id))
            self._ledger.writes["delete"] += 1
        else:
            updated = self._session.update(
                self._namespace, memory_id, content=content, tags=[group], timeout_s=CALL_TIMEOUT_S
            )
            self._versions[memory_id] = updated.version
            self._ledger.written(memory_id, updated.version, content)
            self._ledger.writes["update"] += 1
        self._read_own(group)

    def _read_own(self, group: str) -> None:
        """In a session the writes of the session show, on whatever replica."""
        least = self._ledger.now(self._ids)
        kind = KINDS[self._count % len(KINDS)]
        found = read(self._session, self._namespace, kind, self._random, group, EVENTUAL, self._ids)
        self._ledger.check(f"session {kind}", least, found, "" if kind == "get" else group)


def read(
    client: Client | Session,
    namespace: str,
    kind: str,
    random: random.Random,
    group: str,
    consistency: Consistency,
    ids: Sequence[str],
) -> Sequence[Memory]:
    """What a read of one of the KINDS finds; of some ids for get, of a group for the others."""
    narrowed = Field("tags") == group
    if kind == "get":
        some = random.sample([*ids], 8)
        return client.get_many(namespace, some, consistency=consistency, timeout_s=CALL_TIMEOUT_S).memories
    if kind == "list":
        return client.list(
            namespace, filter=narrowed, page_size=500, consistency=consistency, timeout_s=CALL_TIMEOUT_S
        ).memories
    result = client.search(
        namespace,
        random.choice(WORDS),
        mode=kind,
        top_k=TOP_K,
        filter=narrowed,
        consistency=consistency,
        timeout_s=CALL_TIMEOUT_S,
    )
    return [hit.memory for hit in result.hits]


def churn(client: Client, namespace: str, *, owners: int, readers: int, reads: int, seed: int = 1) -> Ledger:
    """Writes and reads at once until so many reads are done; the ledger says what was wrong."""
    ledger = Ledger()
    everyone = [f"o{number}-{each}" for number in range(owners) for each in range(IDS_OF_AN_OWNER)]

    def is_over() -> bool:
        with ledger.lock:
            return bool(ledger.failures) or sum(ledger.reads.values()) >= reads

    def write(number: int) -> None:
        owner = Owner(number, client, namespace, ledger, seed)
        while not is_over():
            owner.step()

    def ask(number: int) -> None:
        drawn = random.Random(f"reader {number} {seed}")
        for count in itertools.count(number):
            if is_over():
                return
            kind, group = KINDS[count % len(KINDS)], f"g{drawn.randrange(GROUPS)}"
            # An eventual read promises no more than that what it returns was written so, and matches.
            name, level = ("eventual", EVENTUAL) if count % 3 == 2 else ("strong", STRONG)
            least = ledger.now() if level == STRONG else {}
            found = read(client, namespace, kind, drawn, group, level, everyone)
            ledger.check(f"{name} {kind}", least, found, "" if kind == "get" else group)

    def guarded(work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            ledger.failures.append(error)

    threads = [threading.Thread(target=guarded, args=(write, number)) for number in range(owners)]
    threads += [threading.Thread(target=guarded, args=(ask, number)) for number in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if ledger.failures:
        raise ledger.failures[0]
    return ledger
