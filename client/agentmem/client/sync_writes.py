"""The writes of the synchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from agentmem.client.acknowledgement import AcknowledgementInput
from agentmem.client.answers import AddResult, DeleteResult, DuplicatePolicy, PurgeStatus, UpdatedMemory
from agentmem.client.filters import FilterInput, Scope
from agentmem.client.models import AddFields, NewMemory, UpdateFields
from agentmem.client.namespaces import BegunReembedding, SettingsFields, UpdatedSettings
from agentmem.client.sync_connection import SyncConnection


class SyncWrites(SyncConnection):
    """What changes memories and namespaces; see AsyncWrites."""

    def add(
        self,
        namespace: str,
        memory: str | NewMemory,
        /,
        *,
        on_duplicate: DuplicatePolicy | str = DuplicatePolicy.ADD,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[AddFields],
    ) -> AddResult:
        """Adds one memory; see AsyncClient.add."""
        return self._run(
            self._client.add(
                namespace,
                memory,
                on_duplicate=on_duplicate,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
                **fields,
            )
        )

    def add_many(
        self,
        namespace: str,
        memories: Sequence[str | NewMemory],
        *,
        on_duplicate: DuplicatePolicy | str = DuplicatePolicy.ADD,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> AddResult:
        """Adds memories in one commit; see AsyncClient.add_many."""
        return self._run(
            self._client.add_many(
                namespace,
                memories,
                on_duplicate=on_duplicate,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
            )
        )

    def update(
        self,
        namespace: str,
        id: str,
        *,
        expected_version: int | None = None,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[UpdateFields],
    ) -> UpdatedMemory:
        """Makes a new version of a memory; see AsyncClient.update."""
        return self._run(
            self._client.update(
                namespace,
                id,
                expected_version=expected_version,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
                **fields,
            )
        )

    def delete(
        self,
        namespace: str,
        ids: str | Sequence[str],
        *,
        purge: bool = False,
        expected_version: int | None = None,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """Deletes memories by id; see AsyncClient.delete."""
        return self._run(
            self._client.delete(
                namespace,
                ids,
                purge=purge,
                expected_version=expected_version,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
            )
        )

    def delete_matching(
        self,
        namespace: str,
        *,
        filter: FilterInput | None = None,
        everything: bool = False,
        purge: bool = False,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        **scope: Unpack[Scope],
    ) -> DeleteResult:
        """Deletes every memory that matches; see AsyncClient.delete_matching."""
        return self._run(
            self._client.delete_matching(
                namespace,
                filter=filter,
                everything=everything,
                purge=purge,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
                **scope,
            )
        )

    def purge_receipt(self, namespace: str, revision: int, *, timeout_s: float | None = None) -> PurgeStatus:
        """The receipt of a purge, and who has carried it out; see AsyncClient.purge_receipt."""
        return self._run(self._client.purge_receipt(namespace, revision, timeout_s=timeout_s))

    def update_namespace(
        self,
        namespace: str,
        *,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[SettingsFields],
    ) -> UpdatedSettings:
        """Changes what a namespace keeps; see AsyncClient.update_namespace."""
        return self._run(
            self._client.update_namespace(
                namespace,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
                **settings,
            )
        )

    def reembed(
        self,
        namespace: str,
        embedder: str,
        *,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> BegunReembedding:
        """Begins to replace the embeddings of a namespace; see AsyncClient.reembed."""
        return self._run(
            self._client.reembed(
                namespace,
                embedder,
                acknowledgement=acknowledgement,
                request_id=request_id,
                timeout_s=timeout_s,
            )
        )
