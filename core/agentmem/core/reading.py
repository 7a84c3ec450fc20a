"""The reads that need no index, the same in the writer and in a replica: what they read from a store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from agentmem.core import wire
from agentmem.core.errors import NotFound, ResourceExhausted
from agentmem.core.filters import compile_filter
from agentmem.core.history import Moment, Walk, check_history, moment_of, version_at
from agentmem.core.layout import KEY, NamespaceState
from agentmem.core.memory_bytes import has_ended, memories_bytes
from agentmem.core.page_tokens import decode_page_token, encode_page_token, foreign_token, query_hash
from agentmem.core.read_transaction import ReadTransaction, missing_record
from agentmem.core.store import Store
from agentmem.core.validation import MAX_PAGE_SIZE, check_id, check_limit, check_namespace
from agentmem.v1 import memory_pb2, reader_pb2

DEFAULT_PAGE_SIZE = 100
# One transaction reads no more of a page, so that none stays open for long.
SCAN_CHUNK_RECORDS = 256
# A page of a list ends when it has looked at this many versions, whether they match or not, or this many ids,
# those of deleted memories among them.
MAX_SCANNED_RECORDS = 5000
MAX_SCANNED_IDS = 50_000
# A page of a list ends here; with its last memory it is still below the 4 MiB that gRPC clients take when
# nobody tells them otherwise.
MAX_PAGE_BYTES = 3 * 1024 * 1024
# Below the 64 MiB that a message may have, with room for the last memory and its embedding.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_ANSWER = reader_pb2.GetMemoriesResponse
_MEMORIES, _MISSING_IDS = _ANSWER.MEMORIES_FIELD_NUMBER, _ANSWER.MISSING_IDS_FIELD_NUMBER
_APPLIED_REVISION, _EPOCH = _ANSWER.APPLIED_REVISION_FIELD_NUMBER, _ANSWER.EPOCH_FIELD_NUMBER


class LongAnswerError(Exception):
    """It would take longer than whoever asks can wait."""


def get_memories(
    store: Store,
    request: reader_pb2.GetMemoriesRequest,
    now_us: int,
    most_bytes: int = MAX_ANSWER_BYTES,
) -> bytes:
    """A GetMemoriesResponse, serialized. What has expired by ``now_us`` is missing.

    Raises:
        ResourceExhausted: ``ANSWER_TOO_LARGE``, the memories do not fit one answer.
        LongAnswerError: they are larger than ``most_bytes``, and less than that fits one.
    """
    moment = moment_of(request.as_of, now_us)
    namespace, include_embedding = request.namespace, request.include_embedding
    ids, is_now = list(request.ids), moment.is_now
    parts: list[bytes] = []
    size_bytes = 0
    with store.read() as transaction:
        epoch, revision = transaction.place
        space = transaction.namespace(namespace)
        check_history(space, moment)
        ordinals = _ordinals(transaction, namespace, ids, moment)
        named = [ordinal for ordinal in ordinals if ordinal]
        found = memories_bytes(transaction, space, named, store.memories, include_embedding=include_embedding)
        for memory_id, ordinal in zip(ids, ordinals, strict=True):
            memory = next(found) if ordinal else None
            if ordinal and memory is None:
                raise missing_record(ordinal)
            if memory is None or (is_now and has_ended(memory, now_us)):
                parts.append(wire.delimited(_MISSING_IDS, memory_id.encode()))
                continue
            size_bytes = checked_size(size_bytes, len(memory), "ids")
            if size_bytes > most_bytes:
                raise LongAnswerError
            parts += wire.head(_MEMORIES, len(memory)), memory
    parts += wire.number(_APPLIED_REVISION, revision), wire.number(_EPOCH, epoch)
    return b"".join(parts)


def _ordinals(
    transaction: ReadTransaction, namespace: str, ids: Sequence[str], moment: Moment
) -> Sequence[int]:
    """Of the versions that were live at the moment, and now may have expired; 0 where there was none."""
    if moment.is_now:
        return transaction.live_ordinals_of(namespace, ids)
    walk = Walk()
    states = (transaction.id_state(namespace, memory_id) for memory_id in ids)
    found = [None if state is None else version_at(transaction, state, moment, walk) for state in states]
    return [0 if each is None else each[0] for each in found]


def add_embedding(transaction: ReadTransaction, ordinal: int, memory: memory_pb2.Memory) -> None:
    """Sets the memory's embedding, if it has one, as the API has it: little-endian float32."""
    space = transaction.namespace(memory.namespace)
    vector = None if space is None else transaction.vector(space, ordinal)
    if vector is not None:
        memory.embedding = vector.astype("<f4", copy=False).tobytes()


def checked_size(size_bytes: int, more_bytes: int, field: str) -> int:
    """The size of an answer with one more memory in it."""
    size_bytes += more_bytes
    if size_bytes > MAX_ANSWER_BYTES:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"the memories are larger than {MAX_ANSWER_BYTES} bytes in all: ask for fewer",
            field=field,
        )
    return size_bytes


