"""When a write is answered: once it is on the writer's disk, and, if asked for, on replicas too.

What waits here is committed already and holds nothing up. It is woken by the report of a replica, and not
before it is reached.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import grpc

from agentmem.core.call_metrics import stage
from agentmem.core.deadlines import allowed_wait_s
from agentmem.core.errors import ResourceExhausted, invalid_field
from agentmem.core.times import duration_us
from agentmem.server.membership import Membership
from agentmem.v1 import consistency_pb2, writer_pb2

MAX_WAITING_WRITES = 4096
RETRY_AFTER_S = 0.2
MAX_REPLICAS = 100
DEFAULT_TIMEOUT_S = 5.0
MAX_TIMEOUT_S = 60.0
_LOCAL_LEVELS = (
    consistency_pb2.ACKNOWLEDGEMENT_LEVEL_UNSPECIFIED,
    consistency_pb2.ACKNOWLEDGEMENT_LEVEL_LOCAL,
)

AcknowledgedRequest: TypeAlias = (
    writer_pb2.AddMemoriesRequest
    | writer_pb2.UpdateMemoryRequest
    | writer_pb2.DeleteMemoriesRequest
    | writer_pb2.ImportMemoriesRequest
    | writer_pb2.UpdateNamespaceRequest
    | writer_pb2.ReembedNamespaceRequest
)
R = TypeVar(
    "R",
    writer_pb2.AddMemoriesResponse,
    writer_pb2.UpdateMemoryResponse,
    writer_pb2.DeleteMemoriesResponse,
    writer_pb2.ImportMemoriesResponse,
    writer_pb2.UpdateNamespaceResponse,
    writer_pb2.ReembedNamespaceResponse,
)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A committed write.

    Attributes:
        replicas: how many have to have it.
        in_searches: whether their searches have to show it, too.
        answer: how far it was when it was far enough.
    """

    revision: int
    replicas: int
    in_searches: bool
    answer: asyncio.Future[consistency_pb2.Acknowledged]


class LocalAcknowledgement:
    """Of a write that is answered once it is on the writer's disk.

    Attributes:
        waits: whether it may take its time to be completed.
    """

    waits = False

    def __enter__(self) -> LocalAcknowledgement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def complete(self, response: R) -> R:
        """The response of the committed write, to be sent now."""
        return response


