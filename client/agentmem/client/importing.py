"""Imports of versions: messages of a bounded size, sent one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc

from agentmem.client import values, versions
from agentmem.client.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from agentmem.client.routing import Router
from agentmem.client.versions import ImportResult
from agentmem.v1 import writer_pb2

MAX_MESSAGE_VERSIONS = 1000
# A version alone may be larger; a message has 32 MiB.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# What a version takes in a message besides itself: its tag and length.
_VERSION_OVERHEAD_BYTES = 8


class MessageBuilder:
    """Puts versions into messages, in their order. Holds one message at a time.

    The versions of one memory stay in one message while they fit: what expired must not be there without its
    end, or the writer would give it another.
    """

    def __init__(self, namespace: object, on_conflict: object) -> None:
        self._head = writer_pb2.ImportMemoriesRequest(
            namespace=values.text("namespace", namespace),
            on_conflict=versions.import_conflict_to_proto(on_conflict),
        )
        self._message = self._new()
        self._sizes_bytes: list[int] = []
        # Where in the message the versions of the last memory begin.
        self._begin = 0
        self._is_first = True

    def add(self, version: object) -> writer_pb2.ImportMemoriesRequest | None:
        """Takes a version in; returns the message before it when that is full."""
        message = versions.version_to_proto(version)
        size_bytes = message.ByteSize() + _VERSION_OVERHEAD_BYTES
        count = len(self._sizes_bytes)
        if not count or message.memory.id != self._message.versions[-1].memory.id:
            self._begin = count
        full = None
        if count and not self._fits(self._sizes_bytes, size_bytes):
            # Without the last memory, if there is something before it, and room for it in the next message.
            apart = self._begin and self._fits(self._sizes_bytes[self._begin :], size_bytes)
            full = self._take(self._begin if apart else count)
        self._message.versions.append(message)
        self._sizes_bytes.append(size_bytes)
        return full

    def last(self) -> writer_pb2.ImportMemoriesRequest | None:
        """The message that is begun. The first is there also when it is empty: it names the namespace."""
        if not self._sizes_bytes and not self._is_first:
            return None
        return self._take(len(self._sizes_bytes))

    @staticmethod
    def _fits(sizes_bytes: Sequence[int], more_bytes: int) -> bool:
        return len(sizes_bytes) < MAX_MESSAGE_VERSIONS and sum(sizes_bytes) + more_bytes <= MAX_MESSAGE_BYTES

    def _take(self, count: int) -> writer_pb2.ImportMemoriesRequest:
        """The first of the versions; the others begin the next message."""
        taken, self._message = self._message, self._new()
        self._message.versions.extend(taken.versions[count:])
        del taken.versions[count:]
        del self._sizes_bytes[:count]
        self._begin = 0
        self._is_first = False
        return taken

    def _new(self) -> writer_pb2.ImportMemoriesRequest:
        message = writer_pb2.ImportMemoriesRequest()
        message.CopyFrom(self._head)
        return message


class ImportCall:
    """A call of ImportMemories that is being sent."""

    def __init__(
        self,
        router: Router,
        address: str,
        call: grpc.aio.StreamUnaryCall[Any, Any],
        held: AsyncExitStack,
    ) -> None:
        self._router = router
        self._address = address
        self._call = call
        self._held = held

    async def send(self, message: writer_pb2.ImportMemoriesRequest) -> None:
        """Sends a message, when the writer has room for it."""
        with self._translated():
            try:
                await self._call.write(message)
            except asyncio.InvalidStateError:
                # The writer has ended the call; its status says why.
                await self._call

    async def finish(self) -> ImportResult:
        """Waits for the writer to have taken in everything."""
        with self._translated():
            await self._call.done_writing()
            return versions.import_result_from_proto(await self._call)

    async def close(self) -> None:
        """Ends the call, if it has not ended yet."""
        await self._held.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with self._router.translated(self._address):
                yield
        except (Unavailable, DeadlineExceeded) as error:
            raise OutcomeUnknown(
                f"the import was cut off and may be in by a part ({error.message}); "
                'repeat it with on_conflict="skip"',
                reason="OUTCOME_UNKNOWN",
                attempts={self._address: error.message},
            ) from error


async def begin_import(router: Router, *, timeout_s: float, stream_timeout_s: float | None) -> ImportCall:
    """A call to the writer; the caller closes it.

    Args:
        timeout_s: until there is a connection.
        stream_timeout_s: for the call; no bound when None.
    """
    async with AsyncExitStack() as held:
        endpoint = await held.enter_async_context(router.writer(timeout_s))
        call = endpoint.writer.ImportMemories(timeout=stream_timeout_s)
        held.callback(call.cancel)
        return ImportCall(router, endpoint.address, call, held.pop_all())
