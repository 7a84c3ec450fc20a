"""The calls of one session of a client, drawn at random, and what is recorded of them for the checker."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from session_checker import Key, Outcome, Read, WatchedPart, Write

from agentmem.client import (
    EVENTUAL,
    LOCAL,
    STRONG,
    Acknowledgement,
    AgentMemError,
    AlreadyExists,
    AsyncClient,
    AsyncSession,
    Consistency,
    DeadlineExceeded,
    DeleteResult,
    Memory,
    NewMemory,
    NotFound,
    OutcomeUnknown,
    Position,
    ResourceExhausted,
    RevisionLost,
    Unavailable,
    applied,
    max_staleness,
    replicated,
)

NAMESPACES = ("chaos-a", "chaos-b", "chaos-c")
DIMENSION = 4
MODEL = "drawn"
STALENESS_S = (0.3, 1.0, 3.0)
MAX_LIVE_KEYS = 8
MAX_FILLER_WORDS = 60
REPEAT_TIMEOUT_S = 20.0
# Answers that say nothing but that nobody could answer.
FAILURES = (Unavailable, DeadlineExceeded, ResourceExhausted)
CONFLICTS = (NotFound, AlreadyExists)


def content_of(key: Key, owner: str, counter: int, filler_words: int) -> str:
    """The words to search for, the counter as the third word, and some more words."""
    return " ".join((word_of(key), owner, f"n{counter}", *("lorem",) * filler_words))


def counter_of(content: str) -> int:
    return int(content.split()[2].removeprefix("n"))


def word_of(key: Key) -> str:
    """A word that no other memory has."""
    return key[1]


@dataclass(slots=True)
class Recorded:
    """What the load saw. Filled by one thread; lists only grow.

    Attributes:
        keys, owners: of all memories that were added; an owner with a namespace.
        failures: calls that nobody could answer, by what was called and why.
        surprises: errors that no fault excuses.
        written_s, read_s: when a write was acknowledged, and a read answered.
    """

    keys: list[Key] = field(default_factory=list)
    owners: list[tuple[str, str]] = field(default_factory=list)
    operations: list[Write | Read] = field(default_factory=list)
    watched: list[WatchedPart] = field(default_factory=list)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    lost_sessions: int = 0


class Worker:
    """Draws the calls of one session, or of none.

    Attributes:
        is_lost: whether the session was told of a loss: it has to end.
    """

    def __init__(
        self, recorded: Recorded, clients: list[AsyncClient], chance: random.Random, name: str
    ) -> None:
        self.is_lost = False
        self._recorded = recorded
        self._clients = clients
        self._chance = chance
        self._name = name
        self._reader: AsyncSession | AsyncClient = chance.choice(clients)
        if name:
            self._reader = self._client().session()
        # The last counter of each memory that may be written to.
        self._live: dict[Key, int] = {}
        self._deleted: dict[Key, int] = {}
        self._made = 0

    def _client(self) -> AsyncClient:
        return self._chance.choice(self._clients)

    async def step(self) -> None:
        draw = self._chance.random()
        if draw < 0.03 and isinstance(self._reader, AsyncSession):
            # As another process would go on with it.
            self._reader = self._client().session(self._reader.token)
        if draw < 0.12 or not self._live:
            await self._add()
        elif draw < 0.35:
            await self._update(self._chance.choice(list(self._live)))
        elif draw < 0.42:
            ids = self._chance.sample(list(self._live), min(len(self._live), self._chance.choice((1, 1, 2))))
            await self._delete([key for key in ids if key[0] == ids[0][0]])
        else:
            await self.read()

    # Writes

    def _acknowledgement(self) -> Acknowledgement:
        draw = self._chance.random()
        if draw < 0.15:
            return replicated(1, timeout=2)
        if draw < 0.20:
            return replicated(2, timeout=1)
        return applied(1, timeout=2) if draw < 0.25 else LOCAL

    def _fields(self) -> dict[str, Any]:
        embedding = [self._chance.uniform(-1, 1) for _ in range(DIMENSION)]
        return {"embedding": embedding, "embedding_model": MODEL, "user_id": self._name}

    def _content(self, key: Key, counter: int) -> str:
        return content_of(key, self._name, counter, self._chance.randint(0, MAX_FILLER_WORDS))

    async def _add(self) -> None:
        keys: list[Key] = []
        if self._deleted and self._chance.random() < 0.5:
            keys = [self._chance.choice(list(self._deleted))]
        elif len(self._live) < MAX_LIVE_KEYS:
            namespace = self._chance.choice(NAMESPACES)
            for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
                self._made += 1
                keys.append((namespace, f"key{self._name}{self._made}q"))
        if not keys:
            await self._update(self._chance.choice(list(self._live)))
            return
        counters = {key: self._deleted.pop(key, 0) + 1 for key in keys}
        memories: list[Any] = [
            _new_memory(key[1], self._content(key, counter), self._fields())
            for key, counter in counters.items()
        ]
        writes = await self._write(
            "add",
            counters,
            False,
            lambda how: self._reader.add_many(keys[0][0], memories, **how),
        )
        self._recorded.keys += [key for key in keys if counters[key] == 1]
        self._recorded.owners.append((keys[0][0], self._name))
        self._keep(writes, self._live, self._deleted)

    async def _update(self, key: Key) -> None:
        counter = self._live.pop(key) + 1
        content, fields = self._content(key, counter), self._fields()
        writes = await self._write(
            "update",
            {key: counter},
            False,
            lambda how: self._reader.update(key[0], key[1], content=content, **fields, **how),
        )
        self._keep(writes, self._live, self._live)

    async def _delete(self, keys: list[Key]) -> None:
        counters = {key: self._live.pop(key) + 1 for key in keys}
        ids = [key[1] for key in keys]
        writes = await self._write(
            "delete", counters, True, lambda how: self._reader.delete(keys[0][0], ids, **how)
        )
        self._keep(writes, self._deleted, self._live)

    def _keep(self, writes: list[Write], done: dict[Key, int], refused: dict[Key, int]) -> None:
        """What is in doubt, or not as it should be, is never written to again."""
        for write in writes:
            if write.outcome is Outcome.ACKNOWLEDGED:
                done[write.key] = write.counter
            elif write.outcome is Outcome.REFUSED:
                # The next write has a counter of its own.
                refused[write.key] = write.counter

    async def _write(
        self,
        kind: str,
        counters: dict[Key, int],
        is_deletion: bool,
        call: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> list[Write]:
        self._recorded.calls[kind] += 1
        begun_s = time.monotonic()
        writes = [
            Write(self._name, key, self._name, counter, is_deletion, begun_s)
            for key, counter in counters.items()
        ]
        self._recorded.operations += writes
        how: dict[str, Any] = {"acknowledgement": self._acknowledgement()}
        try:
            try:
                answer = await call(how)
            except OutcomeUnknown as error:
                self._recorded.failures[kind, error.reason] += 1
                if self._chance.random() < 0.5:
                    return writes
                # What became of it: the answer is that of the first time, if it was done.
                how |= {"request_id": error.metadata["request_id"], "timeout_s": REPEAT_TIMEOUT_S}
                answer = await call(how)
        except OutcomeUnknown as error:
            self._recorded.failures[f"{kind} again", error.reason] += 1
            return writes
        except CONFLICTS as error:
            self._recorded.failures[kind, error.reason] += 1
            self._finish(writes, Outcome.CONFLICT, None)
        except FAILURES as error:
            self._recorded.failures[kind, error.reason] += 1
            # Said of the repetition, it says nothing of the first time.
            self._finish(writes, Outcome.IN_DOUBT if "request_id" in how else Outcome.REFUSED, None)
        except AgentMemError as error:
            self._recorded.surprises.append(f"{kind} {counters}: {error!r}")
        else:
            self._finish(writes, Outcome.ACKNOWLEDGED, answer)
        return writes

    def _finish(self, writes: list[Write], outcome: Outcome, answer: Any) -> None:
        ended_s = time.monotonic()
        missing = set(answer.missing_ids) if isinstance(answer, DeleteResult) else set()
        for write in writes:
            write.ended_s = ended_s
            write.outcome = Outcome.CONFLICT if write.key[1] in missing else outcome
            if answer is not None and write.outcome is Outcome.ACKNOWLEDGED:
                write.position = Position(answer.epoch, answer.revision)
                write.is_replicated = answer.acknowledged is not None and answer.acknowledged.reached

    # Reads

    async def read(self) -> None:
        """One read, of the own memories or of others."""
        consistency, staleness_s = self._bound()
        mine = [*self._live, *self._deleted]
        is_own = bool(mine) and self._chance.random() < 0.6
        key = self._chance.choice(mine if is_own else self._recorded.keys)
        namespace, owner = self._chance.choice(self._recorded.owners[-40:])
        if is_own:
            namespace, owner = key[0], self._name
        draw = self._chance.random()
        if draw < 0.35:
            keys = {key, *(each for each in self._sample() if each[0] == key[0])}
            await self._get(sorted(keys), consistency, staleness_s)
        elif draw < 0.55:
            await self._list(namespace, owner, consistency, staleness_s)
        elif draw < 0.8:
            await self._search_word(key, consistency, staleness_s)
        else:
            await self._search_meaning(namespace, owner, consistency, staleness_s)

    def _sample(self) -> list[Key]:
        return self._chance.choices(self._recorded.keys, k=self._chance.choice((0, 0, 2, 5)))

    def _bound(self) -> tuple[Consistency, float | None]:
        draw = self._chance.random()
        if draw < (0.6 if self._name else 0.1):
            return EVENTUAL, None
        if draw < 0.85:
            staleness_s = self._chance.choice(STALENESS_S)
            return max_staleness(staleness_s), staleness_s
        return STRONG, 0.0

    async def _get(self, keys: list[Key], how: Consistency, staleness_s: float | None) -> None:
        ids = [key[1] for key in keys]
        await self._read(
            "get",
            lambda: self._reader.get_many(keys[0][0], ids, consistency=how),
            lambda answer: answer.memories,
            staleness_s,
            asked=tuple(keys),
        )

    async def _list(self, namespace: str, owner: str, how: Consistency, staleness_s: float | None) -> None:
        def memories(answer: Any) -> Sequence[Memory]:
            assert not answer.next_page_token, "all of an owner fits a page"
            return answer.memories  # type: ignore[no-any-return]

        await self._read(
            "list",
            lambda: self._reader.list(namespace, user_id=owner, page_size=1000, consistency=how),
            memories,
            staleness_s,
            namespace=namespace,
            owner=owner,
        )

    async def _search_word(self, key: Key, how: Consistency, staleness_s: float | None) -> None:
        await self._read(
            "text search",
            lambda: self._reader.search(key[0], word_of(key), mode="text", consistency=how),
            lambda answer: [hit.memory for hit in answer.hits],
            staleness_s,
            asked=(key,),
        )

    async def _search_meaning(
        self, namespace: str, owner: str, how: Consistency, staleness_s: float | None
    ) -> None:
        question = [self._chance.uniform(-1, 1) for _ in range(DIMENSION)]
        await self._read(
            "semantic search",
            lambda: self._reader.search(
                namespace, embedding=question, mode="semantic", user_id=owner, top_k=1000, consistency=how
            ),
            lambda answer: [hit.memory for hit in answer.hits],
            staleness_s,
            namespace=namespace,
            owner=owner,
        )

    async def _read(
        self,
        kind: str,
        call: Callable[[], Awaitable[Any]],
        memories: Callable[[Any], Sequence[Memory]],
        staleness_s: float | None,
        *,
        asked: tuple[Key, ...] | None = None,
        namespace: str = "",
        owner: str = "",
    ) -> None:
        self._recorded.calls[kind] += 1
        begun_s = time.monotonic()
        where, shown = Position(), {}
        try:
            answer = await call()
        except RevisionLost as error:
            self._recorded.failures[kind, error.reason] += 1
            self.is_lost = True
        except FAILURES as error:
            self._recorded.failures[kind, error.reason] += 1
            return
        except AgentMemError as error:
            self._recorded.surprises.append(f"{kind} {asked or (namespace, owner)}: {error!r}")
            return
        else:
            where = Position(answer.epoch, answer.applied_revision)
            shown = {(each.namespace, each.id): counter_of(each.content) for each in memories(answer)}
        self._recorded.operations.append(
            Read(
                self._name,
                kind,
                begun_s,
                time.monotonic(),
                asked,
                shown,
                where,
                namespace,
                owner,
                staleness_s,
                self.is_lost,
            )
        )


def _new_memory(id: str, content: str, fields: dict[str, Any]) -> Any:
    return NewMemory(content, id=id, **fields)