class ReplicaAcknowledgement(LocalAcknowledgement):
    """Of a write that waits for replicas. Has its place among those that wait for the length of ``with``."""

    waits = True

    def __init__(
        self,
        acknowledgements: Acknowledgements,
        wanted: consistency_pb2.Acknowledgement,
        timeout_s: float,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        self._acknowledgements = acknowledgements
        self._wanted = wanted
        self._timeout_s = timeout_s
        self._context = context

    def __enter__(self) -> ReplicaAcknowledgement:
        self._acknowledgements.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._acknowledgements.leave()

    async def complete(self, response: R) -> R:
        """The response, once its revision is where it was to come, or cannot be there in time."""
        waiting = _Waiting(
            revision=response.revision,
            replicas=self._wanted.replicas or 1,
            in_searches=self._wanted.level == consistency_pb2.ACKNOWLEDGEMENT_LEVEL_APPLIED,
            answer=asyncio.get_running_loop().create_future(),
        )
        # The deadline of the call holds for the commit and the wait together.
        wait_s = allowed_wait_s(self._context, self._timeout_s)
        with stage("replicas"):
            response.acknowledged.CopyFrom(await self._acknowledgements.wait(waiting, wait_s))
        return response


LOCAL = LocalAcknowledgement()


class Acknowledgements:
    """The writes that wait for replicas. Belongs to the event loop of the membership."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._places = 0
        self._waiting: set[_Waiting] = set()
        self._closing = False
        membership.on_progress = self._wake
        membership.is_awaited = lambda: self._places > 0

    def begin(
        self, request: AcknowledgedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> LocalAcknowledgement:
        """Takes the acknowledgement that is wanted out of the request: it changes nothing of what is written.

        Raises:
            InvalidArgument: it makes no sense.
        """
        if not request.HasField("acknowledgement"):
            return LOCAL
        wanted = consistency_pb2.Acknowledgement()
        wanted.CopyFrom(request.acknowledgement)
        request.ClearField("acknowledgement")
        timeout_s = _checked_timeout_s(wanted)
        if wanted.level in _LOCAL_LEVELS:
            return LOCAL
        return ReplicaAcknowledgement(self, wanted, timeout_s, context)

    def enter(self) -> None:
        """Takes a place among those that wait, before anything is written.

        Raises:
            ResourceExhausted: ``OVERLOADED``, there is none.
        """
        if self._places >= MAX_WAITING_WRITES:
            raise ResourceExhausted(
                "OVERLOADED", f"{self._places} writes wait for replicas", retry_after_s=RETRY_AFTER_S
            )
        self._places += 1

    def leave(self) -> None:
        self._places -= 1

    async def wait(self, waiting: _Waiting, wait_s: float) -> consistency_pb2.Acknowledged:
        """How far a committed write is: once it is far enough, the time is over, or the writer shuts down."""
        acknowledged = self._acknowledged(waiting)
        if acknowledged.reached or self._closing:
            return acknowledged
        self._waiting.add(waiting)
        try:
            await asyncio.wait((waiting.answer,), timeout=wait_s)
        finally:
            self._waiting.discard(waiting)
        return waiting.answer.result() if waiting.answer.done() else self._acknowledged(waiting)

    def _acknowledged(self, waiting: _Waiting) -> consistency_pb2.Acknowledged:
        progress = self._membership.progress()
        replicated = sum(applied >= waiting.revision for applied, _ in progress)
        applied = sum(searchable >= waiting.revision for _, searchable in progress)
        return consistency_pb2.Acknowledged(
            reached=(applied if waiting.in_searches else replicated) >= waiting.replicas,
            replicated=replicated,
            applied=applied,
        )

    def _wake(self) -> None:
        """Answers what is far enough now."""
        # The newest revision that so many replicas have; there are few different wishes.
        newest: dict[tuple[int, bool], int] = {}
        for waiting in self._waiting:
            wish = (waiting.replicas, waiting.in_searches)
            if wish not in newest:
                newest[wish] = self._newest_reached(*wish)
            if waiting.revision <= newest[wish] and not waiting.answer.done():
                waiting.answer.set_result(self._acknowledged(waiting))

    def _newest_reached(self, replicas: int, in_searches: bool) -> int:
        revisions = sorted((each[in_searches] for each in self._membership.progress()), reverse=True)
        return revisions[replicas - 1] if len(revisions) >= replicas else -1

    def close(self) -> None:
        """Answers what waits, and what is still to come, with what is known."""
        self._closing = True
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_result(self._acknowledged(waiting))


def _checked_timeout_s(wanted: consistency_pb2.Acknowledgement) -> float:
    """How long to wait. Raises InvalidArgument for an acknowledgement that makes no sense."""
    if wanted.level not in consistency_pb2.AcknowledgementLevel.values():
        raise invalid_field("acknowledgement.level", f"has no meaning for {wanted.level}")
    if not 0 <= wanted.replicas <= MAX_REPLICAS:
        raise invalid_field("acknowledgement.replicas", f"must be 1 to {MAX_REPLICAS}, or 0 for 1")
    timeout_s = DEFAULT_TIMEOUT_S
    if wanted.HasField("timeout"):
        timeout_s = duration_us(wanted.timeout) / 1_000_000
    if not 0 <= timeout_s <= MAX_TIMEOUT_S:
        raise invalid_field("acknowledgement.timeout", f"must be 0 to {MAX_TIMEOUT_S:g} s")
    if wanted.level in _LOCAL_LEVELS:
        for name in ("replicas", "timeout"):
            if any(field.name == name for field, _ in wanted.ListFields()):
                raise invalid_field(f"acknowledgement.{name}", "needs a level above LOCAL")
    return timeout_s
