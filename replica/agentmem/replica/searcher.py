"""Carrying out a search: the question's vector, the view, the memories of the hits, the answer's bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from agentmem.core.call_metrics import current_call
from agentmem.core.embedders import Embedders
from agentmem.core.errors import InvalidArgument, invalid_field
from agentmem.core.history import is_expired
from agentmem.core.layout import NamespaceState
from agentmem.core.memory_bytes import is_as_stored, memories_bytes
from agentmem.core.reading import checked_size
from agentmem.core.records import FloatVector
from agentmem.core.store import Store
from agentmem.core.times import now_us
from agentmem.replica.answer_cache import AnswerCache, Generation, generation_of
from agentmem.replica.observed_search import ObservedSearch
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.past_namespace import PastMovedError
from agentmem.replica.past_views import PastView
from agentmem.replica.replacements import replacements
from agentmem.replica.scopes import Scopes
from agentmem.replica.search import WORD_MODES, Mode, ScoredOrdinal, SearchQuery, search
from agentmem.replica.search_answers import answer_bytes, hit_bytes
from agentmem.replica.search_requests import explanation_of, query_of, signals_of
from agentmem.replica.selectivity import at_most, is_quick
from agentmem.replica.trace import Step, Trace
from agentmem.replica.view import View
from agentmem.v1 import memory_pb2, reader_pb2

# When what a search found has been removed meanwhile, it is repeated without that.
MAX_SEARCHES_AGAIN = 3
# A search by a given vector among so many takes less than a millisecond, and so does one by words, or by
# both, among fewer. The event loop can spare that; to hand it to a thread costs as much as most searches.
MAX_LIGHT_MEMORIES: dict[Mode, int] = {"semantic": 4_096, "text": 2_048, "hybrid": 2_048}
MAX_LIGHT_NS = 1_000_000
# Of several in a batch that indexes answer, two at a time do: these let go of the interpreter's lock.
MAX_LIGHT_TOGETHER_NS = 100_000
MAX_LIGHT_TEXT_CHARACTERS = 512
MAX_LIGHT_HITS = 100
NONE_GONE = OrdinalSet()


@dataclass(frozen=True, slots=True)
class Asked:
    """A search request, checked.

    Attributes:
        query: without vector and time.
        given: the embedding that came with it.
        key: by which its answer is kept; empty when it is not.
    """

    request: reader_pb2.SearchMemoriesRequest
    query: SearchQuery
    given: FloatVector | None
    observed: ObservedSearch
    key: bytes

    @classmethod
    def by(cls, request: reader_pb2.SearchMemoriesRequest) -> Asked:
        """Raises InvalidArgument, naming the field."""
        query, given = query_of(request)
        return cls(request, query, given, ObservedSearch(current_call()), _key(request))


class Searcher:
    """Searches the newest view, or one of the past. Any thread may call it.

    Args:
        applied_revision: of the store.
    """

    def __init__(
        self,
        store: Store,
        embedders: Embedders,
        *,
        view: Callable[[], View],
        applied_revision: Callable[[], int],
        answer_cache_bytes: int,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._view = view
        self._applied_revision = applied_revision
        self._answers = AnswerCache(answer_cache_bytes)
        self._scopes = Scopes()
        self.lookups = self._answers.lookups
        self.scope_lookups = self._scopes.lookups

    def is_light(self, asked: Asked, *, is_alone: bool = True) -> bool:
        """Whether the search surely takes no longer than the event loop may be held up.

        Args:
            is_alone: no others are to be answered with it.
        """
        query = asked.query
        most = MAX_LIGHT_MEMORIES.get(query.mode)
        if most is None or query.top_k > MAX_LIGHT_HITS or len(query.text) > MAX_LIGHT_TEXT_CHARACTERS:
            return False
        namespace = self._view().namespaces.get(query.namespace)
        if namespace is None:
            return True
        state = namespace.state
        is_embedded = query.mode != "text" and asked.given is None and bool(state.dimension)
        if is_embedded and not self._embedders.is_quick(self._embedders.name_of(state.model)):
            return False
        if query.filter is None and query.mode == "semantic" and namespace.vectors is not None:
            # The indexes may find it sooner than a scan of a few thousand would.
            live = len(namespace.live)
            most_ns = MAX_LIGHT_NS if is_alone else MAX_LIGHT_TOGETHER_NS
            return namespace.vectors.estimate(query.top_k, None, live).least_ns <= most_ns
        scope = None if query.scope_key is None else self._scopes.known(query.scope_key, namespace)
        if scope is not None:
            return scope.count <= most
        return is_quick(namespace, query.filter) and at_most(namespace, query.filter) <= most

    def known(self, asked: Asked) -> bytes | None:
        """The answer, when it was given before and would be the same now."""
        view = self._view()
        generation = self._generation(view, asked)
        if generation is None:
            return None
        hits = self._answers.find(asked.key, generation, time.monotonic())
        return None if hits is None else answer_bytes((hits,), view, None)

    def _keep(self, asked: Asked, view: View, found: Sequence[bytes]) -> None:
        generation = self._generation(view, asked)
        if generation is not None:
            self._answers.keep(asked.key, generation, b"".join(found), time.monotonic())

    def _generation(self, view: View, asked: Asked) -> Generation | None:
        """Of what may be kept and given out now: while nothing was written that the view does not show."""
        namespace = view.namespaces.get(asked.query.namespace)
        if not asked.key or namespace is None or self._applied_revision() != view.revision:
            return None
        return generation_of(view, namespace, asked.query)

    def answer(self, asked: Asked, past: PastView | None = None, steps: Sequence[Step] = ()) -> bytes:
        """A SearchMemoriesResponse, serialized.

        Args:
            steps: what was done before.

        Raises:
            PastMovedError: the store no longer has what a view of the past shows.
        """
        request, query, given, observed = asked.request, asked.query, asked.given, asked.observed
        observed.began()
        view, at_us = (self._view(), now_us()) if past is None else (past.view, past.time_us)
        namespace = view.namespaces.get(query.namespace)
        if namespace is None:
            explanation = explanation_of(Trace([*steps]), "") if query.explain else None
            return answer_bytes((), view, explanation)
        vector = None
        if query.mode not in WORD_MODES and (query.text or given is not None):
            vector = self._query_vector(namespace.state, query, given, observed)
        query.vector, query.now_us = vector, at_us
        model = "" if vector is None or given is not None else namespace.state.model
        for _ in range(MAX_SEARCHES_AGAIN):
            shown, trace = view, Trace([*steps])
            hits = search(view, query, trace, self._scopes if past is None else None)
            with trace.step("read") as step:
                found, gone = self._read(
                    namespace.state, hits, query, is_past=past is not None, request=request
                )
                step.memories = len(found)
            if not gone:
                break
            if past is not None:
                raise PastMovedError
            # They were deleted, and removed, since the view was made. The newest view may know.
            view = self._view()
            query = replace(query, excluded=query.excluded | gone)
        observed.ended(request, trace)
        if past is None and not gone:
            self._keep(asked, shown, found)
        return answer_bytes(found, shown, explanation_of(trace, model) if query.explain else None)

    def _read(
        self,
        space: NamespaceState,
        hits: Sequence[ScoredOrdinal],
        query: SearchQuery,
        *,
        is_past: bool,
        request: reader_pb2.SearchMemoriesRequest,
    ) -> tuple[list[bytes], OrdinalSet]:
        """The hits with their memories, and the ordinals that the store has no more.

        A version that was replaced, and removed by retention, since the view was made is shown as what
        replaced it, when that matches the filter too.

        Args:
            space: the namespace, as the view has it.
        """
        ordinals = [hit.ordinal for hit in hits]
        memories: list[bytes | None] = [None] * len(hits)
        if is_as_stored(space) and not request.include_embedding:
            memories = self._store.memories.find(ordinals)
        missing = [ordinal for ordinal, each in zip(ordinals, memories, strict=True) if each is None]
        if missing:
            stored = iter(self._stored(missing, query, is_past=is_past, request=request))
            memories = [next(stored) if each is None else each for each in memories]
        checked_size(0, sum(len(memory) for memory in memories if memory is not None), "top_k")
        found = [
            hit_bytes(memory, hit.score, signals_of(hit) if query.explain else None)
            for hit, memory in zip(hits, memories, strict=True)
            if memory is not None
        ]
        if len(found) == len(hits):
            return found, NONE_GONE
        gone = [ordinal for ordinal, each in zip(ordinals, memories, strict=True) if each is None]
        return found, OrdinalSet(gone)

    def _stored(
        self,
        ordinals: Sequence[int],
        query: SearchQuery,
        *,
        is_past: bool,
        request: reader_pb2.SearchMemoriesRequest,
    ) -> list[bytes | None]:
        """The memories at some ordinals, or what replaced them; None where there is neither."""
        size_bytes = 0
        memories: list[bytes | None] = []
        with self._store.read() as transaction:
            read = partial(
                memories_bytes,
                transaction,
                transaction.namespace(query.namespace),
                known=self._store.memories,
                include_embedding=request.include_embedding,
            )
            for memory in read(ordinals):
                size_bytes = checked_size(size_bytes, len(memory or b""), "top_k")
                memories.append(memory)
            removed = [ordinal for ordinal, each in zip(ordinals, memories, strict=True) if each is None]
            if removed and not is_past:
                newest = replacements(transaction, removed)
                for ordinal, memory in zip(newest, read([*newest.values()]), strict=True):
                    if memory is not None and _matches(query, memory):
                        memories[ordinals.index(ordinal)] = memory
        return memories

    def _query_vector(
        self, space: NamespaceState, query: SearchQuery, given: FloatVector | None, observed: ObservedSearch
    ) -> FloatVector | None:
        """The question as a vector of the namespace's space; None when the namespace has no vectors."""
        if not space.dimension:
            return None
        if given is not None:
            if len(given) != space.dimension:
                raise InvalidArgument(
                    "DIMENSION_MISMATCH",
                    f"embedding has {len(given)} dimensions; the namespace has {space.dimension}",
                    field="embedding",
                    dimension=str(space.dimension),
                )
            return given
        name = self._embedders.name_of(space.model)
        if not name:
            raise self._embedders.required(space, "send one, or search with mode TEXT")
        with observed.embedding():
            (vector,) = self._embedders.named(name).embed([query.text])
        if vector is not None and len(vector) != space.dimension:
            raise self._embedders.required(space, "send one, or search with mode TEXT")
        if vector is None and query.mode == "semantic":
            raise invalid_field("text", "has no words that the embedder knows")
        return vector


def _key(request: reader_pb2.SearchMemoriesRequest) -> bytes:
    """The request without its consistency, of which the caller has made sure; empty for one that explains."""
    if request.explain:
        return b""
    if request.HasField("consistency"):
        copy = reader_pb2.SearchMemoriesRequest()
        copy.CopyFrom(request)
        copy.ClearField("consistency")
        request = copy
    return request.SerializeToString(deterministic=True)


def _matches(query: SearchQuery, encoded: bytes) -> bool:
    memory = memory_pb2.Memory.FromString(encoded)
    return not is_expired(memory, query.now_us) and (query.filter is None or query.filter.matches(memory))
