"""The work of replacing embeddings: looks through the versions of a namespace, a little at a time.

Each version that lacks its vector in the coming space gets it; when all have it, the coming space takes the
place of the one in use, whose vectors are then cleared. Everything that is known is in the store: a writer
that is started again, or was a replica, begins another look and passes over what is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from agentmem.core.embedders import Embedders
from agentmem.core.errors import AgentMemError, FailedPrecondition, Unavailable, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.reading import SCAN_CHUNK_RECORDS
from agentmem.core.records import NO_VECTOR, FloatVector, Record
from agentmem.core.store import Store
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.reembedding import ClearVectors, EmbedVersions, SwitchSpace

# Of the time; the rest is for writes, and for whoever shares the processor.
MAX_TIME_SHARE = 0.5
MAX_PAUSE_S = 2.0
# What is embedded in one go, and written in one commit.
MAX_BATCH_TEXTS = 64
MAX_BATCH_BYTES = 1024 * 1024
MAX_CLEARED_VECTORS = 500
# When something holds it up, or nothing was found that is left to be done.
RETRY_S = 1.0
# Vectors that were replaced are kept for replicas that have not come so far, for so long at the most; and for
# a while after a start, for those that come again.
MAX_CLEARING_WAIT_S = 60.0
CLEARING_WAIT_AFTER_START_S = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a look is: all ids up to ``memory_id``, whose versions from ``ordinal`` on are to come."""

    memory_id: str = ""
    ordinal: int = 0


@dataclass(slots=True, eq=False)
class _Look:
    """The work on one namespace.

    Attributes:
        space: what the place belongs to: the number of the coming space, 0 while vectors are cleared.
        has_found: whether anything was left to be done, since the look began at the first id.
        retry_at_s: not before.
        said: what held it up.
        ended_revision: of the switch, or of the stop. Until replicas show it, or until ``clear_at_s``,
            nothing is cleared.
    """

    place: _Place = field(default_factory=_Place)
    space: int = 0
    has_found: bool = False
    retry_at_s: float = 0.0
    said: str = ""
    ended_revision: int = 0
    clear_at_s: float = 0.0


class Reembedder:
    """Belongs to the event loop of the commit queue."""

    def __init__(
        self,
        store: Store,
        queue: CommitQueue,
        embedders: Embedders,
        *,
        searchable_revisions: Callable[[], Iterable[int]] = lambda: (),
    ) -> None:
        """Args:
        searchable_revisions: what the searches of each subscribed replica show.
        """
        self._store = store
        self._queue = queue
        self._embedders = embedders
        self._searchable_revisions = searchable_revisions
        self._dimensions: dict[str, int] = {}
        self._looks: dict[str, _Look] = {}
        self._is_watched = asyncio.Event()
        with store.read() as transaction:
            revision = transaction.revision
            begun = [name for name, space in transaction.namespaces() if _is_begun(space)]
        for name in begun:
            clear_at_s = time.monotonic() + CLEARING_WAIT_AFTER_START_S
            self._looks[name] = _Look(ended_revision=revision + 1, clear_at_s=clear_at_s)

    def watch(self, namespace: str, revision: int) -> None:
        """The embeddings of a namespace are to be replaced, or no longer, from a revision on."""
        look = self._looks.setdefault(namespace, _Look())
        look.retry_at_s = 0.0
        self._await_replicas(look, revision)
        self._is_watched.set()

    def _await_replicas(self, look: _Look, revision: int) -> None:
        look.ended_revision = revision
        look.clear_at_s = time.monotonic() + MAX_CLEARING_WAIT_S

    async def probed(self, name: str) -> tuple[str, int]:
        """The model of an embedder and its dimension, which it was asked for; "" and 0 for "none".

        Raises:
            InvalidArgument: this server does not have it.
            Unavailable: ``EMBEDDER_FAILED``.
        """
        if not name:
            raise invalid_field("embedder", "is missing")
        self._embedders.check_name(name, "embedder")
        model = self._embedders.model_of(name)
        if model and name not in self._dimensions:
            (vector,) = await asyncio.to_thread(self._embed, name, ["What is remembered?"])
            if not len(vector):
                raise Unavailable(
                    "EMBEDDER_FAILED", f"the embedder {name!r} gives no embedding of a sentence"
                )
            self._dimensions[name] = len(vector)
        return model, self._dimensions.get(name, 0)

    async def run(self) -> None:
        """Works on what is to be done, until cancelled."""
        while True:
            self._is_watched.clear()
            began_s = time.monotonic()
            has_worked = False
            for namespace, look in list(self._looks.items()):
                if time.monotonic() >= look.retry_at_s:
                    has_worked = await self._work(namespace, look) or has_worked
            if has_worked:
                spent_s = time.monotonic() - began_s
                await asyncio.sleep(min(spent_s * (1 / MAX_TIME_SHARE - 1), MAX_PAUSE_S))
                continue
            if self._looks:
                wait_s = min(look.retry_at_s for look in self._looks.values()) - time.monotonic()
            try:
                await asyncio.wait_for(self._is_watched.wait(), max(0.0, wait_s) if self._looks else None)
            except TimeoutError:
                continue

    async def _work(self, namespace: str, look: _Look) -> bool:
        """Does a little; says whether there was anything to be done now."""
        with self._store.read() as transaction:
            space = transaction.namespace(namespace)
        try:
            if space is not None and space.is_clearing:
                has_worked = await self._clear(namespace, look)
            elif space is not None and space.coming_space:
                has_worked = await self._fill(namespace, space, look)
            else:
                del self._looks[namespace]
                return True
            look.said = ""
        except AgentMemError as error:
            # A full store or queue, an embedder that fails or is not here, or a damaged record. What answers
            # goes on answering.
            if error.message != look.said:
                _logger.error(
                    "the embeddings of %s cannot be replaced, trying on: %s", namespace, error.message
                )
                look.said = error.message
            has_worked = False
        look.retry_at_s = 0.0 if has_worked else time.monotonic() + RETRY_S
        return has_worked

    async def _fill(self, namespace: str, space: NamespaceState, look: _Look) -> bool:
        if look.space != space.coming_space:
            look.space, look.place = space.coming_space, _Place()
        name = self._embedders.name_of(space.coming_model)
        if not name:
            raise FailedPrecondition(
                "EMBEDDING_REQUIRED",
                f"this server has no embedder for {space.coming_model!r}; it has "
                f"{', '.join(self._embedders.names)}",
            )
        if space.coming_versions == space.versions:
            revision = await self._queue.submit(SwitchSpace(namespace, space.coming_space, name))
            if revision:
                self._await_replicas(look, revision)
                look.space, look.place = 0, _Place()
                _logger.info("searches of %s use %s from revision %d on", namespace, name, revision)
            return True
        found, place = await asyncio.to_thread(_without_vector, self._store, namespace, look.place)
        if found:
            vectors = await asyncio.to_thread(self._vectors, name, space.coming_dimension, found)
            await self._queue.submit(EmbedVersions(namespace, space.coming_space, vectors))
        look.has_found = look.has_found or bool(found)
        if place is not None:
            look.place = place
            return True
        # Writes that were on their way when the work began may be left for another look.
        has_found = look.has_found
        look.place, look.has_found = _Place(), False
        return has_found

    async def _clear(self, namespace: str, look: _Look) -> bool:
        if look.space:
            # The filling was stopped: nobody needs what there is.
            look.space, look.place = 0, _Place()
        is_shown = all(revision >= look.ended_revision for revision in self._searchable_revisions())
        if time.monotonic() < look.clear_at_s and not is_shown:
            return False
        ordinals, place = await asyncio.to_thread(_of_no_use, self._store, namespace, look.place)
        if ordinals or place is None:
            await self._queue.submit(ClearVectors(namespace, ordinals))
            if ordinals and place is None:
                await self._queue.submit(ClearVectors(namespace, ()))
        look.place = place or _Place()
        return True

    def _vectors(
        self, name: str, dimension: int, found: Sequence[tuple[int, str | None]]
    ) -> list[tuple[int, FloatVector]]:
        """In a thread: the vectors of contents, empty for None."""
        made = iter(self._embed(name, [content for _, content in found if content is not None]))
        vectors = [(ordinal, NO_VECTOR if content is None else next(made)) for ordinal, content in found]
        for _, vector in vectors:
            if len(vector) not in (0, dimension):
                raise FailedPrecondition(
                    "DIMENSION_MISMATCH",
                    f"the embedder {name!r} gives {len(vector)} dimensions now, and gave {dimension}: stop "
                    "the work and begin anew",
                )
        return vectors

    def _embed(self, name: str, texts: Sequence[str]) -> list[FloatVector]:
        embedder = self._embedders.named(name)
        return [NO_VECTOR if vector is None else vector for vector in embedder.embed(texts)] if texts else []


