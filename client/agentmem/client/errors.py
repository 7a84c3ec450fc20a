"""Every error that the client raises.

    AgentMemError
    ├── InvalidArgument       the request can never work as it is (also raised before anything is sent)
    │   └── FilterSyntaxError a filter that was given as text cannot be read
    ├── FailedPrecondition    the node or the namespace that was asked cannot do it
    │   ├── HistoryPruned     retention has removed what was asked for
    │   └── RevisionLost      a promotion left behind what a session, or at_least(...), asks for
    ├── NotFound              there is no such memory, receipt or snapshot
    ├── AlreadyExists         a memory with this id exists
    ├── VersionMismatch       the memory is not at the expected version any more
    ├── ResourceExhausted     the server is overloaded, its store is full, or a message is too large
    ├── Unavailable           no node could answer; it names the nodes tried and what each said
    │   └── OutcomeUnknown    no answer to a write in time: it may or may not have been done
    ├── DeadlineExceeded      no answer to a read in time
    ├── DataLoss              stored bytes fail their checksum
    ├── ServerError           a fault of the server, or an answer that this client does not understand
    └── ClientClosed          the client was closed before or during the call

A server sends google.rpc.Status with one ErrorInfo{reason, domain "agentmem", metadata}. The status code
chooses the class and the reason says more: ``except InvalidArgument as error: error.reason ==
"FILTER_UNSUPPORTED"``, or ``"REQUEST_ID_REUSED"``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from agentmem.v1 import failure_pb2

DOMAIN = "agentmem"
# Of a filter that cannot be read, on either side of the place.
_SHOWN_CHARACTERS = 60
_STATUS_KEY = "grpc-status-details-bin"


class AgentMemError(Exception):
    """The root of all errors of this package.

    Attributes:
        message: one sentence for people.
        reason: UPPER_SNAKE_CASE for programs, stable across releases, never empty.
        metadata: details for programs, such as ``field`` or ``writer_address``.
        code: the gRPC status code that the error has or would have.
        retry_after_s: the wait in seconds that the server advises, if it does.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason or self.code.name
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InvalidArgument(AgentMemError):
    """The request can never work as it is; ``metadata["field"]`` names the field where there is one."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class FilterSyntaxError(InvalidArgument):
    """A filter that was given as text cannot be read; str() shows the place, with a caret below it.

    Attributes:
        problem: what is wrong there, without the place.
        text: what was to be read.
        position: the place in it, counted in characters from 0; its length is the end.
    """

    def __init__(self, problem: str, text: str, position: int) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        where = f"column {column}" if "\n" not in text else f"line {line}, column {column}"
        super().__init__(
            f"filter, {where}: {problem}\n{_pointed(text, position)}",
            reason="FILTER_SYNTAX",
            metadata={"field": "filter", "position": str(position)},
        )
        self.problem, self.text, self.position = problem, text, position

    def __reduce__(self) -> tuple[Any, ...]:
        # That of Exception would call it with the message alone.
        return FilterSyntaxError, (self.problem, self.text, self.position)


def _pointed(text: str, position: int) -> str:
    """The surroundings of a place in its line, and below them a caret under it."""
    start = max(text.rfind("\n", 0, position) + 1, position - _SHOWN_CHARACTERS)
    shown = text[start : position + _SHOWN_CHARACTERS].split("\n")[0].rstrip("\r").replace("\t", " ")
    # Chinese, Japanese and Korean characters are two columns wide, and accents of their own none.
    before = sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in shown[: position - start]
    )
    return f"  {shown}\n  {' ' * before}^"


class FailedPrecondition(AgentMemError):
    """The node or the namespace that was asked cannot do it, such as an embedding of another dimension."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class HistoryPruned(FailedPrecondition):
    """Retention has removed a version that would be in the answer: ``as_of`` reaches too far back."""


class RevisionLost(FailedPrecondition):
    """A promotion left behind a revision that the read must show: what was seen there is not in the cluster.

    The caller decides what that means; a new session begins with what is there now.
    """


