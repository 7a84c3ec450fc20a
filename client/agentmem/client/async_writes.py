"""The writes of the asynchronous client."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from agentmem.client import answers, models, namespaces, values
from agentmem.client.acknowledgement import AcknowledgementInput, acknowledgement_to_proto
from agentmem.client.answers import AddResult, DeleteResult, DuplicatePolicy, PurgeStatus, UpdatedMemory
from agentmem.client.async_connection import MAX_UINT64, AsyncConnection, position_of
from agentmem.client.batches import WriteRequest, write_entry
from agentmem.client.calls import Method, Response
from agentmem.client.coalescing import Coalescer
from agentmem.client.errors import invalid_field
from agentmem.client.filters import Field, FilterInput, Scope, scoped
from agentmem.client.models import AddFields, NewMemory, UpdateFields
from agentmem.client.namespaces import BegunReembedding, SettingsFields, UpdatedSettings
from agentmem.client.selection import Route
from agentmem.v1 import memory_pb2, writer_pb2


class AsyncWrites(AsyncConnection):
    """What changes memories and namespaces.

    Each write bears a request id: a fresh one, or the caller's ``request_id`` (up to 128 bytes, unique in the
    namespace). The same call with the same id within 24 hours is done once and answered alike; that is how
    writes are repeated here when a connection breaks.

    ``acknowledgement`` says when a write is answered: "local" (on the writer's disk), ``replicated(k)``,
    ``applied(k)``; None is the client's own. The result's ``acknowledged`` tells how far it was. A level that
    was not reached in time is no error: the write is done.

    Every write may raise, besides what every call may:
        OutcomeUnknown: no answer came in time; it may or may not have been done. The same call with the
            ``request_id`` of the error's metadata finds out.
        InvalidArgument: REQUEST_ID_REUSED, the request id was used for another request.
    """

    async def add(
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
        """Adds one memory: its content with the fields of NewMemory as keywords, or a NewMemory.

        Args:
            on_duplicate: what to do when a memory of the same user_id, agent_id and content is there.

        Returns its id, version and outcome in ``memories``, when it is on the writer's disk.

        Raises:
            AlreadyExists: the id is taken.
        """
        message = models.added_to_proto(memory, fields)
        return await self._add(namespace, [message], on_duplicate, acknowledgement, request_id, timeout_s)

    async def add_many(
        self,
        namespace: str,
        memories: Sequence[str | NewMemory],
        *,
        on_duplicate: DuplicatePolicy | str = DuplicatePolicy.ADD,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> AddResult:
        """Adds 1 to 1,000 memories in one commit: all of them or none. Takes and raises what ``add`` does."""
        if isinstance(memories, str | bytes) or not isinstance(memories, Sequence):
            raise invalid_field("memories", f"must be a sequence of memories, not {values.kind(memories)}")
        messages = [models.added_to_proto(each, {}) for each in memories]
        return await self._add(namespace, messages, on_duplicate, acknowledgement, request_id, timeout_s)

    async def _add(
        self,
        namespace: str,
        messages: Sequence[memory_pb2.Memory],
        on_duplicate: DuplicatePolicy | str,
        acknowledgement: AcknowledgementInput | None,
        request_id: str | None,
        timeout_s: float | None,
    ) -> AddResult:
        request = writer_pb2.AddMemoriesRequest(
            namespace=values.text("namespace", namespace),
            memories=messages,
            on_duplicate=answers.duplicate_policy_to_proto(on_duplicate),
        )
        return await self._send(
            *(self._link.batches.adds, request, acknowledgement, request_id, timeout_s),
            items=len(messages),
            needs_embedder=not all(message.embedding for message in messages),
        )

    async def update(
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
        """Makes a new version of a memory with the fields given; the others stay.

        New content is embedded again by the server, unless a new embedding is given with it.

        Args:
            expected_version: change it only while this is its newest version.

        Returns the new version, without its embedding.

        Raises:
            NotFound: there is no such memory.
            VersionMismatch: it is at another version.
        """
        memory = models.update_to_proto(fields)
        memory.id = values.text("id", id)
        request = writer_pb2.UpdateMemoryRequest(
            namespace=values.text("namespace", namespace),
            memory=memory,
            update_mask=FieldMask(paths=fields),
        )
        if expected_version is not None:
            request.expected_version = _version(expected_version)
        return await self._send(
            *(self._link.batches.updates, request, acknowledgement, request_id, timeout_s),
            items=1,
            needs_embedder="content" in fields and "embedding" not in fields,
        )

    async def delete(
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
        """Deletes one memory, or 1 to 1,000, in one commit. An id that names no memory is no error.

        Args:
            purge: remove all versions for good, also of memories deleted earlier; the result has a receipt.
            expected_version: of one memory: delete it only while this is its newest version.

        Raises:
            NotFound, VersionMismatch: with an expected_version, there is no such memory, or another version.
        """
        request = writer_pb2.DeleteMemoriesRequest(
            namespace=values.text("namespace", namespace),
            ids=values.texts("ids", [ids] if isinstance(ids, str) else ids),
            purge=values.boolean("purge", purge),
        )
        if expected_version is not None:
            request.expected_version = _version(expected_version)
            if len(request.ids) != 1:
                raise invalid_field("expected_version", "needs exactly one id")
        return await self._send(
            *(self._link.batches.deletions, request, acknowledgement, request_id, timeout_s),
            items=len(request.ids),
        )

    async def delete_matching(
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
        """Deletes every memory that matches, more than 500 of them in several commits.

        When no answer comes in time, part of them may be deleted; the same call deletes the rest, and its
        result counts those only.

        Args:
            filter: which ones; narrowed further by the keywords of Scope. One of them must be given,
            everything: or this, for all memories of the namespace.
            purge: remove all versions for good, of every memory of which any kept version matches; the result
                has a receipt.
        """
        narrowed = scoped(filter, scope)
        if values.boolean("everything", everything):
            if narrowed is not None:
                raise invalid_field("everything", "is given with a filter or scope: give one of them")
            narrowed = Field("id").exists()
        if narrowed is None or narrowed.to_proto().WhichOneof("kind") is None:
            raise invalid_field("filter", "is missing; everything=True deletes all memories of a namespace")
        request = writer_pb2.DeleteMemoriesRequest(
            namespace=values.text("namespace", namespace),
            filter=narrowed.to_proto(),
            purge=values.boolean("purge", purge),
        )
        response = await self._write(
            lambda endpoint: endpoint.writer.DeleteMemories, request, acknowledgement, request_id, timeout_s
        )
        return answers.delete_result_from_proto(response)

    async def purge_receipt(
        self, namespace: str, revision: int, *, timeout_s: float | None = None
    ) -> PurgeStatus:
        """The receipt of a purge by its revision, and which nodes have carried it out.

        Raises:
            NotFound: no purge of this namespace ended at the revision.
        """
        request = writer_pb2.GetPurgeReceiptRequest(
            namespace=values.text("namespace", namespace),
            revision=values.integer("revision", revision, low=1, high=MAX_UINT64),
        )
        response = await self._ready_router().read(
            lambda endpoint: endpoint.writer.GetPurgeReceipt,
            request,
            route=Route.WRITER,
            timeout_s=self._time(timeout_s),
        )
        return answers.purge_status_from_proto(response)

    async def update_namespace(
        self,
        namespace: str,
        *,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[SettingsFields],
    ) -> UpdatedSettings:
        """Changes the settings given; the others stay. Returns all of them.

        Retention removes what is too much or too old within seconds, and for good.
        """
        request = writer_pb2.UpdateNamespaceRequest(
            namespace=values.text("namespace", namespace),
            settings=namespaces.settings_to_proto(settings),
            update_mask=FieldMask(paths=settings),
        )
        response = await self._write(
            lambda endpoint: endpoint.writer.UpdateNamespace, request, acknowledgement, request_id, timeout_s
        )
        return namespaces.updated_settings_from_proto(response)

    async def reembed(
        self,
        namespace: str,
        embedder: str,
        *,
        acknowledgement: AcknowledgementInput | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> BegunReembedding:
        """Begins to replace the embeddings of a namespace by those of another embedder of the server.

        That goes on in the background, and ``stats`` tells how far it is; until all are there, searches use
        the present ones. Embeddings that callers brought are replaced by those of the content, too. Naming
        the embedder of the present ones, or "none", stops what was begun.

        May raise, besides what every write may:
            NotFound: NAMESPACE_NOT_FOUND.
            FailedPrecondition: REEMBEDDING, those of a third embedder are on their way.
        """
        request = writer_pb2.ReembedNamespaceRequest(
            namespace=values.text("namespace", namespace), embedder=values.text("embedder", embedder)
        )
        response = await self._write(
            lambda endpoint: endpoint.writer.ReembedNamespace, request, acknowledgement, request_id, timeout_s
        )
        return namespaces.begun_from_proto(response)

    async def _send(
        self,
        writes: Coalescer[WriteRequest, Result],
        request: WriteRequest,
        acknowledgement: AcknowledgementInput | None,
        request_id: str | None,
        timeout_s: float | None,
        *,
        items: int,
        needs_embedder: bool = False,
    ) -> Result:
        """The result of a write that may travel with others.

        Args:
            items: how many memories it names.
            needs_embedder: whether one of them comes with new content and no embedding.
        """
        self._ready_router()
        time_s, begun_at_s = self._time(timeout_s), time.monotonic()
        self._prepare(request, acknowledgement, request_id)
        await self._admit(begun_at_s + time_s)
        result = await writes.call(write_entry(request, items, needs_embedder, time_s, begun_at_s))
        self._wrote(position_of(result))
        return result

    async def _write(
        self,
        method: Method[AnyWriteRequest, Response],
        request: AnyWriteRequest,
        acknowledgement: AcknowledgementInput | None,
        request_id: str | None,
        timeout_s: float | None,
    ) -> Response:
        router = self._ready_router()
        time_s, begun_at_s = self._time(timeout_s), time.monotonic()
        self._prepare(request, acknowledgement, request_id)
        await self._admit(begun_at_s + time_s)
        response = await router.write(
            method, request, request_id=request.request_id, timeout_s=time_s, begun_at_s=begun_at_s
        )
        self._wrote(position_of(response))
        return response

    def _prepare(
        self, request: AnyWriteRequest, acknowledgement: AcknowledgementInput | None, request_id: str | None
    ) -> None:
        request.request_id = _request_id(request_id)
        message = acknowledgement_to_proto(self._acknowledgement(acknowledgement))
        if message is not None:
            request.acknowledgement.CopyFrom(message)


AnyWriteRequest = TypeVar(
    "AnyWriteRequest",
    writer_pb2.AddMemoriesRequest,
    writer_pb2.UpdateMemoryRequest,
    writer_pb2.DeleteMemoriesRequest,
    writer_pb2.UpdateNamespaceRequest,
    writer_pb2.ReembedNamespaceRequest,
)
Result = TypeVar("Result", AddResult, UpdatedMemory, DeleteResult)


def _request_id(given: object) -> str:
    if given is None:
        return os.urandom(16).hex()
    request_id = values.text("request_id", given)
    if not request_id:
        raise invalid_field("request_id", "must not be empty; leave it out for a fresh one")
    return request_id


def _version(value: object) -> int:
    return values.integer("expected_version", value, low=1, high=MAX_UINT64)
