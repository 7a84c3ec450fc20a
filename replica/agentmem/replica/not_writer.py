"""What a replica answers to calls that are the writer's: where the writer is."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import NoReturn

from agentmem.core.errors import FailedPrecondition
from agentmem.v1 import replication_pb2, replication_pb2_grpc, writer_pb2, writer_pb2_grpc


class _NotWriter:
    """Sends callers on to the writer."""

    def __init__(self, writer_address: Callable[[], str]) -> None:
        self._writer_address = writer_address

    def _refuse(self) -> NoReturn:
        address = self._writer_address()
        raise FailedPrecondition(
            "NOT_WRITER", f"this is a replica: the writer is at {address}", writer_address=address
        )


class NotWriterReplication(_NotWriter, replication_pb2_grpc.ReplicationServiceServicer):
    """The log comes from the writer alone."""

    async def Subscribe(
        self, request: replication_pb2.SubscribeRequest, context: object
    ) -> AsyncIterator[replication_pb2.SubscribeResponse]:
        self._refuse()
        yield  # makes it a stream

    async def ReportProgress(
        self, request: replication_pb2.ReportProgressRequest, context: object
    ) -> NoReturn:
        self._refuse()

    async def FetchSnapshot(
        self, request: replication_pb2.FetchSnapshotRequest, context: object
    ) -> AsyncIterator[replication_pb2.FetchSnapshotResponse]:
        self._refuse()
        yield  # makes it a stream


class NotWriterService(_NotWriter, writer_pb2_grpc.WriterServiceServicer):
    """Answers writes with the address of the writer."""

    async def AddMemories(self, request: writer_pb2.AddMemoriesRequest, context: object) -> NoReturn:
        self._refuse()

    async def BatchAddMemories(
        self, request: writer_pb2.BatchAddMemoriesRequest, context: object
    ) -> NoReturn:
        self._refuse()

    async def UpdateMemory(self, request: writer_pb2.UpdateMemoryRequest, context: object) -> NoReturn:
        self._refuse()

    async def BatchUpdateMemories(
        self, request: writer_pb2.BatchUpdateMemoriesRequest, context: object
    ) -> NoReturn:
        self._refuse()

    async def DeleteMemories(self, request: writer_pb2.DeleteMemoriesRequest, context: object) -> NoReturn:
        self._refuse()

    async def BatchDeleteMemories(
        self, request: writer_pb2.BatchDeleteMemoriesRequest, context: object
    ) -> NoReturn:
        self._refuse()

    async def GetPurgeReceipt(self, request: writer_pb2.GetPurgeReceiptRequest, context: object) -> NoReturn:
        self._refuse()

    async def ImportMemories(
        self, requests: AsyncIterable[writer_pb2.ImportMemoriesRequest], context: object
    ) -> NoReturn:
        self._refuse()

    async def UpdateNamespace(self, request: writer_pb2.UpdateNamespaceRequest, context: object) -> NoReturn:
        self._refuse()

    async def ReembedNamespace(
        self, request: writer_pb2.ReembedNamespaceRequest, context: object
    ) -> NoReturn:
        self._refuse()