class NotFound(AgentMemError):
    """There is no such memory (MEMORY_NOT_FOUND), or no receipt of such a purge (RECEIPT_NOT_FOUND)."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(AgentMemError):
    """A memory with this id exists; none of the batch was added."""

    code = grpc.StatusCode.ALREADY_EXISTS


class VersionMismatch(AgentMemError):
    """The memory is not at the expected version any more: read it again and decide anew."""

    code = grpc.StatusCode.ABORTED


class ResourceExhausted(AgentMemError):
    """The server is overloaded (OVERLOADED), its store is full (STORE_FULL), or a message is too large."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(AgentMemError):
    """No node could answer.

    Attributes:
        attempts: what each node tried said last, by its address.
    """

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
        attempts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, code=code, retry_after_s=retry_after_s)
        self.attempts: Mapping[str, str] = dict(attempts or {})


class OutcomeUnknown(Unavailable):
    """A write was sent and no answer came in time, however often it was repeated: it may have been done.

    The same call with ``request_id=error.metadata["request_id"]`` finds out: it is done once at most. An
    import has none; it can be repeated with ``on_conflict="skip"``.
    """


class DeadlineExceeded(AgentMemError):
    """No answer to a read in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class DataLoss(AgentMemError):
    """Stored bytes fail their checksum."""

    code = grpc.StatusCode.DATA_LOSS


class ServerError(AgentMemError):
    """A fault of the server, or an answer that this client does not understand."""

    code = grpc.StatusCode.INTERNAL


class ClientClosed(AgentMemError):
    """The client was closed before or during the call."""

    code = grpc.StatusCode.CANCELLED


_CLASS_OF_CODE: Mapping[grpc.StatusCode, type[AgentMemError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        FailedPrecondition,
        NotFound,
        AlreadyExists,
        VersionMismatch,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        DataLoss,
        ServerError,
    )
} | {
    # A server that stops cancels what it could not finish.
    grpc.StatusCode.CANCELLED: Unavailable,
}


# Where a program acts otherwise than on the other errors of the code.
_CLASS_OF_REASON: Mapping[str, type[AgentMemError]] = {
    "HISTORY_PRUNED": HistoryPruned,
    "REVISION_LOST": RevisionLost,
}


def invalid_field(field: str, problem: str) -> InvalidArgument:
    """The error for an argument that is refused before anything is sent."""
    return InvalidArgument(f"{field} {problem}", reason="INVALID_FIELD", metadata={"field": field})


def from_rpc_error(error: grpc.aio.AioRpcError) -> AgentMemError:
    """The error that a failed call stands for."""
    status = b""
    trailers: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == _STATUS_KEY and isinstance(value, bytes):
            status = value
    return from_status(error.code(), error.details() or "", status)


def from_status(code: grpc.StatusCode, details: str, status_bytes: bytes) -> AgentMemError:
    """The error for a status code, its text, and the serialized google.rpc.Status (empty if there was none).

    Without a readable Status, or with details of another domain, the reason is the name of the code.
    """
    kind = _CLASS_OF_CODE.get(code, ServerError)
    status = status_pb2.Status()
    try:
        status.ParseFromString(status_bytes)
    except DecodeError:
        # A proxy may cut or rewrite trailers; the code and its text still say enough.
        status.Clear()
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    reason, metadata, retry_after_s = "", {}, None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info):
            if info.domain == DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    message = status.message or details or code.name
    kind = _CLASS_OF_REASON.get(reason, kind)
    return kind(message, reason=reason, metadata=metadata, code=code, retry_after_s=retry_after_s)


_CODE_OF_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_failure(failure: failure_pb2.Failure) -> AgentMemError:
    """The error for one request of a batch that failed: the one that the call alone would have raised."""
    code = _CODE_OF_NUMBER.get(failure.code, grpc.StatusCode.UNKNOWN)
    kind = _CLASS_OF_REASON.get(failure.reason, _CLASS_OF_CODE.get(code, ServerError))
    has_retry = failure.HasField("retry_after")
    return kind(
        failure.message or code.name,
        reason=failure.reason,
        metadata=dict(failure.metadata),
        code=code,
        retry_after_s=failure.retry_after.ToTimedelta().total_seconds() if has_retry else None,
    )


def from_server(error: AgentMemError) -> bool:
    """Whether an AgentMem server gave the error, and not a connection or a proxy on the way."""
    return error.reason != error.code.name
