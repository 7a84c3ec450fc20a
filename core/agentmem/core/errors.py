"""Every error a server answers with, and its form on the wire.

    AgentMemError
    ├── InvalidArgument       INVALID_ARGUMENT     the request can never work as it is
    ├── FailedPrecondition    FAILED_PRECONDITION  this node or this namespace cannot do it
    ├── NotFound              NOT_FOUND
    ├── AlreadyExists         ALREADY_EXISTS
    ├── VersionMismatch       ABORTED
    ├── ResourceExhausted     RESOURCE_EXHAUSTED   come back later, or make room
    ├── Unavailable           UNAVAILABLE          another node, or this one later
    ├── DataLoss              DATA_LOSS            stored bytes fail their checksum
    └── InternalError         INTERNAL             a mistake in the server

On the wire an error is a google.rpc.Status with one ErrorInfo{reason, domain, metadata}, and a RetryInfo
where waiting helps. The translation is done in one place, ``agentmem.core.serving``. Of a request in a
batch it is a Failure with the same contents.
"""

from __future__ import annotations

import logging

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from agentmem.v1 import failure_pb2

DOMAIN = "agentmem"
# Details travel in HTTP/2 headers, of which clients take 8 KiB; what a caller sent may be longer.
MAX_DETAIL_CHARACTERS = 256

_logger = logging.getLogger(__name__)


class AgentMemError(Exception):
    """An error with a reason that programs can act on.

    Args:
        reason: UPPER_SNAKE_CASE, stable across releases.
        message: one sentence for people; says what to do where that is known.
        retry_after_s: when set, the wait that the client is advised.
        metadata: details for programs, such as ``field`` or ``writer_address``.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self, reason: str, message: str, *, retry_after_s: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = _cut(message)
        self.retry_after_s = retry_after_s
        self.metadata = metadata

    def to_status(self) -> status_pb2.Status:
        """The error as google.rpc.Status."""
        details = [any_pb2.Any()]
        details[0].Pack(
            error_details_pb2.ErrorInfo(
                reason=self.reason,
                domain=DOMAIN,
                metadata={name: _cut(value) for name, value in self.metadata.items()},
            )
        )
        if self.retry_after_s is not None:
            details.append(any_pb2.Any())
            details[1].Pack(error_details_pb2.RetryInfo(retry_delay=_duration(self.retry_after_s)))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=details)

    def to_failure(self) -> failure_pb2.Failure:
        """The same as the outcome of one request of a batch."""
        return failure_pb2.Failure(
            code=self.code.value[0],
            message=self.message,
            reason=self.reason,
            metadata={name: _cut(value) for name, value in self.metadata.items()},
            retry_after=None if self.retry_after_s is None else _duration(self.retry_after_s),
        )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(int(seconds * 1000))
    return duration


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARACTERS else f"{text[:MAX_DETAIL_CHARACTERS]}…"


class InternalError(AgentMemError):
    code = grpc.StatusCode.INTERNAL


class InvalidArgument(AgentMemError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class FailedPrecondition(AgentMemError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class NotFound(AgentMemError):
    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(AgentMemError):
    code = grpc.StatusCode.ALREADY_EXISTS


class VersionMismatch(AgentMemError):
    code = grpc.StatusCode.ABORTED


class ResourceExhausted(AgentMemError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(AgentMemError):
    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(AgentMemError):
    code = grpc.StatusCode.DATA_LOSS


def invalid_field(field: str, problem: str) -> InvalidArgument:
    """The error for a request field with a value that is not allowed."""
    return InvalidArgument("INVALID_FIELD", f"{field} {problem}", field=field)


def answerable(error: Exception, method: str) -> AgentMemError:
    """The error to answer with. What nobody expected is logged, and answered without its details."""
    if isinstance(error, AgentMemError):
        return error
    _logger.error("%s failed unexpectedly", method, exc_info=error)
    return InternalError("INTERNAL", f"unexpected {type(error).__name__}; the server's log has more")
