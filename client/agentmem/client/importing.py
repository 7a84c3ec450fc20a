"""Imports of versions: messages of a bounded size, sent one by one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentmem.client import values, versions
from agentmem.client.acknowledgement import (
    LOCAL,
    Acknowledgement,
    acknowledged_from_proto,
    acknowledgement_to_proto,
)
from agentmem.client.calls import Call, Metadata
from agentmem.client.channels import Endpoint
from agentmem.client.consistency import Position
from agentmem.client.errors import AgentMemError, AlreadyExists, OutcomeUnknown
from agentmem.client.routing import Router
from agentmem.client.versions import ImportResult
from agentmem.v1 import writer_pb2

MAX_MESSAGE_VERSIONS = 1000
# A version alone may be larger; a message has 32 MiB.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# What a version takes in a message besides itself: its tag and length.
_VERSION_OVERHEAD_BYTES = 8
_POSITION = re.compile(r"versions\[(\d+)\]")


class MessageBuilder:
    """Puts versions into messages, in their order. Holds one message at a time.

    The versions of one memory stay in one message while they fit: what expired must not be there without its
    end, or the writer would give it another.
    """

    def __init__(
        self, namespace: object, on_conflict: object, acknowledgement: Acknowledgement = LOCAL
    ) -> None:
        self._head = writer_pb2.ImportMemoriesRequest(
            namespace=values.text("namespace", namespace),
            on_conflict=versions.import_conflict_to_proto(on_conflict),
            acknowledgement=acknowledgement_to_proto(acknowledgement),
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

    def _fits(self, sizes_bytes: Sequence[int], more_bytes: int) -> bool:
        size_bytes = self._head.ByteSize() + sum(sizes_bytes) + more_bytes
        return len(sizes_bytes) < MAX_MESSAGE_VERSIONS and size_bytes <= MAX_MESSAGE_BYTES

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


class VersionImport:
    """An import that is going on: each message is a call of its own, and the next is made ready meanwhile.

    So it is known which versions are in, an error belongs to one message, and a message whose answer was lost
    can be sent again.
    """

    def __init__(self, router: Router, timeout_s: float, on_written: Callable[[Position], None]) -> None:
        """``timeout_s`` is for each message; ``on_written`` is told where each that is in is."""
        self._router = router
        self._timeout_s = timeout_s
        self._on_written = on_written
        self._running: asyncio.Task[None] | None = None
        self._begun_versions = 0
        self._result = ImportResult(0, 0, 0)

    async def send(self, message: writer_pb2.ImportMemoriesRequest) -> None:
        """Sends a message when the one before is in."""
        await self._settled()
        self._running = asyncio.create_task(self._import(message))

    async def finish(self) -> ImportResult:
        """Waits until everything is in."""
        await self._settled()
        return self._result

    async def close(self) -> None:
        """Gives up the message that is on its way, if there is one."""
        if self._running is not None:
            self._running.cancel()
            # Whatever comes of it: the caller has an error already.
            await asyncio.gather(self._running, return_exceptions=True)

    async def _settled(self) -> None:
        if self._running is not None:
            await self._running
            self._running = None

    async def _import(self, message: writer_pb2.ImportMemoriesRequest) -> None:
        first, self._begun_versions = self._begun_versions, self._begun_versions + len(message.versions)
        try:
            response = await self._written(message)
        except AgentMemError as error:
            self._locate(error, first)
            raise
        self._result = ImportResult(
            self._result.imported_versions + response.imported_versions,
            self._result.skipped_versions + response.skipped_versions,
            response.revision,
            response.epoch,
            acknowledged_from_proto(response),
        )
        self._on_written(Position(response.epoch, response.revision))

    def _locate(self, error: AgentMemError, first: int) -> None:
        """Makes positions in a message positions in the import, and says what is in."""
        field = error.metadata.get("field", "")
        if (position := _POSITION.match(field)) is not None:
            field = f"versions[{first + int(position[1])}]{field[position.end() :]}"
            error.message = _POSITION.sub(field[: field.index("]") + 1], error.message)
            error.args = (error.message,)
        located = {"imported_versions": str(self._result.imported_versions)}
        error.metadata = {**error.metadata, **located, **({"field": field} if field else {})}

    async def _written(self, message: writer_pb2.ImportMemoriesRequest) -> writer_pb2.ImportMemoriesResponse:
        deadline_s = time.monotonic() + self._timeout_s
        skips = message.on_conflict == writer_pb2.IMPORT_CONFLICT_SKIP
        try:
            return await self._sent(message, deadline_s, is_repeatable=skips)
        except OutcomeUnknown:
            if skips or time.monotonic() >= deadline_s:
                raise
        # It is in whole, by the attempt that was lost, or not at all.
        again = writer_pb2.ImportMemoriesRequest()
        again.CopyFrom(message)
        again.on_conflict = writer_pb2.IMPORT_CONFLICT_SKIP
        response = await self._sent(again, deadline_s, is_repeatable=True)
        if response.imported_versions and response.skipped_versions:
            raise AlreadyExists("some of the versions were there already", reason="MEMORY_EXISTS")
        return writer_pb2.ImportMemoriesResponse(
            imported_versions=len(message.versions),
            revision=response.revision,
            epoch=response.epoch,
            acknowledged=response.acknowledged if response.HasField("acknowledged") else None,
        )

    async def _sent(
        self, message: writer_pb2.ImportMemoriesRequest, deadline_s: float, *, is_repeatable: bool
    ) -> writer_pb2.ImportMemoriesResponse:
        return await self._router.write(
            _import_method,
            message,
            timeout_s=max(0.0, deadline_s - time.monotonic()),
            is_repeatable=is_repeatable,
        )


def _import_method(endpoint: Endpoint) -> Call[Any, writer_pb2.ImportMemoriesResponse]:
    """ImportMemories with a stream of one message."""

    def call(
        request: writer_pb2.ImportMemoriesRequest, *, timeout: float, metadata: Metadata = ()
    ) -> Awaitable[writer_pb2.ImportMemoriesResponse]:
        return endpoint.writer.ImportMemories(iter([request]), timeout=timeout, metadata=metadata)

    return call
