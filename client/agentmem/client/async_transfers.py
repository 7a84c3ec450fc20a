"""Exports, imports and backups of the asynchronous client: streams, which may take long."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Unpack

from agentmem.client import values, versions
from agentmem.client.acknowledgement import AcknowledgementInput
from agentmem.client.async_connection import AsyncConnection, position_of
from agentmem.client.backup import Backup, Progress, fetch_backup
from agentmem.client.batches import bound_of, read_route
from agentmem.client.consistency import Consistency
from agentmem.client.errors import invalid_field
from agentmem.client.filters import FilterInput, Scope, scoped
from agentmem.client.importing import MessageBuilder, VersionImport
from agentmem.client.versions import ImportConflict, ImportResult, MemoryVersion
from agentmem.v1 import reader_pb2


class AsyncTransfers(AsyncConnection):
    """What moves whole namespaces and stores.

    No more of it is held in memory than two messages, of up to 4 MiB or one larger version. There is no bound
    on the time of the whole.
    """

    async def export(
        self,
        namespace: str,
        *,
        filter: FilterInput | None = None,
        newest_only: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> AsyncIterator[MemoryVersion]:
        """Every version of a namespace, with embeddings, all as of one revision of the node that answers.

        They come in the order of ids, those of one memory from the first to the newest, deletions among them.

        Args:
            filter: memories whose newest version matches; narrowed further by the keywords of Scope. Without
                either, deleted memories are there too.
            newest_only: leave out older versions and deleted memories.
            timeout_s: until the first of them.

        Raises:
            Unavailable: the node that sent them was lost in the middle; begin anew.
        """
        frames = self._export_frames(
            namespace,
            filter=filter,
            newest_only=newest_only,
            consistency=consistency,
            timeout_s=timeout_s,
            **scope,
        )
        async with aclosing(frames):
            async for frame in frames:
                for version in frame:
                    yield version

    async def import_versions(
        self,
        namespace: str,
        versions: Iterable[MemoryVersion] | AsyncIterable[MemoryVersion],
        *,
        on_conflict: ImportConflict | str = ImportConflict.FAIL,
        acknowledgement: AcknowledgementInput | None = None,
        timeout_s: float | None = None,
    ) -> ImportResult:
        """Takes in versions as ``export`` gave them, with their ids, times, numbers and embeddings.

        What was taken in before an error stays; ``imported_versions`` of its metadata says how many were.

        Args:
            versions: those of one memory together and in ascending order. The namespace they had and their
                revisions do not matter.
            on_conflict: what to do with one that is there, or is older than what is there.
            acknowledgement: of each message; see AsyncWrites.
            timeout_s: for each message of up to 1,000 versions.

        Raises:
            AlreadyExists: with "fail", a version is there.
            OutcomeUnknown: no answer for a message came in time. With "skip" the import can be repeated.
        """
        builder = MessageBuilder(namespace, on_conflict, self._acknowledgement(acknowledgement))
        if not isinstance(versions, Iterable | AsyncIterable):
            raise invalid_field("versions", f"must be versions, not {values.kind(versions)}")
        sending = await self._begin_import(timeout_s)
        try:
            if isinstance(versions, AsyncIterable):
                async for version in versions:
                    if (message := builder.add(version)) is not None:
                        await sending.send(message)
            else:
                for version in versions:
                    if (message := builder.add(version)) is not None:
                        await sending.send(message)
            if (message := builder.last()) is not None:
                await sending.send(message)
            return await sending.finish()
        finally:
            await sending.close()

    async def backup(
        self,
        folder: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> Backup:
        """Copies the writer's whole store into a new or empty folder: data.mdb, and manifest.json last.

        The copy is of one revision, whatever is written meanwhile. One that is cut off is gone on with; what
        arrives is compared with the writer's SHA-256. When it fails, nothing is left in the folder.

        Args:
            on_progress: called with the bytes that are there and all of them, on the client's event loop.
            timeout_s: how long the writer may be out of reach at a time, not a bound on the whole.

        Raises:
            DataLoss: the bytes that came are not those of the writer.
            OSError: the folder cannot be written.
        """
        return await fetch_backup(
            self._ready_router(), folder, timeout_s=self._time(timeout_s), on_progress=on_progress
        )

    async def _begin_import(self, timeout_s: float | None) -> VersionImport:
        router, time_s = self._ready_router(), self._time(timeout_s)
        await self._admit(time.monotonic() + time_s)
        return VersionImport(router, time_s, self._wrote)

    async def _export_frames(
        self,
        namespace: str,
        *,
        filter: FilterInput | None,
        newest_only: bool,
        consistency: Consistency | None,
        timeout_s: float | None,
        **scope: Unpack[Scope],
    ) -> AsyncGenerator[tuple[MemoryVersion, ...], None]:
        request = reader_pb2.ExportMemoriesRequest(
            namespace=values.text("namespace", namespace),
            newest_only=values.boolean("newest_only", newest_only),
        )
        narrowed = scoped(filter, scope)
        if narrowed is not None:
            narrowed.copy_to(request.filter)
        router = self._ready_router()
        time_s = self._time(timeout_s)
        wanted = await self._require(request, consistency, time.monotonic() + time_s)
        responses = router.stream(
            lambda endpoint: endpoint.reader.ExportMemories,
            request,
            route=read_route(wanted),
            timeout_s=time_s,
            bound=bound_of(wanted),
        )
        async with aclosing(responses):
            async for response in responses:
                router.learn(response)
                self._saw(position_of(response))
                yield tuple(map(versions.version_from_proto, response.versions))
