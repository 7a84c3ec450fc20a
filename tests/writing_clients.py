"""Clients that add, update and delete as fast as they are answered, and keep a ledger of it."""

from __future__ import annotations

import random
import struct
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
from cluster import Stubs
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2, status_pb2
from ledger import Ledger, Outcome, Stored, Write

from agentmem.v1 import memory_pb2, reader_pb2, writer_pb2

CALL_TIMEOUT_S = 60.0
# What these reasons refuse was surely not written.
REFUSALS = ("STORE_FULL", "OVERLOADED", "SHUTTING_DOWN")
DIMENSION = 16

Call = Callable[[], object]


def reason_of(error: grpc.RpcError) -> str:
    """``CODE REASON`` of an error, or its code alone when the answer was not the server's."""
    call: grpc.Call = error  # type: ignore[assignment]
    code: str = call.code().name
    details = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin")
    info = error_details_pb2.ErrorInfo()
    if isinstance(details, bytes):
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                return f"{code} {info.reason}"
    return code


class WritingClient:
    """One client with ids of its own. Stops by itself when it cannot know what became of a write."""

    def __init__(self, name: str, namespace: str, seed: str, trace: Path | None) -> None:
        self.writes: list[Write] = []
        self.errors: Counter[str] = Counter()
        self._name = name
        self._namespace = namespace
        self._chance = random.Random(seed)
        self._trace = trace
        self._live: list[str] = []
        self._deleted: list[str] = []
        self._names = 0

    def run(self, address: str, max_writes: int | None, stop: threading.Event) -> None:
        stubs = Stubs(address)
        while not stop.is_set() and (max_writes is None or len(self.writes) < max_writes):
            write, call = self._next(stubs)
            self.writes.append(write)
            try:
                call()
            except grpc.RpcError as error:
                reason = reason_of(error)
                self.errors[reason] += 1
                if reason.rpartition(" ")[2] not in REFUSALS:
                    break
                write.outcome = Outcome.REFUSED
                continue
            # The size is read after the answer: the trace had all of the write by then.
            write.acknowledged_bytes = self._trace.stat().st_size if self._trace else 0
            write.outcome = Outcome.ACKNOWLEDGED
            self._remember(write)
        stubs.channel.close()

    def _remember(self, write: Write) -> None:
        ids = set(write.ids)
        self._live = [memory_id for memory_id in self._live if memory_id not in ids]
        self._deleted = [memory_id for memory_id in self._deleted if memory_id not in ids]
        (self._deleted if write.content is None else self._live).extend(write.ids)

    def _content(self) -> str:
        text = f"{self._name}/{len(self.writes)} "
        # Most fit a page of the store, some need several of their own.
        size = (
            self._chance.randrange(20, 600) if self._chance.random() < 0.9 else self._chance.randrange(20_000)
        )
        return (text * (size // len(text) + 1))[: max(size, len(text))]

    def _next(self, stubs: Stubs) -> tuple[Write, Call]:
        draw = self._chance.random()
        if draw < 0.35 and self._live:
            return self._update(stubs, self._chance.choice(self._live))
        if draw < 0.5 and self._live:
            ids = self._chance.sample(self._live, min(len(self._live), self._chance.randint(1, 3)))
            return self._delete(stubs, ids)
        if draw < 0.6 and self._deleted:
            return self._add(stubs, [self._chance.choice(self._deleted)])
        self._names += 1
        return self._add(
            stubs, [f"{self._name}-{self._names:04}.{part}" for part in range(self._chance.randint(1, 6))]
        )

    def _add(self, stubs: Stubs, ids: list[str]) -> tuple[Write, Call]:
        content = self._content()
        request = writer_pb2.AddMemoriesRequest(namespace=self._namespace)
        for memory_id in ids:
            memory = request.memories.add(id=memory_id, content=content)
            if self._chance.random() < 0.3:
                memory.embedding = struct.pack(
                    f"<{DIMENSION}f", *(self._chance.gauss(0, 1) for _ in range(DIMENSION))
                )
                memory.embedding_model = "random"
        return Write(tuple(ids), content), lambda: stubs.writer.AddMemories(request, timeout=CALL_TIMEOUT_S)

    def _update(self, stubs: Stubs, memory_id: str) -> tuple[Write, Call]:
        content = self._content()
        request = writer_pb2.UpdateMemoryRequest(
            namespace=self._namespace,
            memory=memory_pb2.Memory(id=memory_id, content=content),
            update_mask=field_mask_pb2.FieldMask(paths=["content"]),
        )
        return Write((memory_id,), content), lambda: stubs.writer.UpdateMemory(
            request, timeout=CALL_TIMEOUT_S
        )

    def _delete(self, stubs: Stubs, ids: list[str]) -> tuple[Write, Call]:
        request = writer_pb2.DeleteMemoriesRequest(namespace=self._namespace, ids=ids)
        return Write(tuple(ids), None), lambda: stubs.writer.DeleteMemories(request, timeout=CALL_TIMEOUT_S)


class WritingClients:
    """Several clients, each in a thread of its own, from ``start`` to ``join``."""

    def __init__(
        self,
        namespace: str,
        *,
        clients: int,
        seed: str,
        trace: Path | None = None,
        max_writes: int | None = None,
    ) -> None:
        self._clients = [
            WritingClient(f"{namespace}.{number}", namespace, f"{seed}/{number}", trace)
            for number in range(clients)
        ]
        self.ledger = Ledger(namespace, [client.writes for client in self._clients])
        self._max_writes = max_writes
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, address: str) -> None:
        """Begins, or goes on after ``stop``."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=client.run, args=(address, self._max_writes, self._stop))
            for client in self._clients
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Returns when each client has ended by itself: it did all, or lost the writer."""
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Lets the calls in flight end, and no other begin."""
        self._stop.set()
        self.join()

    def errors(self) -> Counter[str]:
        """How often the clients were answered with each error."""
        return sum((client.errors for client in self._clients), Counter())


def served(stubs: Stubs, namespace: str) -> dict[str, Stored]:
    """Every memory of a namespace, as the node lists them."""
    found: dict[str, Stored] = {}
    token = ""
    while True:
        page = stubs.reader.ListMemories(
            reader_pb2.ListMemoriesRequest(namespace=namespace, page_size=1000, page_token=token),
            timeout=CALL_TIMEOUT_S,
        )
        found |= {memory.id: Stored(memory.version, memory.content) for memory in page.memories}
        token = page.next_page_token
        if not token:
            return found
