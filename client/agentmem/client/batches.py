"""How gets, searches, adds, updates and deletions of one client travel together."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from agentmem.client import answers, errors, models, verdicts
from agentmem.client import consistency as consistencies
from agentmem.client.answers import GetResult, SearchResult
from agentmem.client.calls import Method
from agentmem.client.coalescing import MAX_REQUESTS, Again, Coalescer, Entry, Sized
from agentmem.client.consistency import Consistency
from agentmem.client.errors import AgentMemError, DeadlineExceeded, OutcomeUnknown, ServerError
from agentmem.client.routing import Router
from agentmem.client.selection import Bound, Route
from agentmem.client.verdicts import Verdict, WriteVerdict
from agentmem.client.write_path import Doubt
from agentmem.v1 import reader_pb2, writer_pb2

# After a node did not know a batch, none is sent for so long: until the cluster is upgraded.
UNKNOWN_S = 60.0

Request = TypeVar("Request", bound=Sized)
Result = TypeVar("Result")
WriteRequest = TypeVar(
    "WriteRequest",
    writer_pb2.AddMemoriesRequest,
    writer_pb2.UpdateMemoryRequest,
    writer_pb2.DeleteMemoriesRequest,
)
Batch = TypeVar("Batch", bound=Message)
Answer = TypeVar("Answer", bound=Message)
Error = TypeVar("Error", bound=AgentMemError)


def read_route(wanted: Consistency) -> Route:
    """Who answers a read, other than a search: the writer alone knows of every write."""
    return Route.WRITER if wanted.strong else Route.REPLICAS_THEN_WRITER


def bound_of(wanted: Consistency, *, is_search: bool = False) -> Bound:
    """What a node must have to answer, as far as the client can tell."""
    return Bound(
        revision=wanted.at_least.revision,
        is_search=is_search,
        is_fresh=wanted.strong or wanted.max_staleness is not None,
    )


class Batches:
    """The calls of one client that travel together."""

    def __init__(self, router: Router, *, coalesce: bool) -> None:
        counters = router.counters
        self.gets = Coalescer(_Gets(router), counters, is_enabled=coalesce)
        self.searches = Coalescer(_Searches(router), counters, is_enabled=coalesce)

        def writes(
            methods: _WriteMethods[WriteRequest, Batch, Answer, Result],
        ) -> Coalescer[WriteRequest, Result]:
            # There is one writer, which has more of a commit the more writes come at once.
            kind = _Writes(router, methods)
            return Coalescer(kind, counters, is_enabled=coalesce, least_requests=MAX_REQUESTS)

        self.adds = writes(_ADDS)
        self.updates = writes(_UPDATES)
        self.deletions = writes(_DELETIONS)


class Get(NamedTuple):
    """What one get asks for. A request is made for all that travel together."""

    namespace: str
    ids: Sequence[str]
    include_embedding: bool
    as_of: reader_pb2.AsOf | None

    def ByteSize(self) -> int:
        return sum(map(len, self.ids))

    def to_proto(self, ids: Iterable[str], wanted: Consistency) -> reader_pb2.GetMemoriesRequest:
        """The request for these ids, alike in all else."""
        return reader_pb2.GetMemoriesRequest(
            namespace=self.namespace,
            ids=ids,
            include_embedding=self.include_embedding,
            as_of=self.as_of,
            consistency=consistencies.to_proto(wanted),
        )


def get_entry(get: Get, wanted: Consistency, timeout_s: float, begun_at_s: float) -> Entry[Get, GetResult]:
    """A get. Those that differ in their ids alone, and in how far an answer must be, travel together."""
    at_least = wanted.at_least
    lane = (
        get.namespace,
        get.include_embedding,
        None if get.as_of is None else get.as_of.SerializeToString(),
        wanted.strong,
        wanted.max_staleness,
        at_least.revision > 0,
        at_least.epoch,
        _patience(timeout_s),
    )
    ids = get.ids
    # What the server refuses in one request would not show among the ids of others.
    is_apart = len(ids) != 1 and not 0 < len(set(ids)) == len(ids)
    return Entry(get, lane, len(ids), timeout_s, begun_at_s, wanted, is_apart=is_apart)


def search_entry(
    request: reader_pb2.SearchMemoriesRequest, wanted: Consistency, timeout_s: float, begun_at_s: float
) -> Entry[reader_pb2.SearchMemoriesRequest, SearchResult]:
    """A search. One that has to wait for a fresh answer, or for the past, holds up only others that do."""
    lane = (
        request.HasField("as_of"),
        wanted.strong,
        wanted.max_staleness is not None,
        wanted.at_least.revision > 0,
        _patience(timeout_s),
    )
    return Entry(request, lane, request.top_k, timeout_s, begun_at_s, wanted)


def write_entry(
    request: WriteRequest, items: int, needs_embedder: bool, timeout_s: float, begun_at_s: float
) -> Entry[WriteRequest, Any]:
    """A write of so many memories. One that waits for replicas, or an embedder, holds up only its like."""
    wanted = request.acknowledgement.SerializeToString() if request.HasField("acknowledgement") else None
    lane = (wanted, needs_embedder, _patience(timeout_s))
    return Entry(request, lane, items, timeout_s, begun_at_s)


def _patience(timeout_s: float) -> int:
    """Calls with about the same time travel together: a node that hangs may take half of a batch's time."""
    return math.frexp(timeout_s)[1]


