"""The reads that need no index: by id, and page by page. The same in the writer and in a replica."""

from __future__ import annotations

import base64
import hashlib
from itertools import islice

from agentmem.core.bounded_threads import BoundedThreads
from agentmem.core.errors import InvalidArgument, ResourceExhausted, invalid_field
from agentmem.core.filters import compile_filter
from agentmem.core.store import ReadTransaction, Store
from agentmem.core.validation import MAX_PAGE_SIZE, check_ids, check_limit, check_namespace
from agentmem.v1 import memory_pb2, reader_pb2, reader_pb2_grpc

DEFAULT_PAGE_SIZE = 100
MAX_READ_THREADS = 2
MAX_WAITING_READS = 256
# Some hundred microseconds of the event loop; more ids go to a thread.
MAX_INLINE_GETS = 32
# One transaction reads no more of a page, so that none stays open for long.
SCAN_CHUNK_RECORDS = 256
# A page of a list looks at no more records than this, whether they match or not.
MAX_SCANNED_RECORDS = 5000
# A page of a list ends here; with its last memory it is still below the 4 MiB that gRPC clients take when
# nobody tells them otherwise.
MAX_PAGE_BYTES = 3 * 1024 * 1024
# Below the 64 MiB that a message may have, with room for the last memory and its embedding.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_QUERY_HASH_BYTES = 8


class StoreReader(reader_pb2_grpc.ReaderServiceServicer):
    """GetMemories and ListMemories over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = BoundedThreads("reads", threads=MAX_READ_THREADS, max_calls=MAX_WAITING_READS)

    def close(self) -> None:
        """Drops the reads that wait for a thread."""
        self._threads.close()

    async def GetMemories(
        self, request: reader_pb2.GetMemoriesRequest, context: object
    ) -> reader_pb2.GetMemoriesResponse:
        check_namespace(request.namespace)
        check_ids(request.ids, "ids")
        if len(request.ids) > MAX_INLINE_GETS:
            return await self._threads.run(get_memories, self._store, request)
        return get_memories(self._store, request)

    async def ListMemories(
        self, request: reader_pb2.ListMemoriesRequest, context: object
    ) -> reader_pb2.ListMemoriesResponse:
        # In a thread: a page may read thousands of records.
        return await self._threads.run(list_memories, self._store, request)


def get_memories(store: Store, request: reader_pb2.GetMemoriesRequest) -> reader_pb2.GetMemoriesResponse:
    """Raises ResourceExhausted (``ANSWER_TOO_LARGE``) when the memories do not fit one answer."""
    with store.read() as transaction:
        response = reader_pb2.GetMemoriesResponse(applied_revision=transaction.revision)
        size_bytes = 0
        for memory_id in request.ids:
            state = transaction.id_state(request.namespace, memory_id)
            if state is None or state.deleted:
                response.missing_ids.append(memory_id)
                continue
            memory = read_memory(transaction, state.ordinal, request.include_embedding)
            size_bytes = checked_size(size_bytes, memory, "ids")
            response.memories.append(memory)
    return response


def read_memory(transaction: ReadTransaction, ordinal: int, include_embedding: bool) -> memory_pb2.Memory:
    """The version at an ordinal that the store is known to have."""
    memory = transaction.named_record(ordinal).memory
    if include_embedding:
        add_embedding(transaction, ordinal, memory)
    return memory


def add_embedding(transaction: ReadTransaction, ordinal: int, memory: memory_pb2.Memory) -> None:
    """Sets the memory's embedding, if it has one, as the API has it: little-endian float32."""
    vector = transaction.vector(ordinal)
    if vector is not None:
        memory.embedding = vector.astype("<f4", copy=False).tobytes()


def checked_size(size_bytes: int, memory: memory_pb2.Memory, field: str) -> int:
    """The size of an answer with one more memory in it."""
    size_bytes += memory.ByteSize()
    if size_bytes > MAX_ANSWER_BYTES:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"the memories are larger than {MAX_ANSWER_BYTES} bytes in all: ask for fewer",
            field=field,
        )
    return size_bytes


def list_memories(store: Store, request: reader_pb2.ListMemoriesRequest) -> reader_pb2.ListMemoriesResponse:
    """One page, in the order of ids."""
    check_namespace(request.namespace)
    page_size = check_limit(request.page_size, "page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    matcher = compile_filter(request.filter)
    query_hash = _query_hash(request)
    after = _decode_page_token(request.page_token, query_hash)
    response = reader_pb2.ListMemoriesResponse()
    size_bytes = scanned = 0
    while True:
        with store.read() as transaction:
            # The first of the snapshots: the later ones show at least as much.
            response.applied_revision = response.applied_revision or transaction.revision
            chunk = list(islice(transaction.live_ids(request.namespace, after), SCAN_CHUNK_RECORDS + 1))
            for memory_id, state in chunk[:SCAN_CHUNK_RECORDS]:
                full = len(response.memories) == page_size or size_bytes > MAX_PAGE_BYTES
                if full or scanned == MAX_SCANNED_RECORDS:
                    response.next_page_token = _encode_page_token(after, query_hash)
                    return response
                scanned += 1
                after = memory_id
                memory = transaction.named_record(state.ordinal).memory
                if matcher is None or matcher.matches(memory):
                    if request.include_embedding:
                        add_embedding(transaction, state.ordinal, memory)
                    size_bytes += memory.ByteSize()
                    response.memories.append(memory)
        if len(chunk) <= SCAN_CHUNK_RECORDS:
            return response


def _query_hash(request: reader_pb2.ListMemoriesRequest) -> bytes:
    """What a page token belongs to: the namespace and the filter."""
    query = reader_pb2.ListMemoriesRequest(namespace=request.namespace, filter=request.filter)
    return hashlib.blake2b(
        query.SerializeToString(deterministic=True), digest_size=_QUERY_HASH_BYTES
    ).digest()


def _encode_page_token(last_id: str, query_hash: bytes) -> str:
    return base64.urlsafe_b64encode(query_hash + last_id.encode()).decode()


def _decode_page_token(token: str, query_hash: bytes) -> str:
    """The id behind which the page begins; "" for the first page."""
    if not token:
        return ""
    try:
        data = base64.b64decode(token, altchars=b"-_", validate=True)
        last_id = data[_QUERY_HASH_BYTES:].decode()
    except ValueError as error:
        raise invalid_field("page_token", "is not one that this server made") from error
    if not last_id:
        raise invalid_field("page_token", "is not one that this server made")
    if data[:_QUERY_HASH_BYTES] != query_hash:
        raise InvalidArgument(
            "PAGE_TOKEN_MISMATCH",
            "page_token belongs to a list with another namespace or filter",
            field="page_token",
        )
    return last_id
