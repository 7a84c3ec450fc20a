"""Calls over generated stubs, as short as tests want them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from cluster import Stubs
from google.rpc import error_details_pb2, status_pb2

from agentmem.v1 import failure_pb2, memory_pb2, reader_pb2, writer_pb2

Memory = memory_pb2.Memory


def error_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str], str]:
    """The code, reason, metadata and message that a call fails with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    assert details, f"no details: {error}"
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "agentmem"
    assert status.message == error.details()
    return error.code(), info.reason, dict(info.metadata), status.message


def check_failure(failure: object, call: Callable[[], Any]) -> None:
    """A request of a batch failed as the call alone does."""
    assert isinstance(failure, failure_pb2.Failure)
    code, reason, metadata, message = error_of(call)
    assert (failure.code, failure.reason, dict(failure.metadata)) == (code.value[0], reason, metadata)
    assert failure.message == message


def outcome_of(result: Any) -> Any:
    """The response of a request of a batch, or its failure."""
    return getattr(result, result.WhichOneof("outcome"))


def add(stubs: Stubs, namespace: str, *memories: Memory) -> writer_pb2.AddMemoriesResponse:
    return stubs.writer.AddMemories(writer_pb2.AddMemoriesRequest(namespace=namespace, memories=memories))


def get(stubs: Stubs, namespace: str, *ids: str, embedding: bool = False) -> reader_pb2.GetMemoriesResponse:
    return stubs.reader.GetMemories(
        reader_pb2.GetMemoriesRequest(namespace=namespace, ids=ids, include_embedding=embedding)
    )


def update(
    stubs: Stubs, namespace: str, memory: Memory, *paths: str, expected: int | None = None
) -> writer_pb2.UpdateMemoryResponse:
    request = writer_pb2.UpdateMemoryRequest(namespace=namespace, memory=memory, expected_version=expected)
    request.update_mask.paths.extend(paths)
    return stubs.writer.UpdateMemory(request)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def all_ids(stubs: Stubs, namespace: str) -> set[str]:
    """The ids of every memory of a namespace."""
    ids: set[str] = set()
    token = ""
    while True:
        page = stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=1000, page_token=token)
        )
        ids |= {memory.id for memory in page.memories}
        token = page.next_page_token
        if not token:
            return ids