def _furthest(entries: Sequence[Entry[Any, Any]]) -> Consistency:
    """What is new enough for all."""
    furthest = last = entries[0].consistency
    for entry in entries:
        # Mostly it is the same object, that of the client.
        if entry.consistency is not last:
            last = entry.consistency
            furthest &= last
    return furthest


def _own(error: Error) -> Error:
    """A copy for one caller: raising changes an error."""
    own = copy.copy(error)
    own.__cause__ = error
    return own


class _Reads(Generic[Request, Result]):
    """What gets and searches have in common."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._unknown_until_s = 0.0

    def can_send_together(self) -> bool:
        return time.monotonic() >= self._unknown_until_s

    def overdue(self, entry: Entry[Request, Result]) -> AgentMemError:
        return DeadlineExceeded(f"no answer within {entry.timeout_s:g} s")

    def of_its_own(self, entry: Entry[Request, Result], error: AgentMemError) -> AgentMemError:
        return _own(error)


class _Gets(_Reads[Get, GetResult]):
    async def alone(self, entry: Entry[Get, GetResult]) -> GetResult:
        request = entry.request.to_proto(entry.request.ids, entry.consistency)
        response = await self._read(request, entry.consistency, entry.timeout_s, entry.begun_at_s)
        return answers.get_result_from_proto(response)

    async def together(
        self, entries: Sequence[Entry[Get, GetResult]], deadline_s: float
    ) -> Sequence[GetResult | AgentMemError | Again]:
        wanted = _furthest(entries)
        ids = dict.fromkeys([id for entry in entries for id in entry.request.ids])
        request = entries[0].request.to_proto(ids, wanted)
        begun_at_s = time.monotonic()
        response = await self._read(request, wanted, max(0.0, deadline_s - begun_at_s), begun_at_s)
        found = {memory.id: memory for memory in response.memories}
        revision, epoch = response.applied_revision, response.epoch

        def outcome(ids: Sequence[str]) -> GetResult | AgentMemError:
            try:
                memories = [models.memory_from_proto(found[id]) for id in ids if id in found]
            except AgentMemError as error:
                return error
            missing = () if len(memories) == len(ids) else tuple([id for id in ids if id not in found])
            return GetResult(tuple(memories), missing, revision, epoch)

        return [outcome(entry.request.ids) for entry in entries]

    async def _read(
        self,
        request: reader_pb2.GetMemoriesRequest,
        wanted: Consistency,
        timeout_s: float,
        begun_at_s: float,
    ) -> reader_pb2.GetMemoriesResponse:
        return await self._router.read(
            lambda endpoint: endpoint.reader.GetMemories,
            request,
            route=read_route(wanted),
            timeout_s=timeout_s,
            bound=bound_of(wanted),
            hedged_as="get",
            begun_at_s=begun_at_s,
        )


class _Searches(_Reads[reader_pb2.SearchMemoriesRequest, SearchResult]):
    async def alone(self, entry: Entry[reader_pb2.SearchMemoriesRequest, SearchResult]) -> SearchResult:
        response = await self._router.read(
            lambda endpoint: endpoint.reader.SearchMemories,
            entry.request,
            # The writer cannot search; a replica asks it what a strong search has to show.
            route=Route.REPLICAS,
            timeout_s=entry.timeout_s,
            bound=bound_of(entry.consistency, is_search=True),
            hedged_as="search",
            is_retry=entry.is_retry,
            begun_at_s=entry.begun_at_s,
        )
        return answers.search_result_from_proto(response)

    async def together(
        self, entries: Sequence[Entry[reader_pb2.SearchMemoriesRequest, SearchResult]], deadline_s: float
    ) -> Sequence[SearchResult | AgentMemError | Again]:
        furthest = _furthest(entries)
        begun_at_s = time.monotonic()
        try:
            response = await self._router.read(
                lambda endpoint: endpoint.reader.BatchSearchMemories,
                reader_pb2.BatchSearchMemoriesRequest(requests=[entry.request for entry in entries]),
                route=Route.REPLICAS,
                timeout_s=max(0.0, deadline_s - begun_at_s),
                bound=bound_of(furthest, is_search=True),
                hedged_as="searches",
                begun_at_s=begun_at_s,
            )
        except ServerError as error:
            self._unknown_until_s = _unknown_until_s(error)
            raise
        return [
            self._found(entry, result)
            for entry, result in zip(entries, _checked(response.results, entries), strict=True)
        ]

    def _found(
        self,
        entry: Entry[reader_pb2.SearchMemoriesRequest, SearchResult],
        result: reader_pb2.BatchSearchResult,
    ) -> SearchResult | AgentMemError | Again:
        if result.WhichOneof("outcome") == "response":
            self._router.learn(result.response)
            return _outcome(lambda: answers.search_result_from_proto(result.response))
        error = errors.from_failure(result.failure)
        if verdicts.verdict(error) is Verdict.FINAL:
            return error
        # Another replica may have what it asks for, or be able to do it.
        entry.is_retry = verdicts.costs_a_retry(error)
        return Again.AGAIN


@dataclass(frozen=True, slots=True)
class _WriteMethods(Generic[WriteRequest, Batch, Answer, Result]):
    """How writes of one kind are sent.

    Attributes:
        batch: makes the request of several.
        result: makes what the caller gets of the answer to one.
    """

    alone: Method[WriteRequest, Answer]
    together: Method[Batch, Any]
    batch: Callable[[Sequence[WriteRequest]], Batch]
    result: Callable[[Answer], Result]


class _Writes(Generic[WriteRequest, Batch, Answer, Result]):
    """Each has a request id of its own, so a batch may be repeated as each of them may."""

    def __init__(self, router: Router, methods: _WriteMethods[WriteRequest, Batch, Answer, Result]) -> None:
        self._router = router
        self._methods: _WriteMethods[WriteRequest, Batch, Answer, Result] = methods
        self._unknown_until_s = 0.0

    def can_send_together(self) -> bool:
        return time.monotonic() >= self._unknown_until_s

    async def alone(self, entry: Entry[WriteRequest, Result]) -> Result:
        response = await self._router.write(
            self._methods.alone,
            entry.request,
            timeout_s=entry.timeout_s,
            request_id=entry.request.request_id,
            doubt=Doubt(entry.in_doubt),
            is_retry=entry.is_retry,
            begun_at_s=entry.begun_at_s,
        )
        return self._methods.result(response)

    async def together(
        self, entries: Sequence[Entry[WriteRequest, Result]], deadline_s: float
    ) -> Sequence[Result | AgentMemError | Again]:
        doubt = Doubt()
        begun_at_s = time.monotonic()
        try:
            response = await self._router.write(
                self._methods.together,
                self._methods.batch([entry.request for entry in entries]),
                timeout_s=max(0.0, deadline_s - begun_at_s),
                doubt=doubt,
                begun_at_s=begun_at_s,
            )
        except AgentMemError as error:
            self._unknown_until_s = _unknown_until_s(error)
            for entry in entries:
                entry.in_doubt = doubt.exists
            raise
        return [
            self._written(entry, result, doubt)
            for entry, result in zip(entries, _checked(response.results, entries), strict=True)
        ]

    def _written(
        self, entry: Entry[WriteRequest, Result], result: Any, doubt: Doubt
    ) -> Result | AgentMemError | Again:
        if result.WhichOneof("outcome") == "response":
            self._router.learn(result.response)
            return _outcome(lambda: self._methods.result(result.response))
        error = errors.from_failure(result.failure)
        verdict = verdicts.write_verdict(error, in_doubt=doubt.exists)
        if verdict is WriteVerdict.FINAL:
            return error
        entry.in_doubt = doubt.exists or verdict is WriteVerdict.IN_DOUBT
        entry.is_retry = verdicts.costs_a_retry(error)
        return Again.AGAIN

    def overdue(self, entry: Entry[WriteRequest, Result]) -> AgentMemError:
        return OutcomeUnknown(
            f"the write may or may not have been done: no answer within {entry.timeout_s:g} s",
            reason="OUTCOME_UNKNOWN",
            metadata={"request_id": entry.request.request_id},
        )

    def of_its_own(self, entry: Entry[WriteRequest, Result], error: AgentMemError) -> AgentMemError:
        own = _own(error)
        if isinstance(own, OutcomeUnknown):
            own.metadata = {**own.metadata, "request_id": entry.request.request_id}
        return own


_ADDS = _WriteMethods(
    lambda endpoint: endpoint.writer.AddMemories,
    lambda endpoint: endpoint.writer.BatchAddMemories,
    lambda requests: writer_pb2.BatchAddMemoriesRequest(requests=requests),
    answers.add_result_from_proto,
)
_UPDATES = _WriteMethods(
    lambda endpoint: endpoint.writer.UpdateMemory,
    lambda endpoint: endpoint.writer.BatchUpdateMemories,
    lambda requests: writer_pb2.BatchUpdateMemoriesRequest(requests=requests),
    answers.updated_memory_from_proto,
)
_DELETIONS = _WriteMethods(
    lambda endpoint: endpoint.writer.DeleteMemories,
    lambda endpoint: endpoint.writer.BatchDeleteMemories,
    lambda requests: writer_pb2.BatchDeleteMemoriesRequest(requests=requests),
    answers.delete_result_from_proto,
)


def _unknown_until_s(error: AgentMemError) -> float:
    """Until when no batch is sent after this error of one."""
    return time.monotonic() + UNKNOWN_S if error.code is grpc.StatusCode.UNIMPLEMENTED else 0.0


def _checked(results: Sequence[Result], entries: Sequence[object]) -> Sequence[Result]:
    if len(results) != len(entries):
        raise ServerError(f"the server answered {len(results)} requests of a batch of {len(entries)}")
    return results


def _outcome(convert: Callable[[], Result]) -> Result | AgentMemError:
    """The result, or the error of what this client does not understand."""
    try:
        return convert()
    except AgentMemError as error:
        return error
