"""The way of a write of memories: checked, embedded, committed, acknowledged; alone or in a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import grpc

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.errors import AgentMemError, answerable
from agentmem.core.validation import check_batch
from agentmem.server.acknowledgement import LOCAL, Acknowledgements, LocalAcknowledgement
from agentmem.server.commands import Command
from agentmem.server.commit_queue import CommitQueue
from agentmem.server.embedding import (
    MAX_EMBEDDINGS_AGAIN,
    EmbeddingOutdated,
    Made,
    TextEmbedder,
    Wish,
)
from agentmem.v1 import writer_pb2

# What is larger is checked in a thread: it would hold up the event loop.
MAX_INLINE_BYTES = 64 * 1024

Request = TypeVar(
    "Request",
    writer_pb2.AddMemoriesRequest,
    writer_pb2.UpdateMemoryRequest,
    writer_pb2.DeleteMemoriesRequest,
)
Response = TypeVar(
    "Response",
    writer_pb2.AddMemoriesResponse,
    writer_pb2.UpdateMemoryResponse,
    writer_pb2.DeleteMemoriesResponse,
)


@dataclass(slots=True)
class Write(Generic[Response]):
    """A request that was checked.

    Attributes:
        command: what is to be committed, by what was made of its texts.
        wish: its texts; None when it has none.
        made: for each text, what was made of it; empty when nobody was asked.
    """

    command: Callable[[Sequence[Made]], Command[Response]]
    wish: Wish | None = None
    made: Sequence[Made] = ()
    acknowledgement: LocalAcknowledgement = LOCAL


# Checks requests; of each the write, or what is wrong with it.
Check: TypeAlias = Callable[[Sequence[Request]], list[Write[Response] | Exception]]


class Writing:
    """Carries out checked requests."""

    def __init__(
        self,
        queue: CommitQueue,
        embedder: TextEmbedder,
        threads: BoundedThreads,
        acknowledgements: Acknowledgements,
    ) -> None:
        self._queue = queue
        self._embedder = embedder
        self._threads = threads
        self._acknowledgements = acknowledgements

    async def alone(
        self,
        request: Request,
        context: grpc.aio.ServicerContext[Any, Any],
        check: Check[Request, Response],
    ) -> Response:
        """Carries out one request."""
        with self._acknowledgements.begin(request, context) as acknowledgement:
            (write,) = await self._checked(check, [request], request.ByteSize())
            if isinstance(write, Exception):
                raise write
            write.acknowledgement = acknowledgement
            if write.wish is not None and not write.wish.is_given:
                write.made = await self._embedder.embed(write.wish)
            (outcome,) = await self._queue.submit_each([write.command(write.made)])
            return await self._completed(write, outcome)

    async def batch(
        self,
        method: str,
        batch: Any,
        context: grpc.aio.ServicerContext[Any, Any],
        check: Check[Request, Response],
        results: Any,
    ) -> None:
        """Carries out the requests of a batch in their order, each as if alone, and adds their results.

        Their texts are embedded together, and they are committed together. (One that finds other embeddings
        in its namespace then is embedded again, and carried out behind the others.)
        """
        check_batch(len(batch.requests), "requests")
        with ExitStack() as held:
            begun = [self._begun(request, context, held) for request in batch.requests]
            sound = [
                request
                for request, each in zip(batch.requests, begun, strict=True)
                if not isinstance(each, Exception)
            ]
            checked = iter(await self._checked(check, sound, batch.ByteSize()))
            writes: list[Write[Response] | AgentMemError] = []
            for each in begun:
                write = each if isinstance(each, Exception) else next(checked)
                if isinstance(write, Exception):
                    writes.append(answerable(write, method))
                    continue
                assert isinstance(each, LocalAcknowledgement)
                write.acknowledgement = each
                writes.append(write)
            await self._embed(writes)
            outcomes = await self._committed(method, writes)
        for outcome in outcomes:
            result = results.add()
            if isinstance(outcome, AgentMemError):
                result.failure.CopyFrom(outcome.to_failure())
            else:
                result.response.CopyFrom(outcome)

    def _begun(
        self, request: Request, context: grpc.aio.ServicerContext[Any, Any], held: ExitStack
    ) -> LocalAcknowledgement | Exception:
        """The acknowledgement of a request, or its error."""
        try:
            acknowledgement = self._acknowledgements.begin(request, context)
            return held.enter_context(acknowledgement) if acknowledgement.waits else acknowledgement
        except Exception as error:
            return error

    async def _checked(
        self, check: Check[Request, Response], requests: Sequence[Request], size_bytes: int
    ) -> Sequence[Write[Response] | Exception]:
        if size_bytes > MAX_INLINE_BYTES:
            try:
                return await self._threads.run(check, requests)
            except AgentMemError as error:
                return [error] * len(requests)
        return check(requests)

    async def _embed(self, writes: list[Write[Response] | AgentMemError]) -> None:
        """Gives the writes what is made of their texts; an error takes the place of one that gets nothing."""
        wishes = [
            (place, each.wish)
            for place, each in enumerate(writes)
            if isinstance(each, Write) and each.wish is not None
        ]
        filling = self._embedder.filling({wish.namespace for _, wish in wishes if wish.is_given})
        waiting = [(place, wish) for place, wish in wishes if not wish.is_given or wish.namespace in filling]
        outcomes = await self._embedder.embed_each([wish for _, wish in waiting])
        for (place, _), outcome in zip(waiting, outcomes, strict=True):
            write = writes[place]
            if isinstance(outcome, AgentMemError):
                writes[place] = outcome
            elif isinstance(write, Write):
                write.made = outcome

    async def _committed(
        self, method: str, writes: Sequence[Write[Response] | AgentMemError]
    ) -> Sequence[Response | AgentMemError]:
        """Commits the writes; the outcome of each, once it may be answered."""
        commands = [write.command(write.made) for write in writes if isinstance(write, Write)]
        committed = iter(await self._queue.submit_each(commands))
        outcomes = [next(committed) if isinstance(write, Write) else write for write in writes]
        # A task for each would cost more than what most of them have to do.
        tasks = {
            place: asyncio.create_task(self._completed(write, outcome))
            for place, (write, outcome) in enumerate(zip(writes, outcomes, strict=True))
            if isinstance(write, Write)
            and (write.acknowledgement.waits or isinstance(outcome, EmbeddingOutdated))
        }
        completed = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for place, outcome in zip(tasks, completed, strict=True):
            outcomes[place] = _answerable(outcome, method) if isinstance(outcome, BaseException) else outcome
        return outcomes

    async def _completed(self, write: Write[Response], outcome: Response | AgentMemError) -> Response:
        """The answer, once it may be sent.

        Args:
            outcome: of its first way through the commit queue.
        """
        attempts = 0
        while (
            isinstance(outcome, EmbeddingOutdated)
            and write.wish is not None
            and attempts < MAX_EMBEDDINGS_AGAIN
        ):
            attempts += 1
            write.made = await self._embedder.embed(write.wish)
            (outcome,) = await self._queue.submit_each([write.command(write.made)])
        if isinstance(outcome, AgentMemError):
            raise outcome
        return await write.acknowledgement.complete(outcome)


def attempted(checks: Iterable[Callable[[], Write[Response]]]) -> list[Write[Response] | Exception]:
    """The write that each check returns, or the error that it raises."""
    found: list[Write[Response] | Exception] = []
    for check in checks:
        try:
            found.append(check())
        except Exception as error:
            found.append(error)
    return found


def _answerable(error: BaseException, method: str) -> AgentMemError:
    """The error of one request; raises what is not of the request."""
    if not isinstance(error, Exception):
        raise error
    return answerable(error, method)