def _is_begun(space: NamespaceState) -> bool:
    return bool(space.coming_space) or space.is_clearing


def _without_vector(
    store: Store, namespace: str, place: _Place
) -> tuple[list[tuple[int, str | None]], _Place | None]:
    """Versions behind a place that lack their vector in the coming space, and the place behind them.

    Each with its content, None for a deletion; the place is None at the end.
    """
    found: list[tuple[int, str | None]] = []
    seen = size_bytes = 0
    with store.read() as transaction:
        space = transaction.namespace(namespace) or NamespaceState(number=0)
        behind = None
        for at, ordinal, record in _versions(transaction, namespace, place):
            behind = at
            if record is None:
                continue
            if seen == SCAN_CHUNK_RECORDS or len(found) == MAX_BATCH_TEXTS or size_bytes > MAX_BATCH_BYTES:
                break
            seen += 1
            if not transaction.has_other_vector(space, ordinal):
                content = None if record.is_tombstone else record.memory.content
                found.append((ordinal, content))
                size_bytes += len(content or "")
    return found, behind


def _of_no_use(store: Store, namespace: str, place: _Place) -> tuple[list[int], _Place | None]:
    """Versions behind a place that have a vector in the database that is not in use, and the place behind."""
    found: list[int] = []
    seen = 0
    with store.read() as transaction:
        space = transaction.namespace(namespace) or NamespaceState(number=0)
        behind = None
        for at, ordinal, record in _versions(transaction, namespace, place):
            behind = at
            if record is None:
                continue
            if seen == MAX_CLEARED_VECTORS:
                break
            seen += 1
            if transaction.has_other_vector(space, ordinal):
                found.append(ordinal)
    return found, behind


def _versions(
    transaction: ReadTransaction, namespace: str, place: _Place
) -> Iterator[tuple[_Place, int, Record | None]]:
    """Versions behind a place, of some more ids: the place to come back to for each, its ordinal and record.

    Behind the versions of each id comes the place behind it, without a record.
    """
    following = islice(transaction.ids(namespace, place.memory_id), SCAN_CHUNK_RECORDS)
    begun = [(place.memory_id, place.ordinal)] if place.ordinal else []
    states = ((memory_id, state.ordinal) for memory_id, state in following)
    for memory_id, newest in chain(begun, states):
        for ordinal, record in transaction.versions(newest):
            yield _Place(memory_id, ordinal), ordinal, record
        yield _Place(memory_id), 0, None
