"""From the status of a failed call to the exception that a caller sees."""

from __future__ import annotations

import re

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentmem import client
from agentmem.client import errors


def status(message: str, *details: Message) -> bytes:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    serialized: bytes = status_pb2.Status(message=message, details=packed).SerializeToString()
    return serialized


def info(reason: str, domain: str = "agentmem", **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, client.InvalidArgument),
        (grpc.StatusCode.FAILED_PRECONDITION, client.FailedPrecondition),
        (grpc.StatusCode.NOT_FOUND, client.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, client.AlreadyExists),
        (grpc.StatusCode.ABORTED, client.VersionMismatch),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, client.ResourceExhausted),
        (grpc.StatusCode.UNAVAILABLE, client.Unavailable),
        (grpc.StatusCode.CANCELLED, client.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, client.DeadlineExceeded),
        (grpc.StatusCode.DATA_LOSS, client.DataLoss),
        (grpc.StatusCode.INTERNAL, client.ServerError),
        (grpc.StatusCode.UNKNOWN, client.ServerError),
        (grpc.StatusCode.UNIMPLEMENTED, client.ServerError),
        (grpc.StatusCode.PERMISSION_DENIED, client.ServerError),
    ],
    ids=str,
)
def test_each_code_with_and_without_details(
    code: grpc.StatusCode, expected: type[client.AgentMemError]
) -> None:
    bare = errors.from_status(code, "as grpc says it", b"")
    assert type(bare) is expected
    assert (bare.code, bare.reason, bare.message) == (code, code.name, "as grpc says it")
    assert bare.metadata == {}
    assert not errors.from_server(bare)

    full = errors.from_status(code, "cut off", status("as we say it", info("SOME_REASON", field="x")))
    assert type(full) is expected
    assert (full.code, full.reason, full.message) == (code, "SOME_REASON", "as we say it")
    assert str(full) == "as we say it"
    assert full.metadata == {"field": "x"}
    assert errors.from_server(full)


def test_the_advised_wait() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000))
    error = errors.from_status(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "", status("full", retry, info("OVERLOADED"))
    )
    assert (error.reason, error.retry_after_s) == ("OVERLOADED", 0.25)


@pytest.mark.parametrize(
    "status_bytes",
    [
        b"\xff\xff\xff",
        status("", info("THEIRS", domain="proxy.example")),
        status("", error_details_pb2.Help()),
    ],
    ids=["not a status", "another domain", "another detail"],
)
def test_details_that_are_not_ours_leave_the_code_and_the_text(status_bytes: bytes) -> None:
    error = errors.from_status(grpc.StatusCode.UNAVAILABLE, "no upstream", status_bytes)
    assert type(error) is client.Unavailable
    assert (error.reason, error.message, error.metadata) == ("UNAVAILABLE", "no upstream", {})


@pytest.mark.parametrize(
    ("trailers", "reason"),
    [
        (grpc.aio.Metadata(("grpc-status-details-bin", status("", info("STORE_FULL")))), "STORE_FULL"),
        (grpc.aio.Metadata(("other", "text")), "RESOURCE_EXHAUSTED"),
        (grpc.aio.Metadata(), "RESOURCE_EXHAUSTED"),
    ],
    ids=["details", "others", "none"],
)
def test_from_rpc_error(trailers: grpc.aio.Metadata, reason: str) -> None:
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailers, "no room", None
    )
    error = errors.from_rpc_error(failed)
    assert (type(error), error.reason, error.message) == (client.ResourceExhausted, reason, "no room")


def test_every_error_is_in_the_tree_that_the_docstring_draws() -> None:
    kinds = [errors.AgentMemError]
    for kind in kinds:
        kinds.extend(sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__)
    drawn = re.findall(r"^ +[├└│─ ]*(\w+)", errors.__doc__ or "", re.MULTILINE)
    assert set(drawn) == {kind.__name__ for kind in kinds}
    assert set(drawn) <= set(client.__all__)