def list_memories(
    store: Store, request: reader_pb2.ListMemoriesRequest, now_us: int
) -> reader_pb2.ListMemoriesResponse:
    """One page, in the order of ids, without what has expired by ``now_us``."""
    check_namespace(request.namespace)
    page_size = check_limit(request.page_size, "page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    matcher = compile_filter(request.filter)
    moment = moment_of(request.as_of, now_us)
    query = query_hash(
        reader_pb2.ListMemoriesRequest(
            namespace=request.namespace, filter=request.filter, as_of=request.as_of
        )
    )
    after = _decoded_id(decode_page_token(request.page_token, query))
    response = reader_pb2.ListMemoriesResponse()
    size_bytes = scanned = scanned_ids = 0
    while True:
        with store.read() as transaction:
            # The first of the snapshots: the later ones show at least as much.
            if not response.applied_revision:
                position = transaction.position
                response.applied_revision, response.epoch = position.revision, position.epoch
            check_history(transaction.namespace(request.namespace), moment)
            chunk = list(islice(transaction.ids(request.namespace, after), SCAN_CHUNK_RECORDS + 1))
            for memory_id, state in chunk[:SCAN_CHUNK_RECORDS]:
                full = len(response.memories) == page_size or size_bytes > MAX_PAGE_BYTES
                if full or scanned >= MAX_SCANNED_RECORDS or scanned_ids == MAX_SCANNED_IDS:
                    response.next_page_token = encode_page_token(after.encode(), query)
                    return response
                scanned_ids += 1
                after = memory_id
                if state.deleted and moment.is_now:
                    continue
                walk = Walk()
                found = version_at(transaction, state, moment, walk)
                scanned += max(1, walk.versions)
                if found is not None and (matcher is None or matcher.matches(found[1].memory)):
                    ordinal, record = found
                    if request.include_embedding:
                        add_embedding(transaction, ordinal, record.memory)
                    size_bytes += record.memory.ByteSize()
                    response.memories.append(record.memory)
        if len(chunk) <= SCAN_CHUNK_RECORDS:
            return response


def _decoded_id(place: bytes) -> str:
    try:
        return place.decode()
    except UnicodeDecodeError as error:
        raise foreign_token() from error


def get_history(
    store: Store, request: reader_pb2.GetMemoryHistoryRequest
) -> reader_pb2.GetMemoryHistoryResponse:
    """One page of the versions of a memory, newest first. Raises NotFound when the id was never used."""
    check_namespace(request.namespace)
    check_id(request.id, "id")
    page_size = check_limit(request.page_size, "page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    query = query_hash(reader_pb2.GetMemoryHistoryRequest(namespace=request.namespace, id=request.id))
    place = decode_page_token(request.page_token, query)
    if place and len(place) != KEY.size:
        raise foreign_token()
    with store.read() as transaction:
        position = transaction.position
        response = reader_pb2.GetMemoryHistoryResponse(
            applied_revision=position.revision, epoch=position.epoch
        )
        state = transaction.id_state(request.namespace, request.id)
        if state is None:
            raise NotFound("MEMORY_NOT_FOUND", f"there is no memory {request.id!r}", id=request.id)
        previous = KEY.unpack(place)[0] if place else state.ordinal
        size_bytes = 0
        for ordinal, record in transaction.versions(previous):
            if (record.memory.namespace, record.memory.id) != (request.namespace, request.id):
                raise foreign_token()
            if len(response.versions) == page_size or size_bytes > MAX_PAGE_BYTES:
                response.next_page_token = encode_page_token(KEY.pack(ordinal), query)
                return response
            version = response.versions.add(memory=record.memory, kind=record.kind, revision=record.revision)
            if request.include_embedding:
                add_embedding(transaction, ordinal, version.memory)
            size_bytes += version.ByteSize()
            previous = record.previous_ordinal
        response.pruned = bool(previous)
    return response


def get_stats(store: Store, request: reader_pb2.GetStatsRequest) -> reader_pb2.GetStatsResponse:
    """Of a namespace that was never written to, zeros."""
    check_namespace(request.namespace)
    use = store.file_use()
    with store.read() as transaction:
        space = transaction.namespace(request.namespace)
        position = transaction.position
        response = reader_pb2.GetStatsResponse(
            applied_revision=position.revision,
            epoch=position.epoch,
            store=reader_pb2.StoreStats(
                namespaces=transaction.namespace_count(),
                log_first_revision=transaction.first_log_revision,
                log_last_revision=position.revision,
                log_bytes=transaction.log_bytes,
                used_bytes=use.used_bytes,
                file_bytes=use.file_bytes,
                max_bytes=use.max_bytes,
            ),
        )
    if space is not None:
        response.namespace.CopyFrom(
            reader_pb2.NamespaceStats(
                memories=space.live_memories,
                vectors=space.live_vectors,
                dimension=space.dimension,
                embedding_model=space.model,
                versions=space.versions,
                pruned_versions=space.pruned_versions,
                history_start_revision=space.history_start,
                settings=space.settings(),
                reembedding=_reembedding(space),
            )
        )
    return response


def _reembedding(space: NamespaceState) -> reader_pb2.Reembedding | None:
    if not space.coming_space:
        return None
    return reader_pb2.Reembedding(
        embedding_model=space.coming_model,
        dimension=space.coming_dimension,
        done_versions=space.coming_versions,
        versions=space.versions,
    )
