"""Exports, imports and backups of the synchronous client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Unpack

from agentmem.client import values
from agentmem.client.acknowledgement import AcknowledgementInput
from agentmem.client.backup import Backup, Progress
from agentmem.client.consistency import Consistency
from agentmem.client.errors import invalid_field
from agentmem.client.filters import FilterInput, Scope
from agentmem.client.importing import MessageBuilder
from agentmem.client.sync_connection import SyncConnection, following
from agentmem.client.versions import ImportConflict, ImportResult, MemoryVersion


class SyncTransfers(SyncConnection):
    """What moves whole namespaces and stores; see AsyncTransfers."""

    def export(
        self,
        namespace: str,
        *,
        filter: FilterInput | None = None,
        newest_only: bool = False,
        consistency: Consistency | None = None,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> Iterator[MemoryVersion]:
        """Every version of a namespace, all as of one revision; see AsyncClient.export."""
        frames = self._client._export_frames(
            namespace,
            filter=filter,
            newest_only=newest_only,
            consistency=consistency,
            timeout_s=timeout_s,
            **scope,
        )
        try:
            while (frame := self._run(following(frames))) is not None:
                yield from frame
        finally:
            self._end(frames.aclose())

    def import_versions(
        self,
        namespace: str,
        versions: Iterable[MemoryVersion],
        *,
        on_conflict: ImportConflict | str = ImportConflict.FAIL,
        acknowledgement: AcknowledgementInput | None = None,
        timeout_s: float | None = None,
    ) -> ImportResult:
        """Takes in versions as ``export`` gave them; see AsyncClient.import_versions.

        ``versions`` is iterated over in the calling thread.
        """
        wanted = self._client._acknowledgement(acknowledgement)
        builder = MessageBuilder(namespace, on_conflict, wanted)
        if not isinstance(versions, Iterable):
            raise invalid_field("versions", f"must be versions, not {values.kind(versions)}")
        sending = self._run(self._client._begin_import(timeout_s))
        try:
            for version in versions:
                if (message := builder.add(version)) is not None:
                    self._run(sending.send(message))
            if (message := builder.last()) is not None:
                self._run(sending.send(message))
            return self._run(sending.finish())
        finally:
            self._end(sending.close())

    def backup(
        self,
        folder: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> Backup:
        """Copies the writer's whole store into a folder; see AsyncClient.backup.

        ``on_progress`` is called on the client's own thread.
        """
        return self._run(self._client.backup(folder, on_progress=on_progress, timeout_s=timeout_s))
